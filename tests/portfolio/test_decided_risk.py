"""A learned covariance decides and does not judge; it is positive definite whatever is said."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import paying, random_panel

from bpqp_portfolio.portfolio import PortfolioLayer, PortfolioProblem
from bpqp_portfolio.portfolio.drift import held

DAYS, NAMES, K = 6, 10, 2
GAMMA, CAP = 30.0, 0.4


def market(seed=0, limit=1.0):
    """A batch, the same batch with a learned risk, and scores."""
    batch = random_panel(DAYS, NAMES, factors=K, seed=seed).batch(torch.arange(DAYS))
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return limit * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)

    inside = batch.mask.double()
    learned = replace(
        batch, log_specific=draw(*batch.mask.shape) * inside, log_factors=draw(DAYS, K)
    )
    return batch, learned, 2 * draw(*batch.mask.shape) * inside


def problem(**changes):
    settings_ = {"risk_aversion": GAMMA, "max_weight": CAP, "score_scale": 0.02, **changes}
    return PortfolioProblem(settings_)


def covariance(batch):
    return batch.loadings @ batch.loadings.mT + torch.diag_embed(batch.specific)


def test_the_learned_covariance_is_scaled_factor_by_factor_and_name_by_name():
    batch, learned, _ = market()
    scaled = torch.diag_embed(learned.log_factors.exp().square())
    expected = batch.loadings @ scaled @ batch.loadings.mT + torch.diag_embed(
        batch.specific * learned.log_specific.exp()
    )
    seen = learned.with_learned_risk()
    torch.testing.assert_close(covariance(seen), expected)
    assert seen.with_learned_risk() is seen and batch.with_learned_risk() is batch


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), limit=st.floats(0, 6))
def test_it_is_positive_definite_by_construction(seed, limit):
    batch, learned, _ = market(seed, limit)
    least = torch.linalg.eigvalsh(covariance(learned.with_learned_risk()))[:, 0]
    bound = math.exp(-limit) * batch.specific.amin(-1)
    assert (least >= bound * (1 - 1e-6) - 1e-12).all() and (
        learned.with_learned_risk().specific > 0
    ).all()


def test_nothing_said_changes_not_a_bit():
    batch, learned, scores = market()
    silent = replace(
        batch,
        log_specific=torch.zeros_like(learned.log_specific),
        log_factors=torch.zeros_like(learned.log_factors),
    )
    for cost in (0.0, 0.002):
        rolled = [problem(**paying(cost)).rollout(scores, b) for b in (batch, silent)]
        assert torch.equal(*rolled)
    assert torch.equal(
        problem().with_signal_scale(0.0).solve(scores, batch).w, problem().solve(scores, batch).w
    )


def test_the_decision_is_the_optimum_of_the_learned_covariance():
    batch, learned, scores = market()
    w = problem().solve(scores, learned).w
    expected = PortfolioLayer(GAMMA, CAP)(
        0.02 * scores, covariance=covariance(learned.with_learned_risk()), mask=batch.mask
    )
    torch.testing.assert_close(w, expected, rtol=0, atol=1e-7)
    assert (w - problem().solve(scores, batch).w).abs().max() > 0.02


@pytest.mark.parametrize("sweeps", [None, 2, DAYS - 1])
def test_days_in_order_are_decided_with_it_too(sweeps):
    _, learned, scores = market()
    dear = problem(**paying(0.003))
    seen = learned.with_learned_risk()
    w = dear.rollout(scores, learned, sweeps)
    assert torch.equal(w, dear.rollout(scores, seen, sweeps))
    if sweeps is None:
        layer = PortfolioLayer(GAMMA, CAP, turnover_cost=0.003)
        days = seen.loadings, seen.specific, seen.mask
        again = layer.solve(0.02 * scores, *days, held(w, learned)).w
        torch.testing.assert_close(again, w, rtol=0, atol=1e-7)


def test_the_judge_keeps_the_statistical_covariance():
    """Else a network would lower its loss by declaring risk small."""
    batch, learned, scores = market()
    w = problem().solve(scores, learned).w
    for judge in (problem().value, problem().regret):
        assert torch.equal(judge(w, learned), judge(w, batch))
    assert torch.equal(problem().hindsight(learned).w, problem().hindsight(batch).w)
    assert (problem().regret(w, learned) >= -1e-12).all()


@pytest.mark.parametrize("normalisation", ["none", "standardise"])
def test_a_bolder_problem_has_larger_forecasts(normalisation):
    batch, _, scores = market()
    given_ = problem(normalisation=normalisation)
    with_signal_scale = given_.with_signal_scale(math.log(2))
    expected = 2 * given_.forecast(scores, batch.mask)
    torch.testing.assert_close(
        with_signal_scale.forecast(scores, batch.mask), expected, rtol=1e-14, atol=0
    )
    assert given_.unit == 0.02 and float(with_signal_scale.unit) == pytest.approx(0.04, rel=1e-14)
    assert given_.with_signal_scale(None) is given_
