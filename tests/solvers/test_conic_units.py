"""Cone programs in other units, of other sizes and not convex: the same answers, whoever solves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bpqp_portfolio import SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.socp import SOCP, linear
from bpqp_portfolio.solvers.conic.adjoint import cone_adjoint
from bpqp_portfolio.solvers.registry import available_solvers, get_solver

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("cone"))
SEEDS = st.integers(0, 10_000)
POWERS = st.floats(-8, 8)


def program(seed: int) -> SOCP:
    """Every kind of constraint around a point; an odd seed bends the objective."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))
    inside, cones = rng.normal(size=n), []
    for r in (2, n):
        F, g, c = rng.normal(size=(r, n)), rng.normal(size=r), 0.3 * rng.normal(size=n)
        cones.append((F, g, c, np.linalg.norm(F @ inside + g) - c @ inside + rng.random()))
    cones.append((None, -inside, None, 1.0 + rng.random()))
    A, G = rng.normal(size=(1, n)), rng.normal(size=(2, n))
    B = rng.normal(size=(n, n))
    P = B @ B.T if seed % 2 else linear(n)
    h, lb, ub = G @ inside + rng.random(2), inside - rng.random(n), inside + rng.random(n)
    return SOCP(QP(P, 3 * rng.normal(size=n), A, A @ inside, G, h, lb, ub), cones)


def in_other_units(
    problem: SOCP, *, length: float = 1.0, objective: float = 1.0, rows: int | None = None
) -> SOCP:
    """z in multiples of 1/``length``; with a seed ``rows`` every row and cone by its own factor."""
    qp, n = problem.qp, problem.n
    rng = np.random.default_rng(rows)
    of_A, of_G, of_cones = (
        np.ones(k) if rows is None else 10.0 ** rng.uniform(-8, 8, k)
        for k in (qp.p, qp.m, len(problem.cones))
    )
    P = qp.P / (length**2 / objective)
    cones = []
    for factor, (F, g, c, d) in zip(of_cones, problem.cones, strict=True):
        F, c = np.eye(n) if F is None else F, np.zeros(n) if c is None else c
        g = np.zeros(len(F)) if g is None else g
        cones.append((factor * F / length, factor * g, factor * c / length, factor * d))
    moved = QP(
        P,
        qp.q * (objective / length),
        qp.A * of_A[:, None] / length,
        qp.b * of_A,
        qp.G * of_G[:, None] / length,
        qp.h * of_G,
        qp.lb * length,
        qp.ub * length,
    )
    return SOCP(moved, cones)


def gradient_in_q(problem, solution, weight):
    qp, none = problem.qp, np.zeros(problem.n)
    a, _ = cone_adjoint(
        problem,
        solution,
        weight,
        np.zeros(qp.p),
        np.zeros(qp.m),
        none,
        none,
        dcones=[None] * len(problem.cones),
    )
    return a.z


def assert_same(name, problem, length, objective, rows):
    solver = get_solver(name, "cone")
    expected = solver.solve(problem)
    assert expected.status is SolveStatus.SOLVED and expected.kkt_norm <= 1e-11
    moved = in_other_units(problem, length=length, objective=objective, rows=rows)
    found = solver.solve(moved)
    assert found.status is SolveStatus.SOLVED and found.kkt_norm <= 1e-11
    size = np.abs(expected.z).max()
    np.testing.assert_allclose(found.z / length, expected.z, rtol=0, atol=1e-8 * size)
    weight = np.arange(1.0, problem.n + 1)
    gradients = gradient_in_q(problem, expected, weight), gradient_in_q(moved, found, weight)
    # Zero at a vertex, where the units say what is small.
    unit = problem.scaling.length / problem.scaling.gradient
    size = max(np.abs(gradients[0]).max(), unit * problem.n)
    np.testing.assert_allclose(
        gradients[1] * (objective / length**2), gradients[0], rtol=0, atol=1e-6 * size
    )


@EACH_SOLVER
@given(seed=SEEDS, length=POWERS, objective=POWERS, alone=st.sampled_from("zorza"))
@settings(max_examples=20, deadline=None)
def test_other_units_change_no_answer(name, seed, length, objective, alone):
    assert_same(
        name,
        program(seed),
        10.0**length if alone in "za" else 1.0,
        10.0**objective if alone in "oa" else 1.0,
        seed if alone in "ra" else None,
    )


def without_solution(seed: int) -> tuple[SOCP, SolveStatus]:
    """A ball that misses a half-space or a plane, and an objective that falls for ever."""
    rng = np.random.default_rng(seed)
    n, r = int(rng.integers(2, 7)), 0.1 + rng.random()
    a, row = rng.normal(size=n), rng.normal(size=n)
    q, away = rng.normal(size=n), 1.2 * r * np.linalg.norm(row)
    ball = (None, -a, None, r)
    if seed % 3 == 0:
        qp = QP(np.eye(n), q, G=row[None], h=[row @ a - away])
        return SOCP(qp, [ball, (None, None, None, 90.0)]), SolveStatus.PRIMAL_INFEASIBLE
    if seed % 3 == 1:
        qp = QP(linear(n), q, A=row[None], b=[row @ a + away], lb=a - 2 * r, ub=a + 2 * r)
        return SOCP(qp, [ball]), SolveStatus.PRIMAL_INFEASIBLE
    one = np.ones(n)
    cone = (None, a, 1.5 * one, 1.0 + np.linalg.norm(a))
    return SOCP(QP(linear(n), 0.1 * q / n - one), [cone]), SolveStatus.DUAL_INFEASIBLE


@EACH_SOLVER
@given(seed=SEEDS, length=POWERS, objective=POWERS)
@settings(max_examples=15, deadline=None)
def test_other_units_change_no_verdict(name, seed, length, objective):
    problem, expected = without_solution(seed)
    moved = in_other_units(problem, length=10.0**length, objective=10.0**objective, rows=seed)
    assert get_solver(name, "cone").solve(problem).status is expected
    assert get_solver(name, "cone").solve(moved).status is expected


@EACH_SOLVER
@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_an_indefinite_objective_is_bad_data(name, thin, size):
    # The saddle (−.3, .1) has KKT residuals of zero; the least is at (−.3, −1).
    P = size * np.diag([1.0, -1.0])
    P = sparse.csr_array(P) if thin else P
    qp = QP(P, size * np.array([0.3, 0.1]), lb=-np.ones(2), ub=np.ones(2))
    found = get_solver(name, "cone").solve(SOCP(qp, [(None, None, None, 9.0)]))
    assert found.status is SolveStatus.BAD_DATA and np.isnan(found.z).all()


@EACH_SOLVER
@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_no_indefinite_objective_is_solved(name, seed):
    problem = program(seed)
    rng = np.random.default_rng(seed)
    n, qp = problem.n, problem.qp
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    values = rng.random(n)
    values[0] = -0.01 - rng.random()
    bent = QP((basis * values) @ basis.T, qp.q, qp.A, qp.b, qp.G, qp.h, qp.lb, qp.ub)
    assert not get_solver(name, "cone").solve(SOCP(bent, problem.cones)).status.usable
