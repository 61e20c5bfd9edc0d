"""The contract of every registered constraint and cost: what is registered is tested."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch
from mandate_cases import EXAMPLES, market, of_parts

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.portfolio.mandate.conic_form import ConicForm
from bpqp_portfolio.portfolio.mandate.mandate import Mandate, Market
from bpqp_portfolio.portfolio.mandate.parts import Of, Row, Sense
from bpqp_portfolio.portfolio.mandate.search import structured
from bpqp_portfolio.portfolio.mandate.terms import CONSTRAINTS, COSTS, MaxTurnover, Term

TERMS = {**CONSTRAINTS, **COSTS}
EACH = pytest.mark.parametrize("name", sorted(TERMS))
SIGN = {Sense.UPPER: -1.0, Sense.EQUAL: -1.0, Sense.LOWER: 1.0}


def example(name, **more):
    return Mandate.from_config({"risk_aversion": 5.0, "tolerance": 1e-12, **EXAMPLES[name], **more})


def leaves(term):
    """Each number of a term, as a function from another number to the term with that."""

    def is_number(value):
        return isinstance(value, float) or (isinstance(value, int) and value is not True)

    found = []
    for field in fields(term):
        value = getattr(term, field.name)
        if is_number(value) and not isinstance(value, bool) and field.name != "days_per_year":
            found.append((value, lambda x, f=field.name: replace(term, **{f: x})))
        for key, one in value.items() if isinstance(value, dict) else ():
            if is_number(one):
                found.append(
                    (one, lambda x, f=field.name, v=value, k=key: replace(term, **{f: {**v, k: x}}))
                )
    return found


def with_term(mandate, term, on_failure=("raise",)):
    others = [t for t in mandate.terms if t.name != term.name]
    return Mandate(
        5.0,
        [t for t in (*others, term) if not t.is_cost],
        [t for t in (*others, term) if t.is_cost],
        on_failure=on_failure,
        tolerance=1e-12,
    )


def own(mandate, name):
    return next(term for term in mandate.terms if term.name == name)


@EACH
def test_it_agrees_with_its_parts_in_cvxpy(name):
    data = Market(**market(seed=5))
    mandate = example(name)
    s = mandate.solve(data)
    assert s.codes.tolist() == [0, 0, 0] and s.fallback == (None,) * 3
    for day, (value, w) in enumerate(of_parts(mandate.program(data))):
        assert float(s.objective[day]) == pytest.approx(value, abs=1e-9)
        torch.testing.assert_close(s.w[day], w, rtol=0, atol=5e-6)


@EACH
def test_the_conic_form_has_the_same_point(name):
    program = example(name).program(Market(**market(seed=5)))
    one, other = structured(program), ConicForm(program).optimum()
    for field in ("w", "rows", "trades", "cones"):
        torch.testing.assert_close(
            getattr(one, field), getattr(other, field), rtol=1e-4, atol=2e-6, msg=field
        )


@EACH
def test_it_says_what_it_is(name):
    cls = TERMS[name]
    mandate = example(name)
    assert cls.unit and cls.__doc__ and cls.name == name and name in str(own(mandate, name))
    s = mandate.solve(Market(**market(seed=5)))
    rows = mandate.explain(s, 0, all_rows=True)
    assert len(rows) == len(s.constraints)
    mine = [(one, row) for one, row in zip(s.constraints, rows, strict=True) if one.term == name]
    assert bool(mine) is not cls.is_cost
    for one, row in mine:
        assert one.unit == cls.unit and row.label.startswith(name)
        assert row.slack == pytest.approx(abs(row.limit - row.value))


@EACH
def test_its_settings_are_read_again_from_json(name):
    data = Market(**market(seed=5))
    again = Mandate.from_config(json.loads(json.dumps({"risk_aversion": 5.0, **EXAMPLES[name]})))
    plain = Mandate.from_config({"risk_aversion": 5.0, **EXAMPLES[name]})
    assert str(again) == str(plain)
    assert torch.equal(again.solve(data).w, plain.solve(data).w)


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_its_dual_is_the_change_of_the_optimum(name):
    data, mandate = Market(**market(seed=5)), example(name)
    s = mandate.solve(data)
    for value, change in leaves(own(mandate, name)):
        step = 1e-5 * abs(value)
        up, down = (with_term(mandate, change(value + h)).solve(data) for h in (step, -step))
        signs = torch.tensor([SIGN[one.sense] for one in s.constraints], dtype=torch.float64)
        told = (signs * s.dual * (up.limit - down.limit)).nan_to_num().sum(-1)
        found = up.objective - down.objective
        torch.testing.assert_close(told, found, rtol=2e-3, atol=1e-6 * step + 1e-12)
        assert (s.dual >= -1e-9)[:, 1:].all()


@EACH
def test_it_is_differentiable_in_its_numbers(name):
    data, mandate = Market(**market(seed=5)), example(name)
    for value, change in leaves(own(mandate, name)):
        # Away from the example, whose round numbers may be a kink.
        value = value * 1.013
        x = torch.tensor(value, dtype=torch.float64, requires_grad=True)

        def total(x, change=change):
            w = with_term(mandate, change(x))(data)
            return (w * torch.linspace(-1, 1, 12, dtype=w.dtype)).sum() + (w**2).sum()

        (slope,) = torch.autograd.grad(total(x), x, materialize_grads=True)
        h = 1e-5 * abs(value)
        with torch.no_grad():
            up, down = total(x + h), total(x - h)
        assert float(slope) == pytest.approx(float(up - down) / (2 * h), rel=2e-4, abs=1e-6)


def contradicted(name, value, change, on_failure):
    """The term with a limit that cannot be met beside something else."""
    data = market(T=1, seed=5)
    pinned = {**data, "pinned": data["mask"]}
    for scale in (0.01, 100.0):
        for more, days in (
            ({}, data),
            ({}, pinned),
            ({"active_weights": 0.0}, data),
            ({"budget": 0.5}, data),
        ):
            if name in more:
                continue
            s = with_term(example(name, **more), change(scale * value), on_failure).solve(
                Market(**days)
            )
            if s.reason[0] is not None:
                return s
    raise AssertionError(f"{name}: nothing contradicts it")


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_it_is_named_where_it_cannot_be_met_and_relaxed_where_it_may_be(name):
    mandate = example(name)
    for value, change in leaves(own(mandate, name))[:1]:
        s = contradicted(name, value, change, ["hold"])
        assert name in s.reason[0] and "cannot" in s.reason[0]
        assert s.codes.tolist() == [2] and s.fallback == ("hold",)
        if TERMS[name].relaxable:
            ways = [{"relax": [name], "penalty": 1.0}]
            s = contradicted(name, value, change, ways)
            assert s.fallback == ("relax",) and s.w.isfinite().all()
            missed = [i for i, one in enumerate(s.constraints) if one.term == name]
            over = [SIGN[s.constraints[i].sense] * (s.limit - s.value)[0, i] for i in missed]
            assert max(map(float, over)) > 1e-6
        else:
            with pytest.raises(ConfigError, match=f"{name} cannot be relaxed; of this mandate's"):
                with_term(mandate, change(value), [{"relax": [name]}])


class MaxTrades(Term):
    """A user's own: a limit of all trades, weighted by the benchmark."""

    name, unit = "max_trades", "benchmark-weighted trades"

    def __init__(self, limit):
        self.limit = limit

    def __str__(self):
        return f"max_trades {self.limit}"

    def parts(self, view):
        weights = 12 * view.needed("benchmark", self.name)
        limit = view.per_day(self.limit, self.name)
        yield Row(*self.head(), weights, limit, of=Of.TRADES)


