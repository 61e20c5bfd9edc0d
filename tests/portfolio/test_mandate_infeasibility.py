"""Days near the border of feasibility: judged rightly, with the remedy named, solved by cones."""

from __future__ import annotations

import re

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mandate_cases import best, market

from bpqp_portfolio.portfolio.mandate import multipliers
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market

HOLD = {"risk_aversion": 5.0, "on_failure": ["hold"]}


def solve(config, data):
    return Mandate.from_config({**HOLD, **config}).solve(Market(**data))


def least_turnover(data, cap):
    """Of the first day: what the banks have over ``cap`` is sold, and bought elsewhere."""
    return float((data["previous"][0] * (data["groups"][0] == 0)).sum()) - cap


def least_tracking(data, cap):
    """Of the first day, a year, by cvxpy."""
    n = data["mu"].shape[1]
    w = cp.Variable(n)
    half = np.hstack([data["loadings"][0], np.diag(data["specific"][0].sqrt())])
    banks = (data["groups"][0] == 0).numpy()
    rows = [w >= 0, cp.sum(w) == 1, cp.sum(w[banks]) <= cap]
    problem = cp.Problem(cp.Minimize(cp.norm(half.T @ (w - data["benchmark"][0].numpy()))), rows)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    return float(problem.value) * 252**0.5


LEAST = {"max_turnover": least_turnover, "max_tracking_error": least_tracking}


@pytest.mark.parametrize("name", sorted(LEAST))
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), exponent=st.integers(-5, -1), sign=st.sampled_from([-1, 1]))
def test_no_day_is_misjudged_near_the_border(name, seed, exponent, sign):
    data = market(T=1, seed=seed)
    least = LEAST[name](data, 0.1)
    limit = least * (1 + sign * 10.0**exponent)
    s = solve({name: limit, "groups": {"banks": 0.1}}, data)
    assert int(s.codes[0]) == (0 if sign > 0 else 2)
    if sign > 0:
        assert s.fallback == (None,)
        # A bound less is no worse.
        (value,) = best({**HOLD, name: limit, "groups": 1.0}, data)
        assert float(s.objective[0]) >= value - 1e-10
        assert float((s.w[0] * (data["groups"][0] == 0)).sum()) <= 0.1 + 1e-9
    else:
        assert s.reason[0].startswith(f"{name} ") and "groups: banks <= 0.1" in s.reason[0]
        told = float(re.search(r"the least that meets all else is ([0-9.e-]+)", s.reason[0])[1])
        assert least * (1 - 1e-8) <= told <= least * (1 + 2e-3)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.2]), st.sampled_from([0.06, 0.2]))
def test_the_remedy_that_is_named_would_do(seed, turnover, tracking):
    data = market(T=1, seed=seed)
    config = {"max_turnover": turnover, "max_tracking_error": tracking, "groups": {"banks": 0.05}}
    s = solve(config, data)
    assert int(s.codes[0]) == 2
    words = s.reason[0]
    name = words.split()[0]
    told = re.search(r"the least that (meets all else|does) is ([0-9.e-]+)", words)
    if told[1] == "meets all else":
        assert int(solve({**config, name: float(told[2])}, data).codes[0]) == 0


def test_only_what_is_needed_for_the_conflict_is_named():
    data = market(T=1)
    config = {
        "max_turnover": 0.02,
        "groups": {"banks": 0.1, "food": 0.9},
        "max_weights": 0.9,
        "max_tracking_error": 0.9,
        "exposures": {"limit": {"size": 40.0}},
    }
    reason = solve(config, data).reason[0]
    least = least_turnover(data, 0.1)
    told = re.fullmatch(
        r"max_turnover 0.02 cannot meet groups: banks <= 0.1 "
        r"\(the least that meets all else is ([0-9.]+)\)",
        reason,
    )
    assert least <= float(told[1]) <= least * 1.001


def test_each_of_the_named_is_needed():
    data = market(T=1)
    config = {"max_weights": 0.12, "groups": 0.2, "max_turnover": 0.9}
    assert best({**HOLD, **config}, data) == [None]
    reason = solve(config, data).reason[0]
    assert "groups" in reason and "budget" in reason and "max_turnover" not in reason
    rest = {k: v for k, v in config.items() if k != "groups"}
    assert int(solve(rest, data).codes[0]) == 0


