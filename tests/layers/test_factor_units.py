"""Factor QPs in other units of weight, objective and rows; answers of size zero; no interior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus

SOLVED, INFEASIBLE = SolveStatus.SOLVED.code, SolveStatus.PRIMAL_INFEASIBLE.code

KINDS = ("plain", "few", "caps", "short", "wide", "open", "flat", "factors")


def problem(seed: int, kind: str, rows: bool, cost: bool) -> dict[str, np.ndarray]:
    """Days (T, n) of a kind; ``few`` goes the short way where there are no rows and costs."""
    rng = np.random.default_rng(seed)
    T, n, k = (2 if kind == "few" else 18), int(rng.integers(3, 13)), int(rng.integers(1, 4))
    out = {
        "q": rng.normal(size=(T, n)),
        "loadings": rng.normal(size=(T, n, k)) * (1e3 if kind == "factors" else 1.0),
        "specific": 10 ** rng.uniform(-0.5, 0.5, (T, n)),
        "lb": np.zeros((T, n)),
        "ub": np.full((T, n), {"caps": 1.5 / n, "wide": 1e6, "open": np.inf}.get(kind, 1.0)),
    }
    if kind in ("short", "wide", "open"):
        out["lb"] = -out["ub"]
    if kind == "flat":
        out["specific"][:, 0] = 0.0
    inside = rng.dirichlet(np.ones(n) * 5, T)
    if kind == "caps":
        inside = 0.1 * inside + 0.9 / n
    out["budget"] = inside.sum(-1)
    if rows:
        out["A"] = rng.normal(size=(T, 1, n))
        out["b"] = np.einsum("tmn,tn->tm", out["A"], inside)
        out["G"] = (rng.random((T, 3, n)) < 0.5) * 1.0
        room = rng.choice([0.0, 0.1], (T, 3))
        out["h"] = np.einsum("tmn,tn->tm", out["G"], inside) + room
    if cost:
        out["cost"] = rng.random((T, n))
        out["reference"] = np.where(rng.random((T, n)) < 0.5, inside, 0.0)
    return out


def in_units(p, weight: float, objective: float, row: np.ndarray) -> dict[str, np.ndarray]:
    """The same days with weights, objective and rows (A's, then G's) in other units."""
    factors = {
        "q": objective / weight,
        "loadings": objective**0.5 / weight,
        "specific": objective / weight**2,
        "cost": objective / weight,
        "A": row[0],
        "b": row[0] * weight,
        "G": row[1:, None],
        "h": row[1:] * weight,
    }
    return {k: v * factors.get(k, weight) for k, v in p.items()}


def solve(p, loss=None, **options):
    given = {k: torch.tensor(v) for k, v in p.items()}
    q = given.pop("q").requires_grad_()
    rows = {}
    if "A" in given:
        rows = {
            "A": given.pop("A"),
            "b": given.pop("b"),
            "G": given.pop("G"),
            "h": given.pop("h"),
        }
    loadings, specific = given.pop("loadings"), given.pop("specific")
    solution = factor_qp(q, loadings, specific, on_failure="nan", **given, **rows, **options)
    if loss is None:
        return solution, None
    return solution, torch.autograd.grad((solution.w * loss).nan_to_num().sum(), q)[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    rows=st.booleans(),
    cost=st.booleans(),
    which=st.sampled_from(["weight", "objective", "rows", "all"]),
    powers=st.tuples(*[st.floats(-8, 8)] * 6),
)
def test_units_change_neither_weights_nor_statuses_nor_gradients(
    seed, kind, rows, cost, which, powers
):
    p = problem(seed, kind, rows, cost)
    weight = 10.0 ** powers[0] if which in ("weight", "all") else 1.0
    objective = 10.0 ** powers[1] if which in ("objective", "all") else 1.0
    row = 10.0 ** np.array(powers[2:]) if which in ("rows", "all") else np.ones(4)
    loss = torch.tensor(np.random.default_rng(seed + 1).normal(size=p["q"].shape))
    one, slope = solve(p, loss)
    other, other_slope = solve(in_units(p, weight, objective, row), loss)
    assert (one.codes == SOLVED).all() and (other.codes == SOLVED).all()
    # A flat name leaves several optimal weights, whose choice is the limit of a centre.
    if kind != "flat":
        size = one.w.detach().abs().amax(-1, keepdim=True).clamp_min(1e-6)
        assert float(((other.w / weight - one.w).abs() / size).max()) <= 1e-6
        other_slope = other_slope * (objective / weight**2)
        reach = loss.abs().amax() / p["specific"].min()
        assert float((other_slope - slope).abs().max()) <= 1e-6 * float(reach)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("days", [1, 18])
def test_an_answer_of_zero_is_solved(days, unit):
    rng = np.random.default_rng(3)
    p = {
        "q": np.zeros((days, 6)),
        "loadings": rng.normal(size=(days, 6, 2)),
        "specific": np.ones((days, 6)),
        "lb": -np.ones((days, 6)) * unit,
        "ub": np.ones((days, 6)) * unit,
        "budget": np.zeros(days),
    }
    solution, _ = solve(p)
    assert (solution.codes == SOLVED).all() and float(
        solution.w.detach().abs().max()
    ) <= 1e-12 * unit


@pytest.mark.parametrize("seed", range(6))
def test_a_neutral_portfolio_that_nothing_pays_for_is_empty(seed):
    p = problem(seed, "plain", rows=True, cost=False)
    p["q"][:] = p["budget"][:] = p["b"][:] = 0.0
    p["lb"] = -p["ub"]
    p["h"] = np.where(np.random.default_rng(seed).random(p["h"].shape) < 0.5, 0.0, 0.1)
    solution, _ = solve(p)
    assert (solution.codes == SOLVED).all() and float(solution.w.detach().abs().max()) <= 1e-12


@pytest.mark.parametrize(
    ("seed", "rows", "cost"),
    [(1, True, True), (3, True, False), (5, False, True), (6, False, True), (13, False, True)],
)
def test_factor_variance_a_million_times_the_specific_with_rows_and_costs(seed, rows, cost):
    p = problem(seed, "factors", rows, cost)
    one, _ = solve(p)
    assert (one.codes == SOLVED).all()
    # A hedged portfolio: the optimum shows in the objective's own size, not in the factors'.
    w = one.w.detach()
    B, d, q = (torch.tensor(p[k]) for k in ("loadings", "specific", "q"))
    gradient = torch.einsum("tnk,tmk,tm->tn", B, B, w) + d * w + q
    gradient = gradient + one.nu.unsqueeze(-1) - one.lam_lb + one.lam_ub
    if rows:
        A, G = torch.tensor(p["A"]), torch.tensor(p["G"])
        gradient = gradient + torch.einsum("tpn,tp->tn", A, one.nu_rows)
        gradient = gradient + torch.einsum("tmn,tm->tn", G, one.lam)
    kink = torch.tensor(p["cost"]) if cost else torch.zeros_like(q)
    size = B.square().sum(-1).amax()
    assert float((gradient.abs() - kink).max()) <= 1e-13 * float(size)


def test_duals_that_cancel_do_not_hide_an_error():
    # w₀ + w₁ ≤ 0 holds both names at their bounds, with duals as large as one likes.
    p = problem(1, "plain", rows=True, cost=False)
    p["G"][:] = 0.0
    p["G"][:, 0, :2], p["h"][:] = 1.0, 0.0
    del p["A"], p["b"]
    p["budget"][:] = 1.0
    given = {k: torch.tensor(v) for k, v in p.items()}
    alone = {k: v[:, 2:] if v.ndim > 1 else v for k, v in given.items() if k not in ("G", "h")}
    expected = factor_qp(alone.pop("q"), alone.pop("loadings"), alone.pop("specific"), **alone).w
    for unit in (1.0, 10870.739210450081, 1e-6):
        found = factor_qp(
            given["q"] / unit,
            given["loadings"] / unit,
            given["specific"] / unit**2,
            lb=given["lb"] * unit,
            ub=given["ub"] * unit,
            budget=given["budget"] * unit,
            G=given["G"],
            h=given["h"],
        )
        assert (found.codes == SOLVED).all()
        torch.testing.assert_close(found.w[:, 2:] / unit, expected, rtol=0, atol=1e-9)
        assert float(found.w[:, :2].abs().max()) <= 1e-12 * unit


def test_without_factors_and_rows_each_name_is_on_its_own():
    q = torch.tensor([[-1.0, 2.0, -4.0]], dtype=torch.float64, requires_grad=True)
    solution = factor_qp(
        q, torch.zeros(1, 3, 0, dtype=torch.float64), 2.0, lb=-0.5, ub=torch.inf, budget=None
    )
    assert solution.w.tolist() == [[0.5, -0.5, 2.0]] and solution.x.shape == (1, 0)
    assert torch.autograd.grad(solution.w.sum(), q)[0].tolist() == [[-0.5, 0.0, -0.5]]


def test_infeasible_rows_are_proved_where_weights_have_no_bounds():
    rng = np.random.default_rng(0)
    q, B = torch.tensor(rng.normal(size=(1, 3))), torch.tensor(rng.normal(size=(1, 3, 1)))
    one = torch.ones(1, 1, 3, dtype=torch.float64)
    far = {"lb": -torch.inf, "ub": torch.inf, "on_failure": "nan"}
    solution = factor_qp(q, B, 1.0, G=one, h=0.9, **far)
    assert solution.codes.tolist() == [INFEASIBLE]


CLOSED = {
    "caps that add up": ({"ub": 0.25}, [0.25, 0.25, 0.25, 0.25]),
    "bounds that meet": ({"lb": 0.25, "ub": 0.25}, [0.25, 0.25, 0.25, 0.25]),
    # Within each pair min ½(a² + b²)·d + q: the pair's halves differ by (q_b − q_a) / d.
    "groups that add up": (
        {
            "G": torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]], dtype=torch.float64),
            "h": torch.tensor([[0.4, 0.6]], dtype=torch.float64),
        },
        [0.25, 0.15, 0.2, 0.4],
    ),
    "a row that repeats the budget": (
        {"G": -torch.ones(1, 1, 4, dtype=torch.float64), "h": -1.0, "ub": 0.25},
        [0.25, 0.25, 0.25, 0.25],
    ),
}


@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e7])
@pytest.mark.parametrize("name", sorted(CLOSED))
def test_feasible_without_interior(name, unit):
    options, expected = CLOSED[name]
    options = dict(options)
    if "h" in options:
        options["h"] = options["h"] * unit
    for key in ("lb", "ub"):
        options[key] = options.get(key, 1.0 if key == "ub" else 0.0) * unit
    q = torch.tensor([[0.0, 0.1, 0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    solution = factor_qp(
        q / unit, torch.zeros(1, 4, 1, dtype=torch.float64), 1 / unit**2, budget=unit, **options
    )
    assert solution.codes.tolist() == [SOLVED]
    assert (solution.w[0] / unit).tolist() == pytest.approx(expected, abs=1e-12)
    (slope,) = torch.autograd.grad(solution.w[0, 0] / unit, q)
    assert float(slope.abs().max()) <= 1.0


LAYOUTS = {
    "transposed": lambda v: v.movedim(0, -1).contiguous().movedim(-1, 0),
    "fortran": lambda v: torch.from_numpy(np.asfortranarray(v.numpy())),
    "strided": lambda v: v.repeat_interleave(2, -1)[..., ::2],
    "offset": lambda v: torch.cat([v[:1], v])[1:],
    "reversed": lambda v: torch.from_numpy(v.numpy()[..., ::-1].copy()).flip(-1),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("full", [False, True])
def test_memory_layouts_change_nothing(layout, full):
    for kind in ("few", "plain"):
        p = {k: torch.tensor(v) for k, v in problem(5, kind, full, full).items()}
        found = []
        for change in (torch.clone, LAYOUTS[layout]):
            own = {k: change(v).requires_grad_() for k, v in p.items()}
            rows = {}
            if full:
                rows = {
                    "A": own["A"],
                    "b": own["b"],
                    "G": own["G"],
                    "h": own["h"],
                    "cost": own["cost"],
                    "reference": own["reference"],
                }
            solution = factor_qp(
                own["q"],
                own["loadings"],
                own["specific"],
                lb=own["lb"],
                ub=own["ub"],
                budget=own["budget"],
                **rows,
            )
            before = {k: v.detach().clone() for k, v in own.items()}
            slopes = torch.autograd.grad((solution.w * p["q"]).sum(), list(own.values()))
            assert all(torch.equal(before[k], p[k]) for k in p)
            found.append((solution.w, *slopes))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


def test_expanded_parameters_are_read_only_and_shared():
    p = {k: torch.tensor(v) for k, v in problem(7, "plain", False, False).items()}
    T, n = p["q"].shape
    lower, upper = p["lb"][:1].expand(T, n), p["ub"][:1].expand(T, n)
    d = p["specific"][:1].expand(T, n)
    one = factor_qp(p["q"], p["loadings"], d, lb=lower, ub=upper).w
    other = factor_qp(
        p["q"], p["loadings"], d.contiguous(), lb=lower.contiguous(), ub=upper.contiguous()
    ).w
    assert torch.equal(one, other)
