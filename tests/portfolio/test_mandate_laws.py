"""Laws that every registered constraint and cost keeps: what is registered is tested."""

from __future__ import annotations

import itertools

import pytest
import torch
from mandate_cases import EXAMPLES, market

from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market
from bpqp_portfolio.portfolio.mandate.parts import Sense

SHORT = {"min_weights": -0.3}
# Configurations of each term from tight to loose, or from dear to cheap. The last is so loose that
# it is as if the term were not there, beside what the first shares with it.
LOOSER = {
    "min_weights": [{"min_weights": low} for low in (0.03, 0.01, 0.0)],
    "long_only": [{"long_only": True, "max_leverage": 1.5}, {"long_only": False, **SHORT}],
    "max_weights": [{"max_weights": u} for u in (0.1, 0.15, 0.3, 1.0)],
    "active_weights": [{"active_weights": a} for a in (0.03, 0.1, 1.0)],
    "groups": [{"groups": u} for u in (0.26, 0.35, 0.5, 1.0)],
    "exposures": [
        {"exposures": {"limit": {"size": u}, "lower": {"size": -u}}} for u in (0.05, 0.2, 50.0)
    ],
    "max_turnover": [{"max_turnover": t} for t in (0.0, 0.1, 0.3, 1.0)],
    "max_leverage": [{"max_leverage": x, **SHORT} for x in (1.0, 1.2, 1.6, 9.0)],
    "max_tracking_error": [{"max_tracking_error": e} for e in (0.01, 0.03, 0.06, 9.0)],
    "linear_cost": [{"linear_cost": {"buy": c, "sell": 3 * c}} for c in (0.05, 0.0005, 0.0)],
    "quadratic_cost": [{"quadratic_cost": k} for k in (0.1, 0.005, 0.0)],
    "max_participation": [{"max_participation": t} for t in (0.0, 0.05, 0.1, 9.0)],
    "exposure_target": [
        {"exposure_target": {"targets": {"size": 0.3}, "strength": k}} for k in (1.0, 0.01, 0.0)
    ],
    "tracking_penalty": [{"tracking_penalty": k} for k in (100.0, 20.0, 0.0)],
}
PLAIN = {"max_leverage": SHORT}


def solve(config, data):
    return Mandate.from_config({"risk_aversion": 5.0, **config}).solve(Market(**data))


@pytest.mark.parametrize("name", sorted(LOOSER))
def test_what_is_looser_or_cheaper_is_never_worse(name):
    data = market(seed=8)
    values = [solve(config, data).objective for config in LOOSER[name]]
    for tight, loose in itertools.pairwise(values):
        assert (loose <= tight + 1e-12).all()
    assert (values[-1] < values[0] - 1e-9).all()


@pytest.mark.parametrize("name", sorted(set(LOOSER) - {"long_only"}))
def test_an_inactive_term_changes_nothing(name):
    data, last = market(seed=8), LOOSER[name][-1]
    rest = PLAIN.get(name, {})
    for more in ({}, {"max_turnover": 0.25} if name != "max_turnover" else {"groups": 0.4}):
        with_it = solve({**last, **more}, data)
        without = solve({**rest, **more}, data)
        assert torch.allclose(with_it.w, without.w, atol=1e-9)
        for one, dual in zip(with_it.constraints, with_it.dual.T, strict=True):
            if one.term == name and "weights" not in name:
                assert (dual == 0).all()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_permuting_names_permutes_weights(name):
    data = market(seed=8)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    other = {
        k: v[:, order] if isinstance(v, torch.Tensor) and v.ndim > 1 else v for k, v in data.items()
    }
    there = solve(EXAMPLES[name], other)
    here = solve(EXAMPLES[name], data)
    assert torch.allclose(there.w, here.w[:, order], atol=1e-9)
    assert torch.allclose(there.dual, here.dual, atol=1e-9)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_limits_hold_to_1e_9(name):
    data = market(seed=8)
    s = solve(EXAMPLES[name], data)
    for i, one in enumerate(s.constraints):
        over = s.value[:, i] - s.limit[:, i]
        over = {Sense.EQUAL: over.abs(), Sense.LOWER: -over, Sense.UPPER: over}[one.sense]
        assert (over <= 1e-9).all(), one.label


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_days_are_solved_alike_alone_and_together(name):
    data = market(seed=8)
    together = solve(EXAMPLES[name], data).w
    for day in range(3):
        own = {k: v[day : day + 1] if isinstance(v, torch.Tensor) else v for k, v in data.items()}
        assert torch.allclose(solve(EXAMPLES[name], own).w[0], together[day], atol=1e-10)