def test_a_lower_limit_names_the_most_that_can_be_met():
    data = market(T=1)
    s = solve({"groups": {"lower": {"chips": 0.8}}, "max_weights": 0.2}, data)
    assert s.reason[0].startswith("groups: chips >= 0.8 cannot meet max_weights")
    assert "(the most that meets all else is 0.6)" in s.reason[0]


def test_names_that_cannot_trade_are_no_fault_of_the_bounds():
    data = market(T=1)
    data["pinned"] = data["groups"] == 0
    s = solve({"groups": {"banks": 0.1}}, data)
    assert s.reason[0].startswith("groups: banks <= 0.1 cannot meet names that cannot trade")
    data["pinned"], data["no_sell"] = None, data["groups"] == 0
    s = solve({"groups": {"banks": 0.1}}, data)
    assert s.reason[0].startswith("groups: banks <= 0.1 cannot meet names that cannot trade")
    held = float((data["previous"][0] * (data["groups"][0] == 0)).sum())
    told = float(re.search(r"all else is ([0-9.]+)", s.reason[0])[1])
    assert told == pytest.approx(held, rel=1e-3) and told >= held


def test_unknown_holdings_are_bad_data():
    data = market(T=2)
    data["previous"][1, 3] = torch.nan
    mandate = Mandate.from_config({"max_turnover": 0.2, "on_failure": ["equal_weights"]})
    s = mandate.solve(Market(**data))
    assert s.codes.tolist() == [0, 5] and "bad data in previous" in s.reason[1]


CONES = {
    "turnover": {"max_turnover": 0.11},
    "tracking": {"max_tracking_error": 0.031, "max_turnover": 0.3, "groups": 0.4},
    "robust": {"objective": "robust", "kappa": 0.1, "max_tracking_error": 0.05},
    "short": {
        "market_neutral": True,
        "min_weights": -0.2,
        "max_leverage": 1.2,
        "max_turnover": 0.55,
        "linear_cost": {"buy": 0.0005, "sell": 0.0015},
    },
    "costs": {"max_turnover": 0.1, "quadratic_cost": 0.01, "tracking_penalty": 20.0},
}


@pytest.mark.parametrize("name", sorted(CONES))
def test_the_conic_fallback_has_the_same_weights_duals_and_gradients(name, monkeypatch):
    data = market(seed=5)
    mandate = Mandate.from_config({**HOLD, **CONES[name], "tolerance": 1e-12})
    fields = ("mu", "loadings", "specific", "previous", "benchmark")

    def both():
        leaves = {k: data[k].clone().requires_grad_() for k in fields}
        s = mandate.solve(Market(**{**data, **leaves}))
        loss = (s.w * torch.linspace(-1, 1, 12, dtype=torch.float64)).sum() + (s.w**2).sum()
        return s, torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)

    first, gradients = both()
    assert set(first.solver) == {"structured"}
    # No multiplier is within reach.
    monkeypatch.setattr(multipliers, "_WIDEST", 1e-9)
    second, others = both()
    assert set(second.solver) == {"cones"} and (second.codes == 0).all()
    assert second.counts == {}
    assert torch.allclose(second.w, first.w, atol=1e-7)
    assert torch.allclose(second.dual[:, 3:], first.dual[:, 3:], rtol=1e-5, atol=1e-8)
    for one, other in zip(gradients, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max() + 1))


def test_a_failed_day_leaves_the_gradients_of_the_others():
    data = market(T=3, seed=5)
    config = {"max_turnover": 0.2, "groups": {"banks": 0.5}}
    # On the second day all of the money is with the banks.
    data["previous"][1] = 0.0
    data["previous"][1, 0] = 1.0
    mu = data["mu"].clone().requires_grad_()
    s = Mandate.from_config({**HOLD, **config}).solve(Market(**{**data, "mu": mu}))
    assert s.fallback == (None, "hold", None)
    (found,) = torch.autograd.grad((s.w**2).sum(), mu)
    assert found.isfinite().all() and (found[1] == 0).all() and (found[[0, 2]] != 0).any(-1).all()
