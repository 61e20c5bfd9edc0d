"""SPO+ against closed forms of two names, its bound, its convexity and its gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from panels import random_panel

from bpqp_portfolio.errors import SolverError
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.portfolio import PortfolioProblem


def two_names(returns, gamma):
    """Days of two names without factors and with specific variances 1, and their problem."""
    panel = random_panel(days=40, names=2, factors=0, unknown=0.0, dtype=torch.float64)
    days = torch.nonzero(panel.counts == 2).squeeze(-1)[: len(returns)]
    batch = panel.batch(days)
    batch = replace(
        batch,
        returns=torch.tensor(returns, dtype=torch.float64),
        specific=torch.ones(len(returns), 2, dtype=torch.float64),
    )
    return batch, PortfolioProblem({"risk_aversion": gamma}, score_scale=1.0)


def test_without_risk_two_names_give_the_hinge():
    """Elmachtoub and Grigas' loss of a choice between two is max(0, 1 − 2 δ̂/δ) times δ: with true
    returns (1, 0) and a forecast lead δ̂ of the first, 3 at δ̂ = −1, 1 at 0, 0.5 at 1/4, 0 from 1/2
    on; the regret is 1 for δ̂ < 0 and 0 above."""
    lead = torch.tensor([-1.0, 0.0, 0.25, 0.5, 2.0], dtype=torch.float64)
    batch, problem = two_names([[1.0, 0.0]] * 5, gamma=1e-9)
    scores = torch.stack([lead, torch.zeros_like(lead)], -1)
    total, _, regret = build_loss("spo_plus")(scores, batch, problem)
    expected = torch.tensor([3.0, 1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-8)
    known = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(regret[[0, 2, 3, 4]], known, rtol=0, atol=1e-8)


def test_with_risk_two_names_give_a_parabola():
    """w₁ = ½ + δ/4 for γ = 2 where that is inside, and f has curvature 4 in w₁: with δ = 1 and
    m's lead 2δ̂ − 1, the loss is 2 (¾ − w₁(m))² = ½ (δ̂ − 1)² for 2δ̂ − 1 within ±2."""
    lead = torch.tensor([-0.4, 0.0, 0.5, 1.0, 1.4], dtype=torch.float64)
    batch, problem = two_names([[1.0, 0.0]] * 5, gamma=2.0)
    scores = torch.stack([lead, torch.zeros_like(lead)], -1)
    total, _, regret = build_loss("spo_plus")(scores, batch, problem)
    torch.testing.assert_close(total, 0.5 * (lead - 1) ** 2, rtol=0, atol=1e-12)
    torch.testing.assert_close(regret, 0.125 * (lead - 1) ** 2, rtol=0, atol=1e-12)


def test_second_derivatives_are_refused():
    batch, problem = two_names([[1.0, 0.0]], gamma=2.0)
    scores = torch.tensor([[0.4, 0.0]], dtype=torch.float64, requires_grad=True)
    total, _, _ = build_loss("spo_plus")(scores, batch, problem)
    with pytest.raises(SolverError, match="spo_plus: no second derivatives"):
        torch.autograd.grad(total.sum(), scores, create_graph=True)


@pytest.fixture
def setting():
    problem = PortfolioProblem({"risk_aversion": 20.0, "max_weight": 0.45}, score_scale=0.02)
    return random_panel(days=30, dtype=torch.float64).batch(torch.arange(30)), problem


def drawn(batch, seed, spread=1.0):
    g = torch.Generator().manual_seed(seed)
    return spread * torch.randn(batch.mask.shape, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_it_bounds_the_regret_and_is_zero_for_the_truth(spread, setting):
    batch, problem = setting
    loss = build_loss("spo_plus")
    for seed in range(5):
        total, _, regret = loss(drawn(batch, seed, spread), batch, problem)
        assert (total >= regret - 1e-9).all() and (total > regret).any()
    total, _, _ = loss(batch.returns / 0.02, batch, problem)
    torch.testing.assert_close(total, torch.zeros(30).double(), rtol=0, atol=1e-9)


def test_it_is_convex_in_the_scores(setting):
    batch, problem = setting
    loss = build_loss("spo_plus")
    for seed in range(5):
        one, other = drawn(batch, seed), drawn(batch, seed + 100, 3.0)
        ends = loss(one, batch, problem).total, loss(other, batch, problem).total
        for share in (0.2, 0.5, 0.9):
            between = loss(share * one + (1 - share) * other, batch, problem).total
            assert (between <= share * ends[0] + (1 - share) * ends[1] + 1e-9).all()


def test_its_gradient_is_twice_the_difference_of_two_portfolios(setting):
    batch, problem = setting
    scores = drawn(batch, 3).requires_grad_()
    total = build_loss("spo_plus")(scores, batch, problem).total
    (slope,) = torch.autograd.grad(total.sum(), scores)
    m = 2 * 0.02 * scores.detach() - batch.returns
    expected = 2 * (problem.solve_forecast(m, batch).w - problem.hindsight(batch).w)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)
