"""Every solver of cone programs on closed forms and random programs, judged by residuals."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from bpqp_portfolio import ConfigError, SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.socp import SOCP, linear
from bpqp_portfolio.solvers.common.protocol import SolverOptions
from bpqp_portfolio.solvers.conic.certificates import describe_infeasibility
from bpqp_portfolio.solvers.registry import available_solvers, get_solver

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("cone"))


def random_program(seed: int, *, quadratic: bool = True) -> SOCP:
    """Every kind of constraint around a strictly feasible point, on a bounded set."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    inside = rng.normal(size=n)
    cones = []
    for r in (1, 3, n):
        F = None if r == n else rng.normal(size=(r, n))
        g, c = rng.normal(size=r), 0.3 * rng.normal(size=n)
        norm = np.linalg.norm((inside if F is None else F @ inside) + g)
        cones.append((F, g, c, norm - c @ inside + rng.random()))
    A, G = rng.normal(size=(1, n)), rng.normal(size=(2, n))
    B = rng.normal(size=(n, n))
    linear_part = QP(
        B @ B.T if quadratic else linear(n),
        3 * rng.normal(size=n),
        A,
        A @ inside,
        G,
        G @ inside + rng.random(2),
        inside - rng.random(n),
        inside + rng.random(n),
    )
    return SOCP(linear_part, cones)


def by_cvxpy(problem: SOCP) -> float:
    """The optimal value by cvxpy."""
    qp, z = problem.qp, cp.Variable(problem.n)
    P = np.zeros((problem.n, problem.n)) if isinstance(qp.P, FactorMatrix) else qp.P
    rows = [qp.A @ z == qp.b, qp.G @ z <= qp.h, z >= qp.lb, z <= qp.ub]
    for F, g, c, d in problem.cones:
        rows.append(cp.norm((z if F is None else F @ z) + g) <= c @ z + d)
    model = cp.Problem(cp.Minimize(0.5 * cp.quad_form(z, cp.psd_wrap(P)) + qp.q @ z), rows)
    return model.solve(solver="CLARABEL")


@EACH_SOLVER
@given(seed=st.integers(0, 10_000), quadratic=st.booleans())
@settings(max_examples=15, deadline=None)
def test_random_programs_agree_with_cvxpy(name, seed, quadratic):
    problem = random_program(seed, quadratic=quadratic)
    solution = get_solver(name, "cone").solve(problem)
    assert solution.status is SolveStatus.SOLVED
    assert solution.residuals(problem).norm == pytest.approx(solution.kkt_norm, abs=1e-14)
    value = by_cvxpy(problem)
    assert problem.objective(solution.z) == pytest.approx(value, rel=1e-6, abs=1e-6)


@EACH_SOLVER
@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_linear_objective_on_a_ball(name, n, size):
    q = size * np.random.default_rng(n).normal(size=n)
    solution = get_solver(name, "cone").solve(SOCP(QP(linear(n), q), [(None, None, None, 2.0)]))
    assert solution.status is SolveStatus.SOLVED
    np.testing.assert_allclose(solution.z, -2 * q / np.linalg.norm(q), rtol=1e-10, atol=1e-12)
    dual = np.concatenate([[np.linalg.norm(q)], q])
    np.testing.assert_allclose(solution.cone_duals[0], dual, rtol=1e-10, atol=1e-12 * size)


@EACH_SOLVER
def test_robust_linear_program(name):
    # max z₁ s.t. z₁ + κ‖z‖ ≤ 1 and −z₁ + κ‖z‖ ≤ 1: z = (1/(1 + κ), 0), dual 1/(1 + κ) on the first.
    a, kappa = np.array([1.0, 0.0]), 0.5
    F = kappa * np.eye(2)
    problem = SOCP(QP(linear(2), -a), [(F, None, -a, 1.0), (F, None, a, 1.0)])
    solution = get_solver(name, "cone").solve(problem)
    np.testing.assert_allclose(solution.z, [1 / 1.5, 0.0], atol=1e-10)
    np.testing.assert_allclose(solution.cone_duals[0], [1 / 1.5, -1 / 1.5, 0.0], atol=1e-10)
    np.testing.assert_allclose(solution.cone_duals[1], 0.0, atol=1e-10)


@EACH_SOLVER
def test_the_apex(name):
    # min ½‖x − p‖² + t s.t. ‖x‖ ≤ t: soft thresholding, x = 0 while ‖p‖ < 1.
    F = np.eye(3, 4)
    t = np.array([0.0, 0.0, 0.0, 1.0])
    p = np.array([0.3, -0.2, 0.1])
    for scale, expected in ((1.0, np.zeros(3)), (10.0, 10 * p * (1 - 1 / np.linalg.norm(10 * p)))):
        q = np.concatenate([-scale * p, [1.0]])
        problem = SOCP(QP(np.diag([1.0, 1.0, 1.0, 0.0]), q), [(F, None, t, 0.0)])
        solution = get_solver(name, "cone").solve(problem)
        assert solution.status is SolveStatus.SOLVED
        np.testing.assert_allclose(solution.z[:3], expected, atol=1e-9)


