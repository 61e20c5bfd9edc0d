"""Days decided in order: trades cost, yesterday's weights enter today's problem."""

from __future__ import annotations

import itertools

import pytest
import torch
from panels import paying, random_panel

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.losses.account import trades
from bpqp_portfolio.portfolio.drift import held
from bpqp_portfolio.portfolio.layer import PortfolioLayer
from bpqp_portfolio.portfolio.problem import PortfolioProblem

SETTINGS = {"risk_aversion": 20.0, "max_weight": 0.4, "score_scale": 0.01}


def market(seed=0, days=8):
    panel = random_panel(days, 12, seed=seed)
    batch = panel.batch(torch.arange(days))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch.mask.shape, generator=generator, dtype=torch.float64)
    return batch, torch.where(batch.mask, scores, 0.0)


def problem(cost):
    return PortfolioProblem({**SETTINGS, **paying(cost)})


def turnover(w, batch):
    bought, sold = trades(w, batch)
    return float((bought + sold).sum())


def test_free_trading_is_the_problem_of_each_day_alone():
    batch, scores = market()
    plain = problem(0.0)
    assert torch.equal(plain.rollout(scores, batch), plain.solve(scores, batch).w)


def test_the_first_day_trades_for_free():
    batch, scores = market()
    w = problem(0.01).rollout(scores, batch)
    torch.testing.assert_close(w[0], problem(0.0).solve(scores, batch).w[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", ["structured", "clarabel"])
def test_each_day_solves_its_problem_from_what_is_held(solver):
    batch, scores = market()
    cost = 0.003
    w = PortfolioProblem({**SETTINGS, **paying(cost), "solver": solver}).rollout(scores, batch)
    layer = PortfolioLayer(20.0, 0.4, turnover_cost=cost)
    before = held(w, batch)
    days = batch.loadings, batch.specific, batch.mask
    again = layer.solve(0.01 * scores, *days, before).w
    torch.testing.assert_close(again, w, rtol=0, atol=1e-6)


def test_a_dearer_trade_trades_less():
    batch, scores = market()
    traded = [turnover(problem(c).rollout(scores, batch), batch) for c in (0.0, 0.001, 0.003, 0.01)]
    assert all(a > b + 1e-6 for a, b in itertools.pairwise(traded)), traded


def test_at_a_prohibitive_price_names_are_held():
    batch, scores = market()
    w = problem(0.1).rollout(scores, batch)
    before = held(w, batch)[1:]
    # Only what names that left the universe free is traded, and what the cap forces.
    stay = batch.mask[1:] & (before < 0.4)
    assert bool((w[1:] >= before - 1e-9)[stay].all())


def test_as_many_sweeps_as_days_are_exact():
    batch, scores = market()
    one = problem(0.003)
    exact = one.rollout(scores, batch)
    torch.testing.assert_close(one.rollout(scores, batch, sweeps=7), exact, rtol=0, atol=1e-9)
    errors = [float((one.rollout(scores, batch, sweeps=s) - exact).abs().max()) for s in (1, 7)]
    assert errors[0] > 1e-4 > errors[1]


def test_a_gap_in_the_days_starts_anew():
    panel = random_panel(9, 12, seed=3)
    batch = panel.batch(torch.tensor([0, 1, 2, 5, 6]))
    scores = torch.where(batch.mask, torch.sin(torch.arange(batch.mask.numel()) * 1.7).view_as(
        batch.returns
    ), 0.0)  # fmt: skip
    w = problem(0.01).rollout(scores, batch)
    alone = problem(0.0).solve(scores, batch).w
    torch.testing.assert_close(w[3], alone[3], rtol=0, atol=1e-9)
    assert float((w[4] - alone[4]).abs().max()) > 1e-4


def test_gradients_go_through_time():
    batch, scores = market(seed=2, days=6)
    one = problem(0.003)
    weight = torch.cos(torch.arange(scores.numel(), dtype=torch.float64)).view_as(scores)

    def value(s):
        return (one.rollout(s, batch)[-1] * weight[-1]).sum()

    leaf = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    # The last day's weights depend on the scores of earlier days.
    assert float(gradient[:-1].abs().max()) > 0
    step = 1e-6
    for day in range(len(scores)):
        direction = torch.zeros_like(scores)
        direction[day] = torch.where(batch.mask[day], weight[day], 0.0)
        ahead, behind = value(scores + step * direction), value(scores - step * direction)
        expected = float(ahead - behind) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_other_decisions_refuse_the_cost():
    with pytest.raises(ConfigError, match=r"trading_costs.*equal_weight"):
        PortfolioProblem({**SETTINGS, **paying(0.001), "decision": {"name": "equal_weight"}})
