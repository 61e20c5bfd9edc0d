"""Numbers that are not finite or out of range: their day says so, and the others are as they were.

And labels are for people: no number depends on what a group or an exposure is called.
"""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mandate_cases import EXAMPLES, market

from bpqp_portfolio.errors import ConfigError, ProblemError, SolverError
from bpqp_portfolio.portfolio import (
    Budget,
    Exposures,
    ExposureTarget,
    Groups,
    LinearCost,
    MaxLeverage,
    MaxParticipation,
    MaxTrackingError,
    MaxTurnover,
    MaxWeights,
    MinWeights,
    QuadraticCost,
    TrackingPenalty,
)
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market
from bpqp_portfolio.problems.solution import SolveStatus

NAN, INF = float("nan"), float("inf")
# What each field enters through; the first three enter every mandate.
FIELDS = {
    "mu": {},
    "loadings": {},
    "specific": {},
    "previous": {"max_turnover": 0.1},
    "benchmark": {"max_tracking_error": 0.03},
    "exposures": EXAMPLES["exposures"],
    "groups": {"groups": 0.3},
}


def days(solution):
    return [SolveStatus.from_code(code).label for code in solution.codes]


def memberships(data):
    """The codes of the case as a mapping from a name to its members."""
    codes, names = data.pop("groups"), data.pop("group_names")
    data["groups"] = {name: (codes == i).double() for i, name in enumerate(names)}
    return data


def assert_only_day_1_is_bad(mandate, data, words, good=None):
    """Day 1 of ``data`` is bad data for a reason with ``words``; the others are as without it."""
    s = mandate.solve(Market(**data))
    assert days(s) == ["solved", "bad data", "solved"], s.reason
    assert s.fallback == (None, "equal_weights", None) and s.reason[0] is s.reason[2] is None
    assert s.reason[1].startswith("bad data in ") and words in s.reason[1], s.reason[1]
    assert s.value[1].isnan().all() and s.dual[1].isnan().all() and s.objective[1].isnan()
    others = torch.tensor([0, 2])
    alone = mandate.solve(Market(**(good or data_of(data, others))))
    assert torch.allclose(s.w[others], alone.w, atol=1e-12)
    assert torch.allclose(s.objective[others], alone.objective, atol=1e-14)
    return s


def data_of(data, index):
    def of(value):
        if isinstance(value, dict):
            return {k: of(v) for k, v in value.items()}
        return value[index] if isinstance(value, torch.Tensor) else value

    return {k: of(v) for k, v in data.items()}


