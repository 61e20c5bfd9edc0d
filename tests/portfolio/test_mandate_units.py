"""A mandate's answer does not depend on the units of returns, risk or exposures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mandate_cases import market

from bpqp_portfolio import Mandate, Market
from bpqp_portfolio.errors import ConfigError

HOLD = {"on_failure": ["hold"]}
CONFIGS = [
    {"max_weights": 0.2},
    {"groups": 0.3, "linear_cost": {"buy": 0.0005, "sell": 0.0015}},
    {"exposures": {"limit": {"size": 0.1}, "lower": {"size": -0.1}}, "max_turnover": 0.1},
    {"max_tracking_error": 0.03, "groups": 0.3},
    {"quadratic_cost": 0.005, "tracking_penalty": 20.0},
    {"max_leverage": 1.4, "min_weights": -0.3},
    # No weights keep these.
    {"max_turnover": 0.02, "groups": {"banks": 0.1}},
    {"exposures": {"limit": {"size": -5.0}}},
    {"max_tracking_error": 1e-4, "groups": {"banks": 0.1}},
]


def in_units(config, data, objective=1.0, risk=1.0, exposure=1.0):
    """The same mandate with returns and costs, variances, and exposures in other units."""
    config = {"risk_aversion": 2.0, **HOLD, **config}
    config["risk_aversion"] *= objective / risk
    if "linear_cost" in config:
        config["linear_cost"] = {k: v * objective for k, v in config["linear_cost"].items()}
    if "quadratic_cost" in config:
        config["quadratic_cost"] *= objective
    if "tracking_penalty" in config:
        config["tracking_penalty"] *= objective / risk
    if "max_tracking_error" in config:
        config["max_tracking_error"] *= risk**0.5
    if "exposures" in config:
        config["exposures"] = {
            side: {k: v * exposure for k, v in own.items()}
            for side, own in config["exposures"].items()
        }
    data = {
        **data,
        "mu": data["mu"] * objective,
        "specific": data["specific"] * risk,
        "loadings": data["loadings"] * risk**0.5,
        "exposures": data["exposures"] * exposure,
    }
    return config, data


def named(solution):
    """The constraints named by the reasons, without their numbers."""
    kinds = (
        "turnover",
        "groups: banks",
        "exposures: size",
        "tracking_error",
        "long only",
        "budget",
    )
    return [None if r is None else [kind for kind in kinds if kind in r] for r in solution.reason]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: "-".join(c))
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    powers=st.one_of(
        st.tuples(st.floats(-8, 8), st.just(0.0), st.just(0.0)),
        st.tuples(st.just(0.0), st.floats(-8, 8), st.just(0.0)),
        st.tuples(st.just(0.0), st.just(0.0), st.floats(-8, 8)),
        st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.floats(-8, 8)),
    ),
)
def test_other_units_give_the_same_weights_and_the_same_reasons(config, seed, powers):
    data = market(T=2, seed=seed)
    found = []
    for units in ((1.0, 1.0, 1.0), tuple(10.0**p for p in powers)):
        own, values = in_units(config, data, *units)
        values["mu"] = values["mu"].requires_grad_()
        solution = Mandate.from_config(own).solve(Market(**values))
        solved = (solution.codes == 0).unsqueeze(-1)
        (slope,) = torch.autograd.grad(
            (solution.w * values["exposures"][..., 0] * solved).sum(), values["mu"]
        )
        found.append((solution, slope * units[0] / units[2]))
    (one, slope), (other, other_slope) = found
    assert one.codes.tolist() == other.codes.tolist()
    assert named(one) == named(other)
    torch.testing.assert_close(other.w, one.w, rtol=0, atol=1e-8)
    size = float(slope.abs().max())
    torch.testing.assert_close(other_slope, slope, rtol=0, atol=1e-6 * size + 1e-12)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_soft_exposure_is_relaxed_in_any_unit(unit):
    data = market(T=1)
    data["exposures"] = data["exposures"] * unit
    low = float(data["exposures"].amin())
    config = {"exposures": {"limit": {"size": 1.01 * low}}}
    ways = [{"relax": ["exposures"], "penalty": 10.0 / unit}]
    solution = Mandate.from_config({**config, "on_failure": ways}).solve(Market(**data))
    assert solution.fallback == ("relax",)
    # Everything in the name of the lowest exposure misses the least.
    assert float(solution.w[0, int(data["exposures"][0, :, 0].argmin())]) == pytest.approx(1.0)


@pytest.mark.parametrize("excess", [1e-6, 1e-3])
def test_small_exposures_are_bounded_as_large_ones_are(excess):
    data = market(T=1)
    data["exposures"] = data["exposures"] * 1e-7
    low = float(data["exposures"].amin())
    config = {"exposures": {"limit": {"size": low * (1 + excess)}}, **HOLD}
    solution = Mandate.from_config(config).solve(Market(**data))
    assert solution.codes.tolist() == [2] and "exposures: size" in solution.reason[0]


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ({}, {"specific": -1.0}),
        ({"risk_aversion": torch.tensor(-2.0)}, {}),
        ({"tracking_penalty": torch.tensor(-5.0)}, {}),
        ({"quadratic_cost": torch.tensor(-1.0)}, {}),
        ({"linear_cost": {"buy": torch.tensor(-0.01), "sell": torch.tensor(-0.01)}}, {}),
        ({"objective": "robust", "kappa": torch.tensor(-0.5)}, {}),
        ({"max_turnover": torch.tensor(-0.1)}, {}),
        ({"max_tracking_error": torch.tensor(-0.1)}, {}),
    ],
    ids=lambda one: "-".join(one),
)
def test_what_is_not_convex_is_never_solved(config, change):
    data = market(T=2)
    for name, factor in change.items():
        data[name] = data[name] * factor
    if config:
        with pytest.raises(ConfigError, match="must be"):
            Mandate.from_config({**HOLD, **config})
        return
    solution = Mandate.from_config(HOLD).solve(Market(**data))
    assert (solution.codes != 0).all()
    assert solution.fallback == ("hold", "hold")
