"""Mandates by hand: four uncorrelated names of one variance, where every term has a closed form."""

from __future__ import annotations

import pytest
import torch

from bpqp_portfolio.portfolio.constraints import Exposures
from bpqp_portfolio.portfolio.mandate import Mandate, Market

# γ times the variance is 1: w minimises ½‖w‖² − μᵀw, which is w = μ + ν inside of all limits.
# With these returns that is (.4, .3, .2, .1).
MU = (0.15, 0.05, -0.05, -0.15)
EVEN, UNEVEN = (0.25,) * 4, (0.3, 0.2, 0.3, 0.2)


def row(values):
    return torch.tensor([values], dtype=torch.float64)


def market(mu=MU, previous=EVEN, benchmark=EVEN, **more):
    return Market(
        mu=row(mu),
        loadings=torch.zeros(1, 4, 1, dtype=torch.float64),
        specific=row((0.05,) * 4),
        mask=torch.ones(1, 4, dtype=torch.bool),
        names=["A", "B", "C", "D"],
        previous=None if previous is None else row(previous),
        benchmark=row(benchmark),
        groups=torch.tensor([[0, 0, 1, 1]]),
        group_names=["high", "low"],
        exposures=torch.tensor([[[1, 0], [1, 0], [0, -1], [0, -1]]], dtype=torch.float64),
        exposure_names=["first", "last"],
        **more,
    )


def solve(config, **given):
    return Mandate.from_config({"risk_aversion": 20.0, **config}).solve(market(**given))


def close(found, expected, atol=1e-7):
    torch.testing.assert_close(found, row(expected), rtol=0, atol=atol)


# Of .7 that "high" would have, .6: (.15 + .05 + 2ν) = .6, and (−.05 − .15 + 2ν) = .4 in "low".
SPLIT = (0.35, 0.25, 0.25, 0.15)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (0.4, 0.3, 0.2, 0.1)),
        # A at its limit; 3ν = 1 − .35 + .15 for the rest.
        ({"max_weights": 0.35}, (0.35, 0.95 / 3, 0.65 / 3, 0.35 / 3)),
        ({"max_weights": {"A": 0.35}}, (0.35, 0.95 / 3, 0.65 / 3, 0.35 / 3)),
        # A and B at theirs; 2ν = .4 + .2.
        ({"max_weights": {"B": 0.25, "default": 0.35}}, (0.35, 0.25, 0.25, 0.15)),
        # D at its limit; 3ν = 1 − .15 − .15.
        ({"min_weights": 0.15}, (1.15 / 3, 0.85 / 3, 0.55 / 3, 0.15)),
        ({"min_weights": {"D": 0.15}}, (1.15 / 3, 0.85 / 3, 0.55 / 3, 0.15)),
        ({"active_weights": 0.1}, (0.35, 0.3, 0.2, 0.15)),
        ({"active_weights": {"A": 0.1}}, (0.35, 0.95 / 3, 0.65 / 3, 0.35 / 3)),
        ({"budget": 0.8}, (0.35, 0.25, 0.15, 0.05)),
        ({"market_neutral": True, "min_weights": -1.0}, MU),
        ({"market_neutral": True, "long_only": False}, MU),
        ({"groups": 0.6}, SPLIT),
        ({"groups": {"high": 0.6}}, SPLIT),
        ({"groups": {"lower": {"low": 0.4}}}, SPLIT),
        ({"groups": {"lower": 0.4}}, SPLIT),
        ({"groups": {"limit": 0.1, "relative": True}}, SPLIT),
        ({"groups": {"lower": {"low": -0.1}, "relative": True}}, SPLIT),
        ({"groups": {"limit": 0.8}}, (0.4, 0.3, 0.2, 0.1)),
        ({"exposures": {"limit": {"first": 0.6}}}, SPLIT),
        ({"exposures": {"limit": {"last": -0.4}}}, SPLIT),
        ({"exposures": {"lower": {"last": -0.3}}}, (0.4, 0.3, 0.2, 0.1)),
        ({"exposures": {"limit": {"first": 0.1}, "relative": True}}, SPLIT),
        ({"exposures": {"limit": {"last": 0.1}, "relative": True}}, SPLIT),
        # A lower limit of "first" beyond the .7 it has: .8, then 2ν = .6 and 2ν = .4.
        ({"exposures": {"lower": {"first": 0.8}}}, (0.45, 0.35, 0.15, 0.05)),
        ({"exposures": {"lower": {"first": 0.3}, "relative": True}}, (0.45, 0.35, 0.15, 0.05)),
        ({"exposures": {"limit": 0.6}}, SPLIT),
        # All trades are .05 smaller.
        ({"max_turnover": 0.1}, (0.35, 0.25, 0.25, 0.15)),
        ({"max_turnover": 0.3}, (0.4, 0.3, 0.2, 0.1)),
        ({"linear_cost": {"buy": 0.05, "sell": 0.05}}, (0.35, 0.25, 0.25, 0.15)),
        ({"linear_cost": {"buy": 0.1, "sell": 0.0}}, (0.35, 0.25, 0.25, 0.15)),
        ({"linear_cost": {"buy": 0.0, "sell": 0.1}}, (0.35, 0.25, 0.25, 0.15)),
        # ½‖w‖² + ½‖w − ¼‖² − μᵀw: half of the way.
        ({"quadratic_cost": 0.5}, (0.325, 0.275, 0.225, 0.175)),
        # Of A alone: 2 w_A = .4 + ν and μ + ν for the rest, 3.5 ν = .95.
        (
            {"quadratic_cost": {"A": 0.5}},
            (0.2 + 0.95 / 7, 0.05 + 0.95 / 3.5, -0.05 + 0.95 / 3.5, -0.15 + 0.95 / 3.5),
        ),
        ({"tracking_penalty": 20.0}, (0.325, 0.275, 0.225, 0.175)),
        # The free deviation μ has the norm √.05, a risk of √.05² = .05 a day: twice the limit.
        (
            {"max_tracking_error": {"limit": 16 * 0.025, "days_per_year": 256}},
            (0.325, 0.275, 0.225, 0.175),
        ),
        ({"objective": "maximum_utility"}, (0.325, 0.275, 0.225, 0.175)),
        ({"objective": "minimum_variance"}, EVEN),
    ],
)
def test_each_term_in_closed_form(config, expected):
    close(solve(config).w, expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # 1/2 is in "high" and in "low" of the benchmark too, but not evenly.
        ({"groups": {"limit": 0.1, "relative": True}}, SPLIT),
        ({"active_weights": 0.05}, (0.35, 0.25, 0.25, 0.15)),
        # ½‖w‖² + ½‖w − w_b‖² − μᵀw: (μ + w_b + ν)/2 with ν = 1/4.
        ({"tracking_penalty": 20.0}, (0.35, 0.25, 0.25, 0.15)),
    ],
)
def test_the_benchmark_is_each_names_own(config, expected):
    close(solve(config, benchmark=UNEVEN).w, expected)


