"""Mandates by hand: four uncorrelated names of one variance, where every term has a closed form."""

from __future__ import annotations

import pytest
import torch

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market
from bpqp_portfolio.portfolio.mandate.terms import Exposures

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


def flags(*places):
    return torch.tensor([[name in places for name in "ABCD"]])


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


@pytest.mark.parametrize(
    "config",
    [
        {"linear_cost": {"buy": 0.0005, "sell": 0.0015}},
        {"costs": {"buy": 0.0005, "sell": 0.0015, "minimum": 5.0}},
    ],
)
def test_costs_of_5_and_15_basis_points(config):
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
    assert exposures.exposures_named == named and exposures.exposures_all is every


# (μ/2 + ¼), as in the closed forms above: ‖w‖² = .2625 and μᵀw = .025.
HALF = (0.325, 0.275, 0.225, 0.175)


@pytest.mark.parametrize(
    ("config", "expected", "value"),
    [
        ({}, (0.4, 0.3, 0.2, 0.1), -0.05 + 0.15),
        ({"objective": "maximum_utility"}, HALF, -0.025 + 0.2625),
        ({"objective": "minimum_variance"}, EVEN, 0.5 * 0.05 * 0.25),
        # A risk of √(.05 · .2625); κ times its slope is w itself, so that 2w = μ + ν.
        ({"objective": "robust", "kappa": 5.25**0.5}, HALF, -0.025 + 0.13125 + 0.2625),
        ({"quadratic_cost": 0.5}, HALF, -0.025 + 0.13125 + 0.5 * 0.0125),
        ({"tracking_penalty": 20.0}, HALF, -0.025 + 0.13125 + 0.5 * 0.0125),
        ({"risk_aversion": 40.0}, HALF, -0.025 + 0.2625),
    ],
)
def test_what_is_minimised(config, expected, value):
    s = solve(config)
    close(s.w, expected)
    assert float(s.objective[0]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("config", "limit", "dual"),
    [
        # ν is .2 in "high" and .3 in "low".
        ({"groups": {"high": 0.6}}, 0.6, 0.1),
        ({"exposures": {"limit": {"first": 0.6}}}, 0.6, 0.1),
        # A unit of turnover buys one and sells one, and each trade would gain .05.
        ({"max_turnover": 0.1}, 0.1, 0.1),
        # Of the part s of μ the value is .05 (s²/2 − s), and the limit .8 s, at s = ½.
        ({"max_tracking_error": {"limit": 0.4, "days_per_year": 256}}, 0.4, 0.025 / 0.8),
    ],
)
def test_what_one_more_unit_of_a_limit_is_worth(config, limit, dual):
    mandate = Mandate.from_config({"risk_aversion": 20.0, **config})
    rows = mandate.explain(mandate.solve(market()), 0)
    ((_, value, at, slack, price),) = [r for r in rows if not r[0].startswith("budget")]
    assert (value, at, slack) == pytest.approx((limit, limit, 0.0), abs=1e-7)
    assert price == pytest.approx(dual, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        # What cannot be sold stays above the cap: 3ν = .6 + .15 for the rest.
        (
            {"max_weights": 0.35},
            {"no_sell": flags("A"), "previous": (0.4, 0.2, 0.2, 0.2)},
            (0.4, 0.3, 0.2, 0.1),
        ),
        (
            {"max_weights": 0.3},
            {"no_sell": flags("A"), "previous": (0.45, 0.2, 0.2, 0.15)},
            (0.45, 0.85 / 3, 0.55 / 3, 0.25 / 3),
        ),
        # What cannot be bought stays below the floor: 3ν = .95 − .15.
        (
            {"min_weights": 0.15},
            {"no_buy": flags("D"), "previous": (0.35, 0.3, 0.3, 0.05)},
            (1.25 / 3, 0.95 / 3, 0.65 / 3, 0.05),
        ),
        # What can still be sold is, and what can still be bought.
        ({}, {"no_buy": flags("D")}, (0.4, 0.3, 0.2, 0.1)),
        ({}, {"no_sell": flags("A")}, (0.4, 0.3, 0.2, 0.1)),
        # Pinned: 3ν = 1 − .25 − .15 for A to C, and + .15 for B to D.
        ({}, {"pinned": flags("D")}, (0.35, 0.25, 0.15, 0.25)),
        # With A, .65 of .9 are left: B at its cap of .3, and 2ν = .35 + .2 for C and D.
        (
            {"max_weights": 0.3, "budget": 0.9},
            {"pinned": flags("A")},
            (0.25, 0.3, 0.225, 0.125),
        ),
    ],
)
def test_what_the_market_forbids_comes_first(config, given, expected):
    close(solve(config, **given).w, expected)


def test_names_outside_of_the_market_hold_nothing():
    mask = ~flags("D")
    given = {**vars(market()), "mask": mask, "mu": row((*MU[:3], float("nan")))}
    s = Mandate.from_config({"risk_aversion": 20.0}).solve(Market(**given))
    # 3ν = 1 − .15.
    close(s.w, (1.3 / 3, 1.0 / 3, 0.7 / 3, 0.0))


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("hold", (0.3, 0.2, 0.2, 0.3)),
        ("equal_weights", EVEN),
        # As little turnover as "high" at .3 needs: .2 of it is sold, and "low" gets .7.
        ({"relax": ["max_turnover"], "penalty": 2.0}, (0.2, 0.1, 0.4, 0.3)),
    ],
)
def test_ways_out_of_a_conflict(way, expected):
    config = {"max_turnover": 0.01, "groups": {"high": 0.3}, "on_failure": [way]}
    s = solve(config, previous=(0.3, 0.2, 0.2, 0.3))
    close(s.w, expected, atol=1e-6)
    assert "max_turnover 0.01 cannot meet" in s.reason[0]


def test_what_orders_of_a_mandate_cost_is_stated():
    found = Mandate.from_config({"costs": {"buy": 0.001, "sell": 0.002, "minimum": 3.0}}).costs
    assert (found.buy, found.sell, found.minimum) == (0.001, 0.002, 3.0)
    for config in ({"linear_cost": {"buy": 0.001, "sell": 0.002}}, {"quadratic_cost": 0.1}, {}):
        with pytest.raises(
            ConfigError, match=r"mandate\.costs: missing\. State what a trade costs"
        ):
            _ = Mandate.from_config(config).costs
    for config in ({"linear_cost": {}}, {"costs": {"sell": 0.002}}):
        with pytest.raises(ConfigError, match=r"missing.*'buy'"):
            Mandate.from_config(config)