def test_an_exposure_that_is_not_known_is_no_limit_kept():
    one = torch.ones(1, 3, dtype=torch.float64)
    data = {
        "mu": torch.tensor([[0.01, 0.003, 0.001]], dtype=torch.float64),
        "loadings": 0.01 * one.unsqueeze(-1),
        "specific": 1e-4 * one,
        "mask": one > 0,
        "exposures": torch.tensor([[[2.0], [NAN], [0.5]]], dtype=torch.float64),
        "exposure_names": ["beta"],
    }
    mandate = Mandate(constraints=[Exposures({"beta": 0.8})])
    words = "day 0: bad data in exposures: beta <= 0.8 (nan for name 1)"
    with pytest.raises(SolverError, match=re.escape(words)):
        mandate.solve(Market(**data))
    # A name that is not in the problem needs none.
    data["mask"] = torch.tensor([[True, False, True]])
    w = mandate.solve(Market(**data)).w
    assert torch.allclose(w, torch.tensor([[0.2, 0.0, 0.8]], dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("how", ["raise", "equal_weights"])
def test_a_field_that_is_not_finite_is_its_day_s_alone(field, value, how):
    data = memberships(market())
    if field == "groups":
        data["groups"]["food"][1, 2] = value
    else:
        data[field].reshape(3, 12, -1)[1, 2, 0] = value
    words = {"groups": "groups: food <= 0.3", "exposures": "exposures: size <= 0.1"}
    words = f"{words.get(field, field)} ({value:g} for name 2)"
    if how == "raise":
        words = re.escape(f"day 1: bad data in {words}")
        with pytest.raises(SolverError, match=r"^1 of 3 .*" + words):
            Mandate.from_config(FIELDS[field]).solve(Market(**data))
        return
    data["mu"].requires_grad_()
    config = {**FIELDS[field], "risk_aversion": 200.0, "on_failure": how}
    mandate = Mandate.from_config(config)
    s = assert_only_day_1_is_bad(mandate, data, words)
    s.w.square().sum().backward()
    assert data["mu"].grad.isfinite().all() and (data["mu"].grad[1] == 0).all()
    assert (data["mu"].grad[0] != 0).any()
    # It is nothing to a mandate that does not use it, nor outside of the mask.
    if field not in ("mu", "loadings", "specific"):
        assert days(Mandate().solve(Market(**data))) == ["solved"] * 3
    data["mask"][1, 2] = False
    assert days(mandate.solve(Market(**data))) == ["solved"] * 3


@pytest.mark.parametrize("code", [7, -1])
def test_a_group_code_without_a_name_is_its_day_s_alone(code):
    data = market()
    data["groups"][1, 2] = code
    mandate = Mandate.from_config({"groups": 0.3, "on_failure": "equal_weights"})
    assert_only_day_1_is_bad(mandate, data, f"groups, a code without a name ({code} for name 2)")
    data["mask"][1, 2] = False
    assert days(mandate.solve(Market(**data))) == ["solved"] * 3


def test_codes_name_themselves_where_no_one_names_them():
    data = market()
    del data["group_names"]
    assert days(Mandate.from_config({"groups": {"3": 0.2}}).solve(Market(**data))) == ["solved"] * 3
    data["groups"][1, 2] = -1
    with pytest.raises(SolverError, match=r"1 of 3 .*a code without a name \(-1 for name 2\)"):
        Mandate.from_config({"groups": {"3": 0.2}}).solve(Market(**data))


LIMITS = {
    "groups": lambda x: {"constraints": [Groups({"food": x})]},
    "groups_relative": lambda x: {"constraints": [Groups({"food": x}, relative=True)]},
    "exposures": lambda x: {"constraints": [Exposures({"size": x})]},
    "exposures_lower": lambda x: {"constraints": [Exposures(lower={"size": -x})]},
    "max_turnover": lambda x: {"constraints": [MaxTurnover(x)]},
    "max_tracking_error": lambda x: {"constraints": [MaxTrackingError(x)]},
    "max_leverage": lambda x: {"constraints": [MinWeights(-0.1), MaxLeverage(2 + x)]},
    "max_weights": lambda x: {"constraints": [MaxWeights(x.reshape(-1, 1) * torch.ones(3, 12))]},
    "min_weights": lambda x: {"constraints": [MinWeights(x.reshape(-1, 1) / 100)]},
    "linear_cost": lambda x: {"costs": [LinearCost(x.reshape(-1, 1) / 100, 0.001)]},
    "quadratic_cost": lambda x: {"costs": [QuadraticCost(x.reshape(-1, 1))]},
    "tracking_penalty": lambda x: {"costs": [TrackingPenalty(x)]},
    "risk_aversion": lambda x: {"risk_aversion": x},
    "kappa": lambda x: {"objective": "robust", "kappa": x},
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_tensor_of_limits_is_checked_day_by_day(name):
    usual = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    odd = torch.tensor([0.3, NAN, 0.3], dtype=torch.float64)
    data, ways = market(), {"on_failure": ["equal_weights"]}
    s = Mandate(**LIMITS[name](odd), **ways).solve(Market(**data))
    alone = Mandate(**LIMITS[name](usual), **ways).solve(Market(**data))
    assert days(alone) == ["solved"] * 3
    assert days(s) == ["solved", "bad data", "solved"]
    assert s.reason[1].startswith("bad data in ") and "(nan" in s.reason[1]
    assert torch.allclose(s.w[[0, 2]], alone.w[[0, 2]], atol=1e-12)
    assert s.fallback[1] == "equal_weights"
    with pytest.raises(SolverError, match=r"1 of 3 days .*day 1: bad data in .*nan"):
        Mandate(**LIMITS[name](odd)).solve(Market(**data))


def test_without_a_budget_there_are_no_equal_weights_of_it():
    odd = torch.tensor([1.0, NAN, 1.0], dtype=torch.float64)
    ways = {"on_failure": ["hold", "equal_weights"]}
    data = {**market(), "previous": None}
    with pytest.raises(SolverError, match=r"1 of 3 days .*budget.*nan"):
        Mandate(constraints=[Budget(odd)], **ways).solve(Market(**data))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: Groups({"food": x}),
        lambda x: Groups(lower=x),
        lambda x: Exposures({"beta": x}),
        MaxTurnover,
        MaxLeverage,
        MaxTrackingError,
        Budget,
        MaxWeights,
        MinWeights,
        lambda x: LinearCost(x, 0.001),
        lambda x: LinearCost(0.001, x),
        QuadraticCost,
        TrackingPenalty,
        lambda x: MaxParticipation(x),
        lambda x: ExposureTarget({"size": x}, 1.0),
        lambda x: ExposureTarget({"size": 0.0}, x),
        lambda x: Mandate(risk_aversion=x),
        lambda x: Mandate(kappa=x, objective="robust"),
    ],
)
@pytest.mark.parametrize("value", [NAN, INF])
def test_one_number_for_a_limit_is_finite(build, value):
    for given_ in (value, torch.tensor(value), torch.tensor([value])):
        with pytest.raises(ConfigError, match="finite"):
            build(given_)


def test_a_row_without_a_limit_on_some_days():
    """An infinite limit of a group or exposure is none, on its own side alone."""
    data = market()
    open_ = torch.tensor([0.2, INF, 0.2], dtype=torch.float64)
    s = Mandate(constraints=[Groups({"banks": open_})], risk_aversion=5.0).solve(Market(**data))
    limited = Mandate(constraints=[Groups({"banks": 0.2})], risk_aversion=5.0).solve(Market(**data))
    free = Mandate(risk_aversion=5.0).solve(Market(**data))
    for day, other in ((0, limited), (1, free), (2, limited)):
        assert torch.allclose(s.w[day], other.w[day], atol=1e-10)
    banks = (data["groups"][1] == 0).double() @ s.w[1]
    words, value, limit, _, dual = Mandate().explain(s, 1, all_rows=True)[3]
    assert words.startswith("groups: banks") and (limit, dual) == (INF, 0.0)
    assert value == pytest.approx(float(banks), abs=1e-12)
    # Also where another limit is why there are no weights.
    terms = [Groups({"banks": open_, "food": 0.9}, lower={"food": 0.95})]
    words = r"3 of 3 .*day 1: groups: food <= 0.9 cannot meet groups: food >= 0.95"
    with pytest.raises(SolverError, match=words):
        Mandate(constraints=terms).solve(Market(**data))
    with pytest.raises(SolverError, match=r"1 of 3 .*day 1: bad data in the limit of groups"):
        Mandate(constraints=[Groups({"banks": -open_ + 0.5})]).solve(Market(**data))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"group_names": ["banks", "food", "banks", "chips"]}, "group_names: 'banks' occurs twice"),
        ({"exposure_names": ["size", "beta"]}, "exposure_names: expected 1, got 2"),
        ({"names": ["A"]}, "names: expected 12, got 1"),
        ({"mask": torch.ones(3, 12)}, "mask: expected true and false, got torch.float32"),
        ({"groups": torch.zeros(3, 12)}, "codes are whole numbers, got torch.float32"),
    ],
)
def test_names_and_kinds_that_cannot_be_meant(change, words):
    with pytest.raises(ProblemError, match=words):
        Mandate.from_config({"groups": 0.5}).solve(Market(**{**market(), **change}))