def test_a_price_of_leverage_takes_from_both_sides():
    """Free: (1, .5, 0, −.5), which is 2 in all. Of 1.5, a quarter is short; A and B fall alike."""
    config = {"max_leverage": 1.5, "long_only": False}
    close(solve(config, mu=(0.75, 0.25, -0.25, -0.75)).w, (0.875, 0.375, 0.0, -0.25))


@pytest.mark.parametrize("cost", [{"buy": 0.04, "sell": 0.01}, {"buy": 0.01, "sell": 0.04}])
def test_what_is_bought_and_what_is_sold_have_their_own_price(cost):
    """From .2 each and cash of .2: μ ± .025 + ν, where C is held.

    A, B, D: .15 + .05 − .15 − .025 + 3ν = .8 with ν as the price of a purchase is counted in it.
    """
    s = solve({"linear_cost": cost}, previous=(0.2,) * 4)
    nu = 0.775 / 3
    w = (0.125 + nu, 0.025 + nu, 0.2, -0.125 + nu)
    close(s.w, w)
    bought, sold = w[0] + w[1] - 0.4, 0.2 - w[3]
    free = sum(0.5 * x * x - m * x for x, m in zip(w, MU, strict=True))
    assert float(s.objective[0]) == pytest.approx(
        free + cost["buy"] * bought + cost["sell"] * sold, abs=1e-9
    )


@pytest.mark.parametrize(
    "config",
    [
        {"max_turnover": 0.01},
        {"linear_cost": {"buy": 0.1, "sell": 0.1}},
        {"quadratic_cost": 0.5},
    ],
)
def test_without_an_account_trading_is_free(config):
    close(solve(config, previous=None).w, (0.4, 0.3, 0.2, 0.1))


@pytest.mark.parametrize("config", [{"linear_cost": {}}, {"costs": {"minimum": 5.0}}])
def test_usual_costs_are_5_and_15_basis_points(config):
    """A earns .0015 and D −.0015; to move from D to A costs .002, which leaves .0005 for each."""
    s = solve(config, mu=tuple(m / 100 for m in MU))
    close(s.w, (0.2505, 0.25, 0.25, 0.2495), atol=1e-8)
    assert float(s.objective[0]) == pytest.approx(
        0.5 * (0.2505**2 + 2 * 0.25**2 + 0.2495**2) - 0.0015 * 0.001 + 0.002 * 0.0005, abs=1e-10
    )


@pytest.mark.parametrize(
    ("limit", "lower", "named", "every"),
    [
        ({"size": 0.1}, {"beta": -0.1, "size": 0.0}, ("size", "beta"), False),
        ({"size": 0.1}, None, ("size",), False),
        (None, {"size": 0.1}, ("size",), False),
        (0.1, None, (), True),
        (None, -0.1, (), True),
        ({"size": 0.1}, -0.1, ("size",), True),
    ],
)
def test_which_exposures_are_asked_for(limit, lower, named, every):
    exposures = Exposures(limit, lower)
    assert exposures.named == named and exposures.every is every
