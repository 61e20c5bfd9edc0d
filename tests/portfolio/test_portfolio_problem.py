"""The decision problem of a study: scores to weights, values and regrets with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import random_panel

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.portfolio import PortfolioLayer, PortfolioProblem, ProblemConfig

GAMMA = 8.0


@pytest.fixture
def panel():
    return random_panel()


@pytest.fixture
def batch(panel):
    return panel.batch(torch.arange(len(panel)))


def equal_weights(batch):
    return batch.mask / batch.mask.sum(-1, keepdim=True).double()


def test_scores_become_returns_by_the_scale(batch):
    problem = PortfolioProblem({"risk_aversion": GAMMA, "max_weight": 0.5}, score_scale=0.02)
    scores = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0)).double()
    direct = PortfolioLayer(GAMMA, 0.5)(0.02 * scores, batch.loadings, batch.specific, batch.mask)
    torch.testing.assert_close(problem.solve(scores, batch).w, direct, rtol=0, atol=0)
    named = PortfolioProblem(
        {"risk_aversion": GAMMA, "max_weight": 0.5, "score_scale": 0.02}, score_scale=5.0
    )
    torch.testing.assert_close(named.solve(scores, batch).w, direct, rtol=0, atol=0)


def test_the_value_is_half_the_risk_less_the_return(batch):
    problem = PortfolioProblem({"risk_aversion": GAMMA})
    w = equal_weights(batch)
    values = problem.value(w, batch)
    for t in range(len(w)):
        covariance = batch.loadings[t] @ batch.loadings[t].T + torch.diag(batch.specific[t])
        expected = 0.5 * GAMMA * w[t] @ covariance @ w[t] - w[t] @ batch.returns[t]
        assert float(values[t]) == pytest.approx(float(expected), rel=1e-12)


def test_without_risk_the_regret_is_the_return_that_the_best_name_had_more(batch):
    problem = PortfolioProblem({"risk_aversion": 1e-9})
    w = equal_weights(batch)
    best = batch.returns.masked_fill(~batch.mask, -torch.inf).amax(-1)
    expected = best - (w * batch.returns).sum(-1)
    torch.testing.assert_close(problem.regret(w, batch), expected, rtol=0, atol=1e-10)


def test_regret_of_two_names_in_closed_form():
    """f is a parabola in w₁ with curvature γ(d₁ + d₂): the regret is half of that times (Δw)²."""
    panel = random_panel(names=2, factors=0, unknown=0.0, seed=3)
    batch = panel.batch(torch.nonzero(panel.counts == 2).squeeze(-1))
    assert len(batch.days) >= 3
    gamma = 1e4
    problem = PortfolioProblem({"risk_aversion": gamma})
    d, y = batch.specific, batch.returns
    curvature = gamma * d.sum(-1)
    best = (y[:, 0] - y[:, 1] + gamma * d[:, 1]) / curvature
    inside = (best > 0) & (best < 1)
    assert inside.all()
    first = torch.linspace(0, 1, len(d), dtype=torch.float64)
    regret = problem.regret(torch.stack([first, 1 - first], -1), batch)
    torch.testing.assert_close(regret, 0.5 * curvature * (first - best) ** 2, rtol=1e-8, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.floats(-2, 4), st.sampled_from([0.2, 0.5, 1.0]))
def test_regret_is_never_negative_and_zero_with_perfect_foresight(seed, power, cap):
    panel = random_panel(days=4, seed=seed % 1000)
    batch = panel.batch(torch.arange(4))
    gamma = 10.0**power
    problem = PortfolioProblem({"risk_aversion": gamma, "max_weight": cap}, score_scale=0.02)
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch.mask.shape, generator=g, dtype=torch.float64)
    noise = 1e-12 * (1 + gamma)
    assert (problem.regret(problem.solve(scores, batch).w, batch) >= -noise).all()
    perfect = problem.solve(batch.returns / problem.scale, batch).w
    assert (problem.regret(perfect, batch).abs() <= noise).all()


def test_hindsight_does_not_depend_on_scores_or_scale(batch):
    config = {"risk_aversion": GAMMA, "max_weight": 0.4}
    one, other = (PortfolioProblem(config, score_scale=scale) for scale in (0.01, 3.0))
    before = one.hindsight(batch).w
    one.solve(torch.randn(batch.mask.shape).double(), batch)
    assert torch.equal(one.hindsight(batch).w, before)
    assert torch.equal(other.hindsight(batch).w, before)


def test_filled_optima_equal_the_direct_computation(panel):
    problem = PortfolioProblem({"risk_aversion": GAMMA, "max_weight": 0.4})
    days = torch.arange(2, 17)
    problem.fill_oracle_values(panel, days, rows=50)
    assert panel.oracle_value[:2].isnan().all() and panel.oracle_value[17:].isnan().all()
    for t in days.tolist():
        batch = panel.batch(torch.tensor([t]), features=False)
        direct = problem.value(problem.hindsight(batch).w, batch)
        torch.testing.assert_close(panel.oracle_value[[t]], direct, rtol=0, atol=1e-14)
    assert not panel.oracle_value.requires_grad


def test_regret_uses_a_filled_optimum_and_agrees_with_a_fresh_one(panel):
    problem = PortfolioProblem({"risk_aversion": GAMMA})
    days = torch.arange(len(panel))
    fresh = problem.regret(equal_weights(panel.batch(days)), panel.batch(days))
    problem.fill_oracle_values(panel, days)
    batch = panel.batch(days)
    torch.testing.assert_close(
        problem.regret(equal_weights(batch), batch), fresh, rtol=0, atol=1e-14
    )
    batch.oracle_value.fill_(-1.0)
    torch.testing.assert_close(
        problem.regret(equal_weights(batch), batch), problem.value(equal_weights(batch), batch) + 1
    )


def test_the_gradient_of_regret_is_that_of_the_value(batch):
    problem = PortfolioProblem({"risk_aversion": GAMMA})
    w = equal_weights(batch).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: problem.regret(w, batch), w, atol=1e-7)


def test_days_without_known_returns_are_decided_on_risk_alone():
    panel = random_panel(unknown=1.0)
    batch = panel.batch(torch.arange(3))
    problem = PortfolioProblem({"risk_aversion": GAMMA})
    least = PortfolioLayer(1.0)(
        torch.zeros_like(batch.returns), batch.loadings, batch.specific, batch.mask
    )
    torch.testing.assert_close(problem.hindsight(batch).w, least, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"risk_aversion": 0}, r"problem\.risk_aversion: must be > 0"),
        ({"max_weight": 1.5}, r"problem\.max_weight: must be > 0 and <= 1"),
        ({"score_scale": -1.0}, r"problem\.score_scale: must be > 0"),
        ({"tolerance": math.nan}, r"problem\.tolerance"),
        ({"risk_aversoin": 1.0}, r"unknown key 'risk_aversoin'. Did you mean 'risk_aversion'\?"),
    ],
)
def test_bad_settings_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        PortfolioProblem(config)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_no_scale_is_refused(scale):
    with pytest.raises(ConfigError, match="score_scale"):
        PortfolioProblem(ProblemConfig(), score_scale=scale)


def test_a_warm_start_reaches_the_solver(monkeypatch):
    seen = []
    problem = PortfolioProblem({"risk_aversion": 10.0})
    monkeypatch.setattr(problem.layer, "solve", lambda *_, **given: seen.append(given))
    batch = random_panel(days=1, names=2).batch(torch.arange(1))
    problem.solve_forecast(torch.zeros(1, 2), batch, "earlier")
    assert seen == [{"initial_point": "earlier"}]