def test_limits_of_another_shape_name_their_constraint():
    odd = torch.full((5,), 0.3, dtype=torch.float64)
    with pytest.raises(ProblemError, match=r"max_turnover: .*each of 3 days; got shape \(5,\)"):
        Mandate(constraints=[MaxTurnover(odd)]).solve(Market(**market()))
    with pytest.raises(ProblemError, match=r"by name must be .*\(3, 12\); got shape \(5,\)"):
        Mandate(constraints=[MaxWeights(odd)]).solve(Market(**market()))


def renamed(title):
    """The case with its first group and its exposure called ``title``."""
    data = market()
    return {
        **data,
        "group_names": [title, *data["group_names"][1:]],
        "exposure_names": [title],
    }


TITLES = ["cap>=10bn", "a <= b", "groups: food", "max_turnover", ">=", "x: y >= 1"]


@pytest.mark.parametrize("title", TITLES)
def test_a_label_decides_nothing(title):
    for limit, lower in (({title: 0.1}, {}), ({}, {title: 0.6})):
        for term in (Groups, Exposures):
            if term is Exposures:
                limit, lower = dict.fromkeys(limit, -0.1), dict.fromkeys(lower, 0.1)
            mandate = Mandate(constraints=[term(limit or None, lower or None)], risk_aversion=5.0)
            s = mandate.solve(Market(**renamed(title)))
            plain = [{"plain": m[title]} if m else None for m in (limit, lower)]
            same = Mandate(constraints=[term(*plain)], risk_aversion=5.0)
            t = same.solve(Market(**renamed("plain")))
            assert torch.equal(s.w, t.w) and torch.equal(s.value, t.value)
            assert torch.equal(s.limit, t.limit) and torch.equal(s.dual, t.dual)
            words, _, bound, _, _ = mandate.explain(s, 0, all_rows=True)[3]
            assert title in words and bound == next(iter((limit or lower).values()))
            assert (s.dual[:, 3] > 1e-9).any()
            over = (s.value - s.limit)[:, 3]
            assert ((-over if lower else over) <= 1e-9).all()


@pytest.mark.parametrize("title", TITLES[:3])
def test_a_remedy_has_the_sign_of_its_limit(title):
    """Three banks of at least 5 % are 15 %, and of at most 20 % they are 60 %."""
    data = renamed(title)
    for terms, words in (
        ([MinWeights(0.05), Groups({title: 0.1})], "the least that meets all else is 0.15"),
        ([MaxWeights(0.2), Groups(lower={title: 0.9})], "the most that meets all else is 0.6"),
    ):
        s = Mandate(constraints=terms, on_failure=["hold"]).solve(Market(**data))
        assert s.reason[0].endswith(f"({words})") and title in s.reason[0], s.reason[0]


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Z")), min_size=1))
@settings(max_examples=20, deadline=None)
def test_no_number_depends_on_a_label(title):
    def solve(name):
        terms = [Groups({name: 0.1}, {name: 0.05}), Exposures({name: -0.1}, {name: -0.5})]
        return Mandate(constraints=terms, risk_aversion=5.0).solve(Market(**renamed(name)))

    s, plain = solve(title), solve("plain")
    for field in ("w", "value", "limit", "dual", "codes"):
        assert torch.equal(getattr(s, field), getattr(plain, field)), field
