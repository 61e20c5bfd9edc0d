"""Sparse matrices and B Bᵀ + diag(d): the answers are those of the same numbers, dense."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from bpqp_portfolio.problems import QP, SolveStatus
from bpqp_portfolio.problems.matrices import (
    FactorMatrix,
    is_positive_semidefinite,
    is_sparse,
    to_dense,
)
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver
from bpqp_portfolio.solvers.common.standard_form import StandardForm, csc, upper_triangle

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))


def factor_problem(n, k, *, zero_d=0):
    rng = np.random.default_rng([n, k])
    d = 0.2 + rng.random(n)
    d[:zero_d] = 0.0
    G = np.round(rng.normal(size=(3, n)))
    return QP(
        FactorMatrix(rng.normal(size=(n, k)), d),
        rng.normal(size=n),
        np.ones((1, n)),
        [1.0],
        G,
        np.ones(3),
        np.zeros(n),
        np.where(rng.random(n) < 0.3, np.inf, 0.3),
    )


def sparse_problem(n):
    rng = np.random.default_rng(n)
    X = sparse.random_array((n, n), density=2 / n, rng=rng)
    G = sparse.random_array((n // 2, n), density=3 / n, rng=rng)
    return QP(
        X @ X.T + 0.1 * sparse.eye_array(n),
        rng.normal(size=n),
        sparse.csr_array(np.ones((1, n))),
        [1.0],
        G,
        np.full(n // 2, 0.5),
        lb=np.full(n, -1.0),
    )


PROBLEMS = {
    "few factors": factor_problem(20, 3),
    "many factors": factor_problem(8, 6),
    "no specific variance": factor_problem(20, 3, zero_d=2),
    "diagonal": factor_problem(10, 0),
    "sparse": sparse_problem(30),
    "sparse G only": QP(
        np.eye(3), -np.ones(3), G=sparse.csr_array([[1.0, 0.0, 1.0]]), h=[0.5], lb=np.zeros(3)
    ),
    "dense P, sparse A": QP(np.eye(3), np.zeros(3), sparse.csr_array([[1.0, 1.0, 1.0]]), [1.0]),
    "rows of zeros": QP(
        sparse.csr_array((3, 3)),
        [1.0, 2.0, 3.0],
        sparse.csr_array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
        [1.0, 0.0],
        lb=np.zeros(3),
    ),
}


def formed(problem):
    """The same problem with dense matrices."""
    p = problem
    P, A, G = (to_dense(matrix) for matrix in (p.P, p.A, p.G))
    return QP(P, p.q, A, p.b, G, p.h, p.lb, p.ub)


@EACH_SOLVER
@pytest.mark.parametrize("polish", [True, False])
@pytest.mark.parametrize("case", PROBLEMS)
def test_any_form_has_the_dense_answer(name, case, polish):
    problem = PROBLEMS[case]
    solver, options = get_solver(name), SolverOptions(polish=polish)
    found, expected = (solver.solve(p, options=options) for p in (problem, formed(problem)))
    assert found.status is expected.status is SolveStatus.SOLVED
    assert found.kkt_norm <= 1e-7
    # A solver may measure it on the formed matrix.
    assert found.residuals(problem).norm == pytest.approx(found.kkt_norm, abs=1e-14)
    tolerance = 1e-8 if polish else 1e-4
    np.testing.assert_allclose(found.z, expected.z, rtol=0, atol=tolerance)
    value = problem.objective(found.z), formed(problem).objective(expected.z)
    assert value[0] == pytest.approx(value[1], abs=1e-10 if polish else 1e-6)


@pytest.mark.parametrize("case", PROBLEMS)
def test_the_lifted_problem_is_the_same(case):
    problem = PROBLEMS[case]
    form = StandardForm.of(problem)
    k = form.size - problem.n
    z = np.random.default_rng(0).normal(size=problem.n)
    # The y that meets the added rows.
    y = np.zeros(k)
    if k:
        y = form.A[form.p :, : problem.n] @ z
        np.testing.assert_allclose((form.A @ np.concatenate([z, y]))[form.p :], 0.0, atol=1e-15)
    units = form.units
    x, v = np.concatenate([z, y]) / units.length, form.vectors(problem)
    value = (0.5 * x @ (form.P @ x) + v.q @ x) * units.gradient * units.length
    assert value == pytest.approx(problem.objective(z), rel=1e-12)
    rows = (form.A @ x - v.b)[: form.p] * units.rows_A * units.length
    np.testing.assert_allclose(rows, problem.A @ z - problem.b, atol=1e-13)


def test_what_is_sparse_stays_sparse():
    for case, problem in PROBLEMS.items():
        form = StandardForm.of(problem)
        assert form.sparse is (case != "many factors")
        assert all(is_sparse(m) is form.sparse for m in (form.P, form.A, form.G))
        assert not StandardForm.of(problem, lift=False).sparse
    n, k = 400, 5
    form = StandardForm.of(factor_problem(n, k))
    assert form.size == n + k and form.P.nnz == n + k
    assert form.A.nnz <= n + k * (n + 1)


def test_large_factor_problems_are_never_formed():
    """Formed, P alone would have 3.2 GB."""
    n = 20_000
    rng = np.random.default_rng(0)
    problem = QP(
        FactorMatrix(0.01 * rng.normal(size=(n, 2)), np.full(n, 1e-4)),
        np.zeros(n),
        np.ones((1, n)),
        [1.0],
    )
    options = SolverOptions(polish=False)
    assert get_solver("clarabel").solve(problem, options=options).status is SolveStatus.SOLVED


def test_stacks_and_triangles():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(2, 4)) * (rng.random((2, 4)) < 0.6)
    stack = csc([dense, (np.array([3, 1]), -1.0), sparse.csr_array(dense), dense[:0]], 4)
    expected = np.concatenate([dense, -np.eye(4)[[3, 1]], dense])
    np.testing.assert_array_equal(stack.toarray(), expected)
    assert stack.format == "csc" and stack.has_sorted_indices
    S = dense.T @ dense
    for matrix in (S, sparse.csr_array(S)):
        upper = upper_triangle(matrix)
        np.testing.assert_array_equal(upper.toarray(), np.triu(S))
        assert upper.format == "csc"


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_convexity(form):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 3))
    S = X @ X.T / 6
    assert (
        is_positive_semidefinite(form(S))
        and is_positive_semidefinite(form(np.zeros((2, 2))))
        and is_positive_semidefinite(form(np.eye(2)))
    )
    assert is_positive_semidefinite(form(S - 1e-12 * np.eye(6)))  # indefinite by rounding
    assert not is_positive_semidefinite(form(S - 1e-3 * np.eye(6)))
    assert not is_positive_semidefinite(form(np.diag([1.0, -1e-3])))
    assert not is_positive_semidefinite(form(np.array([[0.0, 1.0], [1.0, 0.0]])))


@EACH_SOLVER
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_saddles_are_not_called_solved(name, form):
    """Indefinite with a positive diagonal, at a stationary point that is no minimum."""
    problem = QP(form(np.array([[1.0, 3.0], [3.0, 1.0]])), [-4.0, -4.0])
    assert not get_solver(name).solve(problem).status.usable
