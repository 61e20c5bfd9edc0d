"""QPStack: arrays of several problems, shared matrices once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from bpqp_portfolio.problems import QP, kkt_residuals
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.qp import ARGUMENTS
from bpqp_portfolio.problems.stack import QPStack, together

N = 4


def problem(seed, P=None, G=None):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, N))
    return QP(
        X @ X.T if P is None else P,
        rng.normal(size=N),
        rng.normal(size=(1, N)),
        rng.normal(size=1),
        rng.normal(size=(2, N)) if G is None else G,
        rng.normal(size=2),
        lb=-rng.random(N),
    )


@pytest.mark.parametrize("items", [1, 3])
def test_every_field_has_the_items_first(items):
    problems = [problem(seed) for seed in range(items)]
    stack = QPStack.of(problems)
    assert len(stack) == items
    for name in ARGUMENTS:
        expected = np.stack([getattr(p, name) for p in problems])
        np.testing.assert_array_equal(getattr(stack, name), expected, err_msg=name)


def test_a_shared_matrix_is_kept_once_and_equal_ones_are_not_compared():
    first = problem(0)
    shared = [QP(first.P, p.q, first.A, p.b, p.G, p.h) for p in (problem(1), problem(2))]
    # QP keeps the arrays that it is given.
    stack = QPStack.of(shared)
    assert stack.P.shape == (1, N, N) and stack.A.shape == (1, 1, N)
    assert stack.G.shape == (2, 2, N) and stack.q.shape == (2, N)


def test_sparse_and_factor_matrices_become_dense():
    B, d = np.ones((N, 1)), np.arange(1.0, N + 1)
    G = sparse.csr_array(np.eye(2, N))
    stack = QPStack.of([problem(0, FactorMatrix(B, d), G), problem(1, FactorMatrix(2 * B, d), G)])
    np.testing.assert_allclose(stack.P, [np.diag(d) + 1.0, np.diag(d) + 4.0])
    np.testing.assert_array_equal(stack.G, [np.eye(2, N)] * 2)


@pytest.mark.parametrize("share", [True, False])
def test_residuals_of_a_stack_are_those_of_its_problems(share):
    problems = [problem(seed) for seed in range(3)]
    if share:
        problems = [QP(problems[0].P, *(getattr(p, k) for k in ARGUMENTS[1:])) for p in problems]
    rng = np.random.default_rng(9)
    point = [rng.normal(size=(3, k)) for k in (N, 1)] + [rng.random((3, k)) for k in (2, N)]
    point.append(np.zeros((3, N)))
    found = kkt_residuals(QPStack.of(problems), *point)
    for i, one in enumerate(problems):
        expected = kkt_residuals(one, *(part[i] for part in point))
        for name in ("stationarity", "primal", "dual", "complementarity"):
            assert getattr(found, name)[i] == pytest.approx(getattr(expected, name)), name


def test_bounded_if_one_is():
    free = QP(np.eye(2), np.ones(2))
    box = QP(np.eye(2), np.ones(2), ub=[1.0, np.inf])
    assert not QPStack.of([free, free]).bounded
    assert QPStack.of([free, box]).bounded and QPStack.of([box]).bounded


def test_a_single_array_is_not_copied():
    array = np.ones(3)
    assert np.shares_memory(together([array]), array)
    assert together([array, array]).shape == (2, 3)
