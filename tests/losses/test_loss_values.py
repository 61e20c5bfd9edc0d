"""Values of the losses by hand: two names of equal variance, whose problem has a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from panels import days_by_hand

from bpqp_portfolio.data.features.panel import DayBatch
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.losses.account import trades
from bpqp_portfolio.losses.registry import LOSSES
from bpqp_portfolio.losses.terms import DecisionLoss
from bpqp_portfolio.portfolio import PortfolioProblem

# With a variance of .05 a name γd is 1: without expected returns, half and half.
COSTS = {"buy": 0.01, "sell": 0.03, "minimum": 0.0}
PROBLEM = PortfolioProblem(
    {"risk_aversion": 20.0, "max_weight": 1.0, "costs": COSTS, "days_per_year": 256},
    score_scale=0.02,
)
DECISIONS = sorted(name for name, loss in LOSSES.items() if issubclass(loss, DecisionLoss))
SOLVING = sorted(name for name, loss in LOSSES.items() if hasattr(loss, "learns"))


def two_names(*returns: tuple[float, float]) -> DayBatch:
    """Consecutive days of two uncorrelated names."""
    return days_by_hand(returns)


def loss(name, batch, **options):
    return build_loss(name, options)(torch.zeros_like(batch.returns), batch, PROBLEM)


# Half and half of returns (.1, 0): f = −.05 + ½·.5 = .2. Foresight holds (.55, .45):
# f = −.055 + ½(.3025 + .2025) = .1975. The regret is .0025 a day, or .125 in units of .02.
MOVED = two_names((0.1, 0.0), (0.1, 0.0))


@pytest.mark.parametrize("name", SOLVING)
def test_the_decision_is_reported_in_units_of_the_score(name):
    decision = loss(name, MOVED).decision
    torch.testing.assert_close(decision, torch.full((2,), 0.125).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("regret", {}, 0.125),
        ("squared_regret", {}, 0.1 * 0.125**2),  # β = .1 (arXiv:2411.19285)
        ("decision_value", {}, 0.2 / 0.02),
        # −r + (γ/2) r² of r = .05.
        ("decision_value", {"risk": "realised"}, (-0.05 + 10 * 0.05**2) / 0.02),
    ],
)
def test_losses_of_a_day(name, options, expected):
    total = loss(name, MOVED, **options).total
    torch.testing.assert_close(total, torch.full((2,), expected).double(), rtol=0, atol=1e-6)


def test_a_second_day_pays_for_going_back_to_half_and_half():
    """Grown weights .55/1.05 and .5/1.05: 1/42 of the account is sold, and as much bought."""
    total = loss("net_utility", MOVED).total
    expected = torch.tensor([10.0, 10.0 + 0.04 / 42 / 0.02], dtype=torch.float64)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


def test_what_is_sold_and_not_reinvested_is_not_bought():
    w = torch.tensor([[0.5, 0.5], [0.5, 0.3]], dtype=torch.float64)
    bought, sold = trades(w, two_names((0.0, 0.0), (0.0, 0.0)))
    torch.testing.assert_close(bought, torch.zeros(2).double(), rtol=0, atol=1e-15)
    torch.testing.assert_close(
        sold, torch.tensor([0.0, 0.2], dtype=torch.float64), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize(
    ("returns", "deviation"),
    [
        ((0.0011, 0.0009), math.sqrt(2) * 1e-4),
        ((0.001, 0.001), 1e-6),  # the least deviation
    ],
)
def test_the_sharpe_ratio_of_two_days(returns, deviation):
    """Of 256 days a year: minus 16 times the mean over the deviation, whose divisor is T − 1."""
    batch = two_names(*((r, r) for r in returns))
    total = loss("net_sharpe", batch).total
    torch.testing.assert_close(total, torch.full((2,), -16 * 0.001 / deviation).double())


@pytest.mark.parametrize("name", DECISIONS)
def test_the_weight_of_the_prediction_is_checked_and_counts(name):
    with pytest.raises(ConfigError, match="prediction_weight"):
        build_loss(name, {"prediction_weight": -0.1})
    scores = torch.tensor([[0.3, -0.3], [0.3, -0.3]], dtype=torch.float64)
    plain = build_loss(name)(scores, MOVED, PROBLEM)
    added = build_loss(name, {"prediction_weight": 2.0})(scores, MOVED, PROBLEM)
    torch.testing.assert_close(added.total - plain.total, torch.full((2,), 0.18).double())


@pytest.mark.parametrize("sweeps", [0, 1.5])
@pytest.mark.parametrize("name", ["net_sharpe", "net_utility"])
def test_sweeps_are_checked(name, sweeps):
    with pytest.raises(ConfigError, match="sweeps"):
        build_loss(name, {"sweeps": sweeps})


def test_the_usual_huber_loss_turns_at_one_deviation():
    """Errors of .5 and 3: ½·.25 and 3 − ½, their mean."""
    scores = torch.tensor([[0.5, -3.0]], dtype=torch.float64)
    total = build_loss("huber")(scores, two_names((0.0, 0.0)), PROBLEM).total
    torch.testing.assert_close(total, torch.tensor([(0.125 + 2.5) / 2]).double())
