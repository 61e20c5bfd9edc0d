"""Gradients where active constraints depend on each other: bounded, and right where they exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import bpqp_portfolio as bp
from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.registry import available_solvers

SOLVERS = bp.available_solvers("qp")
PAIRS = [(f, "auto") for f in SOLVERS] + [("clarabel", b) for b in ("kkt", *SOLVERS)]
CONE_PAIRS = [(f, "auto") for f in available_solvers("cone")]
CONE_PAIRS += [("clarabel", b) for b in ("kkt", *SOLVERS)]
SEARCH = settings(max_examples=25, deadline=None, derandomize=True)
SIDES = {"b": "A", "h": "G"}


def tensor(value):
    return torch.tensor(np.asarray(value, dtype=float))


def budget_twice():
    """An equality that an inequality repeats; one name is at its bound."""
    P = tensor([[3.72, -0.03, -1.3], [-0.03, 0.29, 0.48], [-1.3, 0.48, 1.73]])
    one = torch.ones(1, 3).double()
    data = {"P": P, "q": tensor([3.32, 0.23, -0.35]), "A": one, "b": tensor([1.0]), "G": -one}
    box = {"lb": -torch.ones(3).double(), "ub": torch.ones(3).double()}
    return data | {"h": tensor([-1.0])} | box


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_an_equality_written_as_an_inequality_too(forward, backward):
    """The budget can only grow: then z₁ moves by dz₁/db of the problem without the inequality."""
    data = budget_twice()
    for name in ("b", "h"):
        data[name].requires_grad_()
    z = bp.QPLayer(forward, backward)(**data)
    (z @ tensor([-0.28, -0.67, -1.06])).backward()
    assert data["b"].grad.item() == pytest.approx(-0.76641, abs=1e-5)
    assert data["h"].grad.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_an_equality_exactly_at_a_bound(forward, backward):
    """z₁ = b and z₁ ≤ 1 at b = 1: b can only fall, and z₂ = −z₁/2 with it."""
    P, q = tensor([[2.0, 1.0], [1.0, 2.0]]), tensor([-5.0, 0.0])
    b, ub = tensor([1.0]).requires_grad_(), tensor([1.0, 9.0]).requires_grad_()
    z = bp.QPLayer(forward, backward)(P, q, tensor([[1.0, 0.0]]), b, ub=ub)
    (z @ tensor([3.0, 0.8])).backward()
    assert b.grad.item() == pytest.approx(2.6, abs=1e-5)
    assert ub.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


def test_of_equal_inequalities_one_has_the_gradient():
    h = tensor([1.0, 1.0]).requires_grad_()
    G = tensor([[1.0, 1.0], [1.0, 1.0]])
    z = bp.QPLayer("dense")(torch.eye(2).double(), tensor([-3.0, -3.0]), G=G, h=h)
    z.sum().backward()
    assert sorted(h.grad.tolist()) == pytest.approx([0.0, 1.0], abs=1e-9)


def start(rng, n):
    """A QP with a strictly complementary solution and independent active constraints."""
    X = rng.normal(size=(n, n))
    P = X @ X.T / n + 0.3 * np.eye(n)
    p, m = rng.integers(0, max(1, n // 2)), rng.integers(0, n)
    A, G, z = rng.normal(size=(p, n)), rng.normal(size=(m, n)), 0.5 * rng.normal(size=n)
    lam = np.where(rng.random(m) < 0.5, rng.uniform(0.2, 2, m), 0.0)
    side = rng.choice([-1, 0, 0, 1], size=n)
    on = np.flatnonzero(side)
    side[on[: max(p + np.count_nonzero(lam) + len(on) - n, 0)]] = 0
    q = -(P @ z + A.T @ rng.normal(size=p) + G.T @ lam + rng.uniform(0.2, 2, n) * side)
    h = G @ z + np.where(lam > 0, 0.0, rng.uniform(0.2, 2, m))
    lb = np.where(side < 0, z, z - rng.uniform(0.2, 2, n))
    ub = np.where(side > 0, z, z + rng.uniform(0.2, 2, n))
    data = {"P": P, "q": q, "A": A, "b": A @ z, "G": G, "h": h, "lb": lb, "ub": ub}
    return data, z, lam > 0, side


def more_rows(rng, data, z, active, side, most=3):
    """Rows that follow from the active ones: repeated, negated, at a bound, through a vertex."""
    A, G = data["A"], data["G"][active]
    equal, below = [], []
    for _ in range(rng.integers(1, most + 1)):
        c = float(rng.choice([1.0, 1.0, -1.0, 0.5, 3.0, 7.3]))
        at = np.diag(side)[side != 0].astype(float)
        choices = [(equal, c * row) for row in (*A, *G, *at)]
        choices += [(below, c * row) for row in A] + [(below, abs(c) * row) for row in (*G, *at)]
        tight = np.concatenate([G, at])
        if len(tight):
            mixed = rng.random(len(tight)) @ tight + rng.normal(size=len(A)) @ A
            choices.append((below, mixed))
        if choices:
            place, row = choices[rng.integers(len(choices))]
            place.append(row)
    out = dict(data)
    for rows, values, new in (("A", "b", equal), ("G", "h", below)):
        if new:
            out[rows] = np.concatenate([data[rows], new])
            out[values] = np.concatenate([data[values], np.array(new) @ z])
    return out, len(equal) + len(below)


def largest(gradients, data):
    """Largest entry of the gradients, those of a row and of its side at unit size of the row."""
    found = 0.0
    for name, value in gradients.items():
        rows = data[SIDES.get(name, name)]
        unit = np.abs(rows).max(1) if name in "AbGh" else np.ones(1)
        scaled = value * unit.reshape(-1, *(1,) * (value.ndim - 1)) if value.size else value
        found = max(found, float(np.abs(scaled).max(initial=0.0)))
    return found


def moved(gradients, data, v):
    """The derivative as all constraints move along v."""
    sides = gradients["lb"] + gradients["ub"]
    return v @ sides + sum((data[SIDES[k]] @ v) @ gradients[k] for k in "bh")


def compared(z, w, plain, full, at):
    """``plain`` and ``full`` are gradients and data without the added rows and with them."""
    (before, bare), (after, data) = plain, full
    scale = max(largest(before, bare), 1e-3)
    np.testing.assert_allclose(at, z, atol=1e-6)
    for name in ("q", "P"):
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-5 * scale)
    v = np.linspace(-1.0, 1.3, len(z))
    assert moved(after, data, v) == pytest.approx(moved(before, bare, v), abs=1e-5 * scale)
    # Rows of other scale may take over, and a bound's gradient become that of a row.
    assert largest(after, data) <= 10 * scale


def run(solve, data, w):
    values = {k: tensor(v).requires_grad_() for k, v in data.items()}
    s = solve(values)
    if s.status is not bp.SolveStatus.SOLVED:
        return None
    (s.z @ tensor(w)).backward()
    empty = {k: np.zeros(v.shape) for k, v in data.items()}
    return {k: empty[k] if v.grad is None else v.grad.numpy() for k, v in values.items()}, s.z


def check(solve, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    data, z, active, side = start(rng, n)
    full, added = more_rows(rng, data, z, active, side)
    assume(added)
    w = rng.normal(size=n)
    before = run(lambda v: bp.QPLayer("clarabel", "kkt").solve(**v), data, w)
    after = run(solve, full, w)
    # Not every solver finds every such point; what it calls solved has to be right.
    assume(before is not None and after is not None)
    compared(z, w, (before[0], data), (after[0], full), after[1].detach().numpy())


@SEARCH
@given(st.integers(0, 2**31), st.sampled_from(PAIRS))
def test_added_rows_that_follow_from_others_change_no_gradient(seed, pair):
    check(lambda v: bp.QPLayer(*pair, on_failure="nan").solve(**v), seed)


@SEARCH
@given(st.integers(0, 2**31), st.sampled_from(PAIRS))
def test_each_gradient_is_a_derivative_for_one_side(seed, pair):
    """Of b, h, lb and ub, where one row follows from the others and so one side may be empty."""
    rng = np.random.default_rng(seed)
    n, step = int(rng.integers(2, 6)), 1e-6
    data, added = more_rows(rng, *start(rng, n), most=1)
    assume(added)
    w = rng.normal(size=n)
    found = run(lambda v: bp.QPLayer(*pair, on_failure="nan").solve(**v), data, w)
    assume(found is not None)
    gradients, at = found
    reference = bp.QPLayer("clarabel", tolerance=1e-11, on_failure="nan")
    scale = max(largest(gradients, data), 1.0)
    for name in ("b", "h", "lb", "ub"):
        for i, own in enumerate(gradients[name]):
            sides = []
            for change in (step, -step):
                other = {k: tensor(v) for k, v in data.items()}
                other[name][i] += change
                s = reference.solve(**other)
                if s.status is bp.SolveStatus.SOLVED:
                    sides.append(float((s.z - at.detach()) @ tensor(w)) / change)
            # One of two equal equalities cannot move alone.
            assert min((abs(own - side) for side in sides), default=0.0) <= 1e-3 * scale


@SEARCH
@given(st.integers(0, 2**31), st.sampled_from(PAIRS))
def test_the_same_with_bounds_as_rows(seed, pair):
    def solve(values):
        own = {k: values[k] for k in ("P", "q", "A", "b")}
        eye = torch.eye(len(values["q"])).double()
        own["G"] = torch.cat([values["G"], -eye, eye])
        own["h"] = torch.cat([values["h"], -values["lb"], values["ub"]])
        return bp.QPLayer(*pair, on_failure="nan").solve(**own)

    check(solve, seed)


@SEARCH
@given(st.integers(0, 2**31))
def test_the_same_in_a_batch_of_the_dense_solver(seed):
    def solve(values):
        own = values | {"q": values["q"].expand(2, -1), "P": values["P"].expand(2, -1, -1).clone()}
        s = bp.QPLayer("dense", on_failure="nan").solve(**own)
        both = set(s.status) == {bp.SolveStatus.SOLVED}
        status = bp.SolveStatus.SOLVED if both else bp.SolveStatus.ITERATION_LIMIT
        return bp.Solution(s.z.mean(0), *(None,) * 4, status, None, None, None)

    check(solve, seed)


@SEARCH
@given(st.integers(0, 2**31), st.sampled_from(CONE_PAIRS))
def test_the_same_beside_a_cone(seed, pair):
    far = [(None, None, None, 100.0)]
    check(lambda v: bp.SOCPLayer(*pair, on_failure="nan").solve(cones=far, **v), seed)


@SEARCH
@given(st.integers(0, 2**31))
def test_the_same_of_a_smooth_program(seed):
    def solve(values):
        names = list(values)

        def objective(z, *own):
            v = dict(zip(names, own, strict=True))
            return 0.5 * z @ v["P"] @ z + v["q"] @ z

        def equalities(z, *own):
            v = dict(zip(names, own, strict=True))
            return v["A"] @ z - v["b"]

        def inequalities(z, *own):
            v = dict(zip(names, own, strict=True))
            return torch.cat([v["G"] @ z - v["h"], v["lb"] - z, z - v["ub"]])

        layer = bp.ConvexLayer(objective, equalities, inequalities, on_failure="nan")
        return layer.solve(torch.zeros(len(values["q"])).double(), *values.values())

    check(solve, seed)


@SEARCH
@given(st.integers(0, 2**31), st.sampled_from((1, 20)))
def test_the_same_of_factor_programs(seed, days):
    """Budget, bounds and rows of a portfolio, in both of its ways."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 8)), int(rng.integers(1, 4))
    B, d = rng.normal(size=(n, k)), rng.uniform(0.2, 2, n)
    z = rng.dirichlet(np.ones(n)) + 0.01
    side = rng.choice([-1, 0, 0, 1], size=n)
    side[rng.integers(n)] = 0
    m = int(np.count_nonzero(side == 0) > 1) * int(rng.integers(0, 2))
    A, G = np.full((1, n), 1.0), rng.normal(size=(m, n))
    pull = rng.uniform(0.2, 2, n) * side
    P = B @ B.T + np.diag(d)
    q = -(P @ z + rng.normal() + G.T @ rng.uniform(0.2, 2, m) + pull)
    lb = np.where(side < 0, z, z - rng.uniform(0.2, 2, n))
    ub = np.where(side > 0, z, z + rng.uniform(0.2, 2, n))
    data = {"P": P, "q": q, "A": A, "b": A @ z, "G": G, "h": G @ z, "lb": lb, "ub": ub}
    full, added = more_rows(rng, data, z, np.ones(m, dtype=bool), side)
    assume(added)
    w = rng.normal(size=n)

    def found(data):
        values = {k: tensor(v).requires_grad_() for k, v in data.items() if k != "P"}
        repeated = {k: v.expand(days, *v.shape) for k, v in values.items()}
        out = factor_qp(
            repeated["q"],
            tensor(B).expand(days, n, k),
            tensor(d),
            lb=repeated["lb"],
            ub=repeated["ub"],
            budget=repeated["b"][:, 0],
            A=repeated["A"][:, 1:],
            b=repeated["b"][:, 1:],
            G=repeated["G"],
            h=repeated["h"],
            on_failure="nan",
        )
        assume(bool((out.codes == SolveStatus.SOLVED.code).all()))
        (out.w @ tensor(w)).mean().backward()
        gradients = {k: np.zeros_like(data[k]) for k in data}
        for name, value in values.items():
            if value.grad is not None:
                gradients[name] = value.grad.numpy()
        return gradients, out.w[0].detach().numpy()

    before, _ = found(data)
    after, at = found(full)
    compared(z, w, (before, data), (after, full), at)


