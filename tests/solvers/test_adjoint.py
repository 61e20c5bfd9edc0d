"""The backward QP by itself: a known answer, every solver alike, and a solver that fails."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.errors import SolverError
from bpqp_portfolio.problems import QP, reference_problems
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver
from bpqp_portfolio.solvers.qp.adjoint import adjoint

BACKWARD = pytest.mark.parametrize("backward", (None, *available_solvers("qp")))


def solved(problem):
    return get_solver("clarabel").solve(problem, options=SolverOptions())


def by(backward, problem, solution, dz, **options):
    zeros = (np.zeros(k) for k in (problem.p, problem.m, problem.n, problem.n))
    solver = None if backward is None else get_solver(backward)
    return adjoint(problem, solution, dz, *zeros, solver=solver, options=SolverOptions(**options))


@BACKWARD
def test_simplex(backward):
    """On the support {1, 2}: z̃ = −(r − mean r), ν̃ = −mean r; at the bound the slope r₃ + ν̃."""
    problem = next(r.problem for r in reference_problems() if r.name == "simplex")
    found = by(backward, problem, solved(problem), np.array([1.0, 3.0, 7.0]))
    np.testing.assert_allclose(found.z, [1.0, -1.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(found.nu, [-2.0], atol=1e-7)
    np.testing.assert_allclose(found.lb, [0.0, 0.0, 5.0], atol=1e-7)
    np.testing.assert_array_equal(found.ub, np.zeros(3))


@BACKWARD
def test_the_backward_qp_is_stationary_and_inactive_rows_are_zero(backward):
    rng = np.random.default_rng(0)
    n = 12
    X, G, z0 = rng.normal(size=(n, n)), rng.normal(size=(6, n)), rng.normal(size=n)
    h = G @ z0 + np.array([0, 0, 0, 9, 9, 9])
    A = rng.normal(size=(2, n))
    problem = QP(X @ X.T, rng.normal(size=n), A, A @ z0, G, h, z0 - 0.3, z0 + 0.3)
    solution, r = solved(problem), rng.normal(size=n)
    found = by(backward, problem, solution, r)
    slope = problem.P @ found.z + r + A.T @ found.nu + G.T @ found.lam
    np.testing.assert_allclose(slope, found.lb + found.ub, atol=1e-6)
    np.testing.assert_allclose(A @ found.z, 0, atol=1e-7)
    active = solution.lam > 0
    assert active.any() and not active.all()
    np.testing.assert_allclose(G[active] @ found.z, 0, atol=1e-7)
    np.testing.assert_array_equal(found.lam[~active], 0)
    bound = (solution.lam_lb > 0) | (solution.lam_ub > 0)
    assert bound.any() and (found.z[bound] == 0).all()


def test_an_iterative_backward_is_not_the_direct_one_in_disguise():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8, 8))
    problem = QP(X @ X.T, rng.normal(size=8), np.ones((1, 8)), [1.0])
    solution, r = solved(problem), rng.normal(size=8)
    exact, loose = (
        by(None, problem, solution, r).z,
        by("osqp", problem, solution, r, tolerance=1e-4).z,
    )
    error = np.abs(exact - loose).max()
    assert 1e-12 < error < 1e-2 * np.abs(exact).max()


def test_a_solver_that_stops_early_is_an_error():
    problem = next(r.problem for r in reference_problems() if r.name == "simplex")
    with pytest.raises(
        SolverError, match=r"osqp: the backward QP \(2 free .* Use backward=\"kkt\""
    ):
        by("osqp", problem, solved(problem), np.array([1.0, 3.0, 7.0]), max_iterations=1)


def test_a_gradient_that_is_not_finite_stays_so():
    problem = next(r.problem for r in reference_problems() if r.name == "equality")
    for backward in (None, *available_solvers("qp")):
        assert np.isnan(by(backward, problem, solved(problem), np.array([np.nan, 0, 0])).z).all()