@EACH_SOLVER
def test_cones_without_a_norm_and_bounds_that_are_equal(name):
    # r = 0 is cᵀz + d ≥ 0; z₁ is fixed at 0.6.
    cones = [(np.zeros((0, 2)), None, np.array([0.0, -1.0]), 0.5), (None, None, None, 1.0)]
    qp = QP(linear(2), [0.0, -1.0], lb=[0.6, -np.inf], ub=[0.6, np.inf])
    solution = get_solver(name, "cone").solve(SOCP(qp, cones))
    np.testing.assert_allclose(solution.z, [0.6, 0.5], atol=1e-10)
    np.testing.assert_allclose(solution.cone_duals[0], [1.0], atol=1e-10)


@EACH_SOLVER
def test_a_program_without_cones_is_a_qp(name):
    qp = QP(np.eye(2), [-2.0, -2.0], G=[[1.0, 1.0]], h=[2.0])
    solution = get_solver(name, "cone").solve(SOCP(qp, []))
    np.testing.assert_allclose(solution.z, [1.0, 1.0], atol=1e-10)
    assert solution.cone_duals == ()


@EACH_SOLVER
def test_sparse_and_dense_data_have_one_answer(name):
    dense = random_program(3)
    cones = [(None if F is None else sparse.csr_array(F), *rest) for F, *rest in dense.cones]
    qp = dense.qp
    matrices = [sparse.csr_array(v) for v in (qp.P, qp.A, qp.G)]
    thin = SOCP(QP(matrices[0], qp.q, matrices[1], qp.b, matrices[2], qp.h, qp.lb, qp.ub), cones)
    expected = get_solver(name, "cone").solve(dense)
    found = get_solver(name, "cone").solve(thin)
    np.testing.assert_allclose(found.z, expected.z, rtol=1e-10, atol=1e-10)


@EACH_SOLVER
def test_primal_infeasibility_comes_with_a_certificate(name):
    # ‖z‖ ≤ 1 and z ≥ 2; the second cone has nothing to do with it.
    cones = [(None, None, None, 1.0), (None, None, None, 9.0)]
    problem = SOCP(QP(linear(3), np.ones(3), lb=np.full(3, 2.0)), cones)
    s = get_solver(name, "cone").solve(problem)
    assert s.status is SolveStatus.PRIMAL_INFEASIBLE and np.isnan(s.z).all()
    pull = -s.lam_lb - sum(dual[1:] for dual in s.cone_duals)
    np.testing.assert_allclose(pull, 0.0, atol=1e-6)
    value = -2.0 * s.lam_lb.sum() + 1.0 * s.cone_duals[0][0] + 9.0 * s.cone_duals[1][0]
    assert value < -0.1
    assert all(d[0] >= np.linalg.norm(d[1:]) - 1e-12 for d in s.cone_duals)
    largest = max(np.abs(v).max() for v in (s.lam_lb, *s.cone_duals))
    assert 0.9 <= largest <= 1.0 + 1e-12
    text = describe_infeasibility(problem, s)
    assert "lower bounds of 0, 1, 2" in text and text.endswith(("cone 0", "cones 0, 1"))


@EACH_SOLVER
def test_dual_infeasibility_comes_with_a_direction(name):
    # ‖z‖ ≤ 1ᵀz + 1 contains the direction of 1.
    problem = SOCP(QP(linear(3), -np.ones(3)), [(None, None, np.ones(3), 1.0)])
    s = get_solver(name, "cone").solve(problem)
    assert s.status is SolveStatus.DUAL_INFEASIBLE
    assert np.abs(s.z).max() == pytest.approx(1.0)
    assert problem.qp.q @ s.z < -0.5 and np.linalg.norm(s.z) <= s.z.sum() + 1e-6


def test_unknown_settings_are_refused():
    problem = random_program(0)
    with pytest.raises(ConfigError, match="max_iter"):
        get_solver("clarabel", "cone").solve(problem, options=SolverOptions(native={"max_itr": 3}))
    with pytest.raises(ConfigError, match=r"max_iter"):
        get_solver("scs", "cone").solve(problem, options=SolverOptions(native={"max_iterss": 3}))
    with pytest.raises(ConfigError, match="clarabel"):
        get_solver("clarabell", "cone")


@EACH_SOLVER
def test_stopping_early_is_reported(name):
    options = SolverOptions(max_iterations=1, polish=False)
    solution = get_solver(name, "cone").solve(random_program(5), options=options)
    assert not solution.status.usable