def test_a_term_of_ones_own_goes_with_those_of_the_package():
    data = Market(**market(seed=5))
    mandate = Mandate(5.0, [MaxTrades(0.3), MaxTurnover(0.2)], tolerance=1e-12)
    assert [term.name for term in mandate.terms] == ["max_turnover", "max_trades"]
    program = mandate.program(data)
    s = mandate.solve(data)
    trades = (12 * data.benchmark * (s.w - data.previous).abs()).sum(-1)
    assert (trades <= 0.3 + 1e-9).all() and (s.dual[:, -1] > 0).any()
    for day, (value, w) in enumerate(of_parts(program)):
        assert float(s.objective[day]) == pytest.approx(value, abs=1e-9)
        torch.testing.assert_close(s.w[day], w, rtol=0, atol=5e-6)
    with pytest.raises(ConfigError, match="expected a constraint or cost"):
        Mandate(5.0, [0.3])


def test_a_term_of_ones_own_by_class_and_module_path(tmp_path):
    (tmp_path / "caps.py").write_text(
        "from bpqp_portfolio.portfolio import Term\n"
        "from bpqp_portfolio.portfolio.mandate.parts import Bound\n"
        "class FirstName(Term):\n"
        "    name, unit = 'first_name', 'fraction'\n"
        "    def __init__(self, limit): self.limit = limit\n"
        "    def __str__(self): return f'first_name <= {self.limit}'\n"
        "    def parts(self, view):\n"
        "        upper = view.zero + 1.0\n"
        "        upper[:, 0] = self.limit\n"
        "        yield Bound(*self.head(), upper=upper)\n"
    )
    one = {
        "class": "FirstName",
        "module_path": str(tmp_path / "caps.py"),
        "kwargs": {"limit": 0.02},
    }
    mandate = Mandate.from_config({"constraints": ["long_only", one, {"max_turnover": 0.4}]})
    assert "first_name <= 0.02" in str(mandate)
    w = mandate.solve(Market(**market(seed=5))).w
    assert (w[:, 0] <= 0.02 + 1e-12).all() and (w[:, 1:] > 0.02).any()
    one["class"] = "Bound"
    with pytest.raises(ConfigError, match="constraint"):
        Mandate.from_config({"constraints": [one]})


