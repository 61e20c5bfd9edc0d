"""Fallbacks of a failed day: each is taken in order, named and counted, and spoils no other day."""

from __future__ import annotations

import pytest
import torch
from mandate_cases import market

from bpqp_portfolio.errors import SolverError
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market

# Half of the money is with the banks, so a small turnover cannot meet this.
CONFLICT = {"max_turnover": 0.02, "groups": {"banks": 0.1}}


def test_raise_is_the_default():
    with pytest.raises(SolverError, match="on_failure"):
        Mandate.from_config(CONFLICT).solve(Market(**market()))


def test_hold_and_equal_weights():
    data = market()
    s = Mandate.from_config({**CONFLICT, "on_failure": ["hold"]}).solve(Market(**data))
    assert torch.equal(s.w, data["previous"]) and s.counts == {"hold": 3}
    assert all("groups: banks <= 0.1" in reason for reason in s.reason)
    s = Mandate.from_config({**CONFLICT, "on_failure": ["equal_weights"]}).solve(Market(**data))
    assert torch.allclose(s.w, torch.full_like(s.w, 1 / 12)) and s.counts == {"equal_weights": 3}


def test_relaxing_one_side_keeps_the_other():
    data = market()
    banks = data["groups"] == 0
    for soft in ("groups", "max_turnover"):
        ways = [{"relax": [soft], "penalty": 10.0}, "hold"]
        s = Mandate.from_config({**CONFLICT, "on_failure": ways}).solve(Market(**data))
        assert s.counts == {"relax": 3}
        turnover = 0.5 * (s.w - data["previous"]).abs().sum(-1)
        inside = (s.w * banks).sum(-1)
        held = (data["previous"] * banks).sum(-1)
        if soft == "groups":
            assert (turnover <= 0.02 + 1e-9).all()
            # As far towards the group's bound as the turnover allows.
            assert torch.allclose(inside, held - 0.02, atol=1e-6)
        else:
            assert (inside <= 0.1 + 1e-9).all()
            assert torch.allclose(turnover, held - 0.1, atol=1e-6)


def test_ways_are_tried_in_order():
    data = market()
    data.update(previous=None)
    config = {"max_weights": 0.05, "on_failure": ["hold", "equal_weights"]}
    s = Mandate.from_config(config).solve(Market(**data))
    assert s.counts == {"equal_weights": 3}
    assert "max_weights" in s.reason[0] and "budget" in s.reason[0]


def test_a_thousand_days_with_five_percent_bad_ones_are_all_accounted_for():
    T, n = 1000, 12
    data = market(T=T, n=n, seed=4)
    config = {
        "risk_aversion": 5.0,
        "max_weights": 0.3,
        "max_turnover": 0.1,
        "on_failure": ["hold", "equal_weights"],
    }
    days = torch.randperm(T, generator=torch.Generator().manual_seed(0))[:50]
    nan, infeasible, scaled, suspended = days.split([10, 15, 10, 15])
    data["mu"][nan, 3] = torch.nan
    data["previous"][infeasible] = 0.0
    data["previous"][infeasible, 0] = 1.0
    data["loadings"][scaled] *= 1e4
    data["specific"][scaled] *= 1e-12
    data["pinned"] = torch.zeros(T, n, dtype=torch.bool)
    data["pinned"][suspended] = True
    mandate = Mandate.from_config(config)
    s = mandate.solve(Market(**data))
    assert s.w.isfinite().all()
    for day in (*nan.tolist(), *infeasible.tolist()):
        assert s.fallback[day] == "hold" and s.reason[day]
    assert all("mu" in s.reason[day] for day in nan.tolist())
    assert all("max_turnover 0.1" in s.reason[day] for day in infeasible.tolist())
    assert torch.allclose(s.w[suspended], data["previous"][suspended], atol=1e-12)
    for day in (*scaled.tolist(), *suspended.tolist()):
        assert int(s.codes[day]) <= 1 or s.reason[day]
    # What is kept without a way out keeps the limits, exact or not.
    own = torch.tensor([fallback is None for fallback in s.fallback])
    moved = 0.5 * (s.w - data["previous"]).abs().sum(-1)
    assert (moved[own] <= 0.1 + 2e-8).all() and (s.w[own] <= 0.3 + 1e-9).all()
    bad = set(days.tolist())
    good = torch.tensor([t for t in range(T) if t not in bad])
    assert (s.codes[good] == 0).all()
    assert all(s.fallback[t] is None and s.reason[t] is None for t in good.tolist())
    assert sum(s.counts.values()) == sum(reason is not None for reason in s.reason)
    alone = {k: v[good[:20]] if isinstance(v, torch.Tensor) else v for k, v in data.items()}
    assert torch.allclose(mandate.solve(Market(**alone)).w, s.w[good[:20]], atol=1e-9)
