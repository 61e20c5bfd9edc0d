"""Trades of drifted weights, and the block losses, against a plain account kept name by name."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from panels import STATED, random_panel

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.losses.account import trades
from bpqp_portfolio.portfolio import PortfolioProblem

PROBLEM = PortfolioProblem({"risk_aversion": 20.0, "max_weight": 0.45, **STATED}, score_scale=0.02)


def of_costs(buy, sell, **facts):
    """The problem with other costs."""
    costs = {"buy": buy, "sell": sell, "minimum": 0.0}
    return PortfolioProblem(replace(PROBLEM.config, costs=costs, **facts), score_scale=0.02)


DEAR, FREE = of_costs(0.002, 0.003, days_per_year=242), of_costs(0.0, 0.0)
DAYS = 12


@pytest.fixture
def batch():
    return random_panel(days=30, dtype=torch.float64).batch(torch.arange(5, 5 + DAYS))


@pytest.fixture
def scores(batch):
    g = torch.Generator().manual_seed(0)
    return torch.randn(batch.mask.shape, generator=g, dtype=torch.float64) * batch.mask


def account(w, batch):
    """Bought and sold each day by an account of dictionaries."""
    out, held = [], None
    for t in range(len(w)):
        codes = batch.names[t][batch.mask[t]].tolist()
        target = dict(zip(codes, w[t][batch.mask[t]].tolist(), strict=True))
        growth = dict(zip(codes, (1 + batch.returns[t][batch.mask[t]]).tolist(), strict=True))
        bought = sold = 0.0
        if held is not None:
            for code in target.keys() | held.keys():
                change = target.get(code, 0.0) - held.get(code, 0.0)
                bought, sold = bought + max(change, 0.0), sold + max(-change, 0.0)
        out.append((bought, sold))
        value = sum(target[c] * growth[c] for c in codes)
        held = {c: target[c] * growth[c] / value for c in codes}
    return torch.tensor(out, dtype=torch.float64).T


def test_two_names_by_hand():
    """Half and half; the first gains 20 %, the second loses 10 %: 0.6/1.05 and 0.45/1.05. Back to
    half and half sells 1/14 of the account and buys as much."""
    panel = random_panel(days=40, names=2, factors=0, unknown=0.0, dtype=torch.float64)
    batch = panel.batch(torch.nonzero(panel.counts == 2).squeeze(-1)[:2])
    returns = torch.tensor([[0.2, -0.1], [0.0, 0.0]], dtype=torch.float64)
    batch = replace(batch, returns=returns, days=torch.tensor([3, 4]))
    bought, sold = trades(torch.full((2, 2), 0.5, dtype=torch.float64), batch)
    expected = torch.tensor([0, 1 / 14], dtype=torch.float64)
    torch.testing.assert_close(bought, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(sold, expected, rtol=1e-12, atol=0)


def test_names_that_leave_are_sold_and_those_that_come_are_bought(batch):
    """The universes of these days differ; one column is another name on another day."""
    columns = [set(column.tolist()) - {-1} for column in batch.names.T]
    assert any(len(c) > 1 for c in columns)
    w = PROBLEM.solve(batch.returns * 10, batch).w
    torch.testing.assert_close(torch.stack(trades(w, batch)), account(w, batch))
    held = batch.mask / batch.mask.sum(-1, keepdim=True).double()
    torch.testing.assert_close(torch.stack(trades(held, batch)), account(held, batch))


def test_weights_left_to_drift_cost_nothing():
    panel = random_panel(days=40, names=2, factors=0, unknown=0.0, dtype=torch.float64)
    batch = panel.batch(torch.nonzero(panel.counts == 2).squeeze(-1)[:6])
    batch = replace(batch, days=torch.arange(6))
    w = [torch.tensor([0.3, 0.7], dtype=torch.float64)]
    for t in range(5):
        grown = w[-1] * (1 + batch.returns[t])
        w.append(grown / grown.sum())
    for side in trades(torch.stack(w), batch):
        torch.testing.assert_close(side, torch.zeros(6).double(), rtol=0, atol=1e-15)


def test_what_is_bought_is_sold_since_all_is_invested(batch, scores):
    bought, sold = trades(PROBLEM.solve(scores, batch).w, batch)
    torch.testing.assert_close(bought, sold)
    assert (bought[1:] > 0).all() and (bought <= 1 + 1e-12).all()


def test_the_first_day_and_a_day_after_a_gap_trade_nothing(batch, scores):
    w = PROBLEM.solve(scores, batch).w
    plain = trades(w, batch)[0]
    gap = replace(batch, days=batch.days + (torch.arange(DAYS) >= 5))
    broken = trades(w, gap)[0]
    assert plain[0] == 0 and plain[5] > 0 and broken[5] == 0
    rest = torch.arange(DAYS) != 5
    assert torch.equal(plain[rest], broken[rest])


def test_trades_pass_finite_differences_in_both_days_weights(batch):
    w = (batch.mask / batch.mask.sum(-1, keepdim=True).double()).requires_grad_()
    w = (w + 0.01 * torch.rand(w.shape, generator=torch.Generator().manual_seed(1))).detach()
    w = torch.where(batch.mask, w, 0.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: trades(w, batch), w, atol=1e-7)


@pytest.mark.parametrize("benchmark", ["none", "universe"])
def test_net_sharpe_by_numpy(benchmark, batch, scores):
    total = build_loss("net_sharpe", {"benchmark": benchmark})(scores, batch, DEAR).total
    w = PROBLEM.solve(scores, batch).w
    bought, sold = account(w, batch)
    net = ((w * batch.returns).sum(-1) - 0.002 * bought - 0.003 * sold).numpy()
    if benchmark == "universe":
        net = net - np.array([batch.returns[t][batch.mask[t]].mean() for t in range(DAYS)])
    expected = -math.sqrt(242) * net.mean() / net.std(ddof=1)
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-12)


def test_weights_outside_of_their_limits_are_paid_for(batch, scores):
    """A decision that need not be feasible would otherwise be paid for leaving the box."""

    def total(penalty):
        decision = {"name": "dc3", "corrections": 0, "penalty": penalty}
        problem = PortfolioProblem(
            {"risk_aversion": 20.0, "max_weight": 0.2, "decision": decision, **STATED},
            score_scale=0.02,
        )
        loss = build_loss("net_sharpe")(scores, batch, problem).total
        return loss[0], problem.penalty(problem.solve(scores, batch).w)

    free, nothing = total(0.0)
    paid, outside = total(5.0)
    assert (nothing == 0).all() and (outside > 0).any() and paid > free


def test_net_utility_is_the_decision_value_less_the_cost(batch, scores):
    total = build_loss("net_utility")(scores, batch, DEAR).total
    w = PROBLEM.solve(scores, batch).w
    bought, sold = account(w, batch)
    expected = (PROBLEM.value(w, batch) + 0.002 * bought + 0.003 * sold) / 0.02
    torch.testing.assert_close(total, expected)


def test_without_cost_net_utility_is_the_decision_value(batch, scores):
    scores.requires_grad_()
    net = build_loss("net_utility")(scores, batch, FREE).total
    value = build_loss("decision_value")(scores, batch, PROBLEM).total
    torch.testing.assert_close(net, value)
    slopes = [torch.autograd.grad(v.sum(), scores)[0] for v in (net, value)]
    torch.testing.assert_close(*slopes)


def test_a_block_whose_returns_do_not_vary_has_a_finite_gradient(batch, scores):
    still = replace(batch, returns=torch.zeros_like(batch.returns))
    scores = (0 * scores).requires_grad_()
    total = build_loss("net_sharpe")(scores, still, FREE).total
    total.mean().backward()
    assert (total == 0).all() and torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("name", ["net_sharpe", "net_utility"])
def test_one_day_is_no_block(name):
    batch = random_panel(dtype=torch.float64).batch(torch.tensor([4]))
    with pytest.raises(ConfigError, match=r"set trainer\.batch_days to the length of a block"):
        build_loss(name)(torch.zeros(batch.mask.shape), batch, PROBLEM)


@pytest.mark.parametrize("name", ["net_sharpe", "net_utility"])
def test_costs_that_nobody_states_are_asked_for(name, batch, scores):
    problem = PortfolioProblem({"risk_aversion": 20.0, "days_per_year": 252}, score_scale=0.02)
    with pytest.raises(ConfigError, match=r"State what a trade costs.*buy: 0.0005"):
        build_loss(name)(scores, batch, problem)


def test_a_year_that_no_market_states_is_asked_for(batch, scores):
    problem = PortfolioProblem(replace(PROBLEM.config, days_per_year=None), score_scale=0.02)
    with pytest.raises(ConfigError, match=r"days_per_year: not stated.*MARKET_RULES"):
        build_loss("net_sharpe")(scores, batch, problem)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buy": 0.2}, r"loss 'net_sharpe': unknown key 'buy'"),
        ({"benchmark": "index"}, r"unknown benchmark 'index'\. Known: none, universe"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        build_loss("net_sharpe", options)
