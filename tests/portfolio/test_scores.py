"""Normalised scores: closed forms, invariance, gradients, and what the problem makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panels import random_panel

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.portfolio.scores import NORMALISATIONS, standardised

CONFIG = {"risk_aversion": 50.0, "max_weight": 0.5}


@pytest.fixture
def batch():
    return random_panel(unknown=0.0).batch(torch.arange(8))


@pytest.fixture
def scores(batch):
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch.mask.shape, generator=g, dtype=torch.float64) * batch.mask + 3


def test_standardised_by_numpy(batch, scores):
    found = standardised(scores, batch.mask)
    for t in range(8):
        x = scores[t][batch.mask[t]].numpy()
        expected = (x - x.mean()) / x.std()
        np.testing.assert_allclose(found[t][batch.mask[t]].numpy(), expected, rtol=1e-12)
    assert (found[~batch.mask] == 0).all()


def test_level_and_spread_of_a_day_do_not_matter(batch, scores):
    g = torch.Generator().manual_seed(1)
    level = 10 * torch.randn(8, 1, generator=g, dtype=torch.float64)
    spread = torch.logspace(-6, 6, 8, dtype=torch.float64).unsqueeze(-1)
    moved = spread * (level + scores)
    torch.testing.assert_close(standardised(moved, batch.mask), standardised(scores, batch.mask))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, -7e5])
def test_equal_scores_become_zero_without_a_gradient(dtype, level, batch):
    flat = torch.full(batch.mask.shape, level, dtype=dtype, requires_grad=True)
    found = standardised(flat, batch.mask)
    found.sum().backward()
    assert (found == 0).all() and (flat.grad == 0).all()


def test_gradcheck(batch, scores):
    scores.requires_grad_()
    for normalise in NORMALISATIONS.values():
        assert torch.autograd.gradcheck(lambda s, f=normalise: f(s, batch.mask), scores)


def test_the_forecast_is_kappa_times_the_normalised_score(batch, scores):
    problem = PortfolioProblem({**CONFIG, "normalisation": "standardise", "kappa": 0.003}, 0.02)
    expected = 0.003 * standardised(scores, batch.mask)
    torch.testing.assert_close(problem.forecast(scores, batch.mask), expected)
    direct = PortfolioProblem(CONFIG, 1.0).solve(expected, batch).w
    torch.testing.assert_close(problem.solve(scores, batch).w, direct)
    torch.testing.assert_close(problem.solve(100 * scores - 1, batch).w, direct)
    open_kappa = PortfolioProblem({**CONFIG, "normalisation": "standardise"}, 0.02)
    torch.testing.assert_close(open_kappa.forecast(scores, batch.mask), expected * 0.02 / 0.003)


def test_kappa_decides_how_concentrated_the_portfolio_is(batch, scores):
    held = []
    for kappa in (1e-5, 1e-3, 1e-1):
        config = {**CONFIG, "normalisation": "standardise", "kappa": kappa}
        w = PortfolioProblem(config).solve(scores, batch).w
        held.append(float((1 / (w * w).sum(-1)).mean()))
    assert held == sorted(held, reverse=True) and held[0] > 1.5 * held[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"normalisation": "standardize"}, r"normalisation 'standardize'.*mean 'standardise'"),
        ({"normalisation": "standardise", "kappa": 0}, r"problem\.kappa: must be > 0"),
        ({"kappa": 0.01}, r"problem\.kappa: needs a normalisation; without one set score_scale"),
    ],
)
def test_bad_settings_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        PortfolioProblem(config)