def test_two_that_fix_the_budget_are_refused():
    with pytest.raises(ConfigError, match="budget and market_neutral both fix the sum"):
        Mandate.from_config({"budget": 0.9, "market_neutral": True, "long_only": False})


def test_a_smallest_weight_holds_also_with_short_positions():
    """It had been added to −1."""
    s = example("long_only", min_weights=-0.05).solve(Market(**market(seed=5)))
    assert float(s.w.min()) == pytest.approx(-0.05)


def test_names_that_cannot_trade_are_no_price_of_the_bounds():
    """Their duals had been counted as the price of the smallest and largest weights."""
    data = market(T=1, seed=5)
    data["pinned"] = torch.zeros_like(data["mask"])
    data["pinned"][:, :2] = True
    mandate = Mandate.from_config({"risk_aversion": 5.0, "max_weights": 0.2, "tolerance": 1e-12})
    s, h = mandate.solve(Market(**data)), 1e-6
    at = s.labels.index("max_weights: weights <= 0.2")
    up, down = (
        Mandate.from_config({"risk_aversion": 5.0, "max_weights": 0.2 + d, "tolerance": 1e-12})
        .solve(Market(**data))
        .objective
        for d in (h, -h)
    )
    assert float(s.dual[0, at]) == pytest.approx(float(down - up) / (2 * h), rel=1e-4, abs=1e-9)


def test_participation_by_name_and_names_that_were_not_traded():
    data = market(T=2, seed=5)
    data["names"] = [f"N{i}" for i in range(12)]
    data["traded_value"][:, 3] = 0.0
    w = example("max_participation", max_participation={"N0": 0.01}).solve(Market(**data)).w
    moved = (w - data["previous"]).abs()
    assert (moved[:, 0] <= 0.01 * data["traded_value"][:, 0] / 1e8 + 1e-12).all()
    assert (moved[:, 1:] > 0.04).any()
    w = example("max_participation").solve(Market(**data)).w
    assert torch.equal(w[:, 3], data["previous"][:, 3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"traded_value": None}, "max_participation: the market has no traded_value"),
        ({"account": None}, "max_participation: the market has no account"),
        ({"account": torch.ones(4)}, r"account must be \(T,\)"),
        ({"traded_value": torch.full((3, 12), -1.0)}, r"bad data in traded_value \(-1 for name 0"),
        ({"account": torch.tensor([1e8, 0.0, 1e8])}, r"1 of 3 days .*bad data in account \(0\)"),
    ],
)
def test_what_participation_needs_is_named(change, words):
    with pytest.raises(Exception, match=words):
        example("max_participation").solve(Market(**{**market(), **change}))


def test_an_exposure_target_pulls_towards_it():
    data = Market(**market(seed=5))
    found = []
    for strength in (0.0, 0.01, 10.0):
        settings = {"targets": {"size": 0.1}, "strength": strength}
        w = example("exposure_target", exposure_target=settings).solve(data).w
        found.append(((data.exposures[..., 0] * w).sum(-1) - 0.1).abs())
    # On the last day no weights bring it nearer.
    assert (found[0] >= found[1] - 1e-12).all() and (found[1] >= found[2] - 1e-12).all()
    assert (found[2][:2] < 1e-2).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"targets": 0.1, "strength": 1.0}, "expected a mapping exposure: target"),
        ({"targets": {"size": 0.1}}, "missing 'strength'"),
        ({"targets": {"size": 0.1}, "strength": -1.0}, "strength: must be >= 0"),
        ({"targets": {"size": 0.1}, "strength": {"beta": 1.0}}, "strength of an exposure target"),
        ({"targets": {"size": "low"}, "strength": 1.0}, r"targets\.size: expected a number"),
    ],
)
def test_bad_exposure_targets_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        example("exposure_target", exposure_target=settings)
