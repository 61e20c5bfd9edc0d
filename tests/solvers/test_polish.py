"""Polishing: whichever solver answered, the point is the exact one of its active set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.problems import QP, Solution, SolveStatus
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver
from bpqp_portfolio.solvers.common.finalize import finalize

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))


def held(P, q, sums):
    """argmin ½ zᵀPz + qᵀz for a diagonal P where the z in each part add up to a number."""
    z = np.empty(len(q))
    for part, total in sums:
        d = P.diagonal()[part]
        nu = -(total + (q[part] / d).sum()) / (1.0 / d).sum()
        z[part] = -(q[part] + nu) / d
    return z


@EACH_SOLVER
def test_two_rows_that_are_one_given_the_budget(name):
    # z₁ + z₂ ≤ .4 and z₃ + z₄ ≥ .6 say the same where 1ᵀz = 1. Closed form by hand.
    problem = QP(
        np.diag([1.0, 2.0, 3.0, 4.0]),
        np.array([-3.0, 1.0, 0.0, 2.0]),
        np.ones((1, 4)),
        np.ones(1),
        np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -1.0]]),
        np.array([0.4, -0.6]),
    )
    found = get_solver(name).solve(problem)
    assert found.status is SolveStatus.SOLVED and found.solver == (
        name if name != "auto" else "dense"
    )
    np.testing.assert_allclose(found.z, [1.6, -1.2, 22 / 35, -1 / 35], atol=1e-10)


@EACH_SOLVER
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_two_rows_that_are_one(name, seed):
    rng = np.random.default_rng(seed)
    n = 6
    P = np.diag(rng.uniform(0.5, 3.0, n))
    q, split = rng.normal(size=n), rng.uniform(0.2, 0.8)
    first = (np.arange(n) < 3) * 1.0
    G = np.stack([first, first - 1.0])
    problem = QP(P, q, np.ones((1, n)), np.ones(1), G, np.array([split, split - 1.0]))
    # Given the budget the two rows are one: it binds, or only the budget does.
    z = held(P, q, [(np.arange(n) >= 0, 1.0)])
    if z[first > 0].sum() > split:
        z = held(P, q, [(first > 0, split), (first == 0, 1.0 - split)])
    found = get_solver(name).solve(problem)
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, z, atol=1e-9)


@EACH_SOLVER
@pytest.mark.parametrize("n", [3, 10, 30])
def test_caps_that_add_up_to_the_budget(name, n):
    rng = np.random.default_rng(n)
    caps = rng.uniform(0.5, 1.5, n)
    caps /= caps.sum()
    B = rng.normal(size=(n, n))
    problem = QP(B @ B.T, rng.normal(size=n), np.ones((1, n)), np.ones(1), lb=np.zeros(n), ub=caps)
    found = get_solver(name).solve(problem)
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, caps, atol=1e-9)


@EACH_SOLVER
def test_least_squares_with_its_residual_as_a_variable(name):
    rng = np.random.default_rng(0)
    R, y = rng.normal(size=(20, 15)), rng.normal(size=20)
    P = np.diag(np.r_[np.zeros(15), np.ones(20)])
    found = get_solver(name).solve(QP(P, np.zeros(35), np.hstack([R, np.eye(20)]), y))
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z[:15], np.linalg.lstsq(R, y)[0], atol=1e-10)


@EACH_SOLVER
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), tiny=st.floats(-6.0, -2.0), active=st.booleans())
def test_a_row_that_is_nearly_active(name, seed, tiny, active):
    # One row has a dual, or a slack, of 1e-6 to 1e-2.
    rng = np.random.default_rng(seed)
    n, m = 5, 3
    B = rng.normal(size=(n, n))
    P, G, z = B @ B.T + np.eye(n), rng.normal(size=(m, n)), rng.normal(size=n)
    lam, slack = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    (lam if active else slack)[2] = 10.0**tiny
    found = get_solver(name).solve(QP(P, -(P @ z) - G.T @ lam, G=G, h=G @ z + slack))
    assert found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, z, atol=1e-9 * max(1.0, np.abs(z).max()))
    np.testing.assert_allclose(found.lam, lam, atol=1e-9)


def test_a_wrong_guess_of_the_active_set_is_corrected():
    # min (z − 2)²/2 in [0, 1]² from a point that looks inactive: λ = 1e-4 beside a slack of 6e-5.
    problem = QP(np.eye(2), np.array([-1.0001, -0.5]), lb=np.zeros(2), ub=np.ones(2))
    near = np.array([0.99994, 0.5]), np.zeros(0), np.zeros(0), np.zeros(2), np.array([2e-5, 0.0])
    found = finalize(problem, *near, iterations=1, solver="test", options=SolverOptions())
    assert isinstance(found, Solution) and found.status is SolveStatus.SOLVED
    np.testing.assert_allclose(found.z, [1.0, 0.5], atol=1e-15)
    np.testing.assert_allclose(found.lam_ub, [1e-4, 0.0], atol=1e-12)


def test_a_vertex_where_more_rows_meet_than_needed():
    # All of z ≥ 0, 1ᵀz ≥ 0 and z₁ ≥ −z₂ hold at 0, the solution; duals are not unique.
    G = -np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    problem = QP(np.zeros((3, 3)), np.ones(3), G=G, h=np.zeros(2), lb=np.zeros(3))
    for name in available_solvers("qp"):
        found = get_solver(name).solve(problem)
        assert found.status is SolveStatus.SOLVED
        np.testing.assert_array_equal(found.z, 0.0)