@pytest.mark.parametrize("days", (1, 20))
def test_a_single_name_at_its_cap_leaves_the_budget_a_gradient(days):
    """The budget follows from the bounds: the second name's, which costs least, gives way, so that
    a larger budget or a smaller cap goes to it."""
    q = tensor([-3.0, 0.0, 1.0]).expand(days, 3)
    lower, upper = (torch.full((days, 3), v).double().requires_grad_() for v in (0.0, 1.0))
    budget = torch.ones(days).double().requires_grad_()
    d = torch.full((days, 3), 0.5).double()
    loadings = tensor([[0.1], [0.2], [0.3]]).expand(days, 3, 1)
    out = factor_qp(q, loadings, d, lb=lower, ub=upper, budget=budget)
    (out.w @ tensor([1.0, 2.0, 5.0])).sum().backward()
    assert out.w[0].tolist() == [1.0, 0.0, 0.0]
    assert budget.grad[0].item() == pytest.approx(2.0)
    assert upper.grad[0].tolist() == pytest.approx([-1.0, 0.0, 0.0])
    assert lower.grad[0].tolist() == pytest.approx([0.0, 0.0, 3.0], abs=1e-9)


@pytest.mark.parametrize("forward", bp.available_solvers("qp"))
def test_multipliers_of_a_simplex_methods_vertex(forward):
    # Five constraints meet at a vertex in three dimensions. The multipliers of three of them, which
    # HiGHS returns, are ten times the least ones, and their rows alone give gradients of 20 where
    # linprog has one-sided derivatives of 1.4 at most.
    def t(*values):
        return torch.tensor(values, dtype=torch.float64)

    q = t(0.5581304110858457, 0.9840523912646778, -1.0576605242439079)
    G = torch.stack(
        [
            t(-0.10432168101377885, 0.25850258377723173, -1.342444804166263),
            t(0.0670436441906236, -0.3200829587431421, -1.549050734159121),
            t(1.7665047956642908, -0.4786431180530135, -0.2032168963162448),
            t(-1.65163830990548, -0.6154971784185744, 0.6637341710633635),
        ]
    )
    h = t(-0.22363551464026313, -0.6592708845881121, -2.9772203930163252, 2.5705948121006186)
    lb = t(-2.210827334906625, 0.3590336435674422, -torch.inf)
    ub = t(torch.inf, torch.inf, 0.3559529668907977)
    for value in (h, lb, ub):
        value.requires_grad_()
    z = bp.QPLayer(forward)(None, q, G=G, h=h, lb=lb, ub=ub)
    loss = z @ t(1.606967476553574, 1.1103713677623344, 0.5493455467899635)
    grads = torch.autograd.grad(loss, (h, lb, ub))
    assert max(float(grad.abs().max()) for grad in grads) < 3.0
