"""Dense, sparse and factor matrices: every operation is that of the dense matrix."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from bpqp_portfolio.problems.matrices import (
    FactorMatrix,
    block,
    is_sparse,
    largest,
    row_sizes,
    same,
    scale_rows,
    stack_rows,
    times,
    times_transposed,
    to_dense,
    to_sparse,
)

NUMBERS = st.floats(-100, 100, allow_subnormal=False)
KINDS = ("dense", "sparse", "factor")


@st.composite
def matrices(draw, kind=None):
    """A square matrix of any kind, psd where it is a FactorMatrix, and the same dense."""
    n = draw(st.integers(1, 6))
    kind = kind or draw(st.sampled_from(KINDS))
    if kind == "factor":
        B = draw(arrays(float, (n, draw(st.integers(0, 4))), elements=NUMBERS))
        d = draw(arrays(float, n, elements=st.floats(0, 100)))
        return FactorMatrix(B, d), B @ B.T + np.diag(d)
    dense = draw(arrays(float, (n, n), elements=st.sampled_from([0.0, 0.0, 1.0, -2.5, 7.0])))
    return (sparse.csr_array(dense) if kind == "sparse" else dense), dense


def close(one, other):
    scale = max(1.0, float(np.abs(other).max(initial=0.0)))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * scale)


@given(matrices(), st.data())
def test_products(pair, data):
    matrix, dense = pair
    z = data.draw(arrays(float, len(dense), elements=NUMBERS))
    close(times(matrix, z), dense @ z)
    close(matrix @ np.stack([z, 2 * z], axis=1), dense @ np.stack([z, 2 * z], axis=1))
    if not isinstance(matrix, FactorMatrix):
        close(times_transposed(matrix, z), dense.T @ z)


@given(matrices())
def test_conversions(pair):
    matrix, dense = pair
    close(to_dense(matrix), dense)
    found = to_sparse(matrix)
    assert is_sparse(found) and found.format == "csr"
    close(found.toarray(), dense)
    if not is_sparse(matrix):
        assert found.nnz == np.count_nonzero(to_dense(matrix))
    assert matrix.shape == dense.shape


@given(matrices(), st.data())
def test_blocks(pair, data):
    """Any rows and columns, the diagonal's entries at their places, none included."""
    matrix, dense = pair
    rows, columns = (data.draw(arrays(bool, len(dense))) for _ in range(2))
    found = block(matrix, rows, columns)
    assert is_sparse(found) == is_sparse(matrix)
    close(to_dense(found), dense[np.ix_(rows, columns)])


@given(matrices())
def test_sizes(pair):
    matrix, dense = pair
    assert largest(matrix) == pytest.approx(np.abs(dense).max())
    if not isinstance(matrix, FactorMatrix):
        expected = np.abs(dense).max(1)
        np.testing.assert_array_equal(row_sizes(matrix), np.where(expected > 0, expected, 1.0))


@given(matrices("factor"), st.floats(1e-3, 1e3))
def test_a_factor_matrix_divided_by_a_number(pair, number):
    matrix, dense = pair
    found = matrix / number
    assert isinstance(found, FactorMatrix)
    close(to_dense(found), dense / number)


@given(matrices("dense"), matrices("dense"), st.booleans(), st.booleans(), st.data())
def test_rows_above_each_other(first, second, first_sparse, second_sparse, data):
    n = min(len(first[1]), len(second[1]))
    A, G = first[1][:, :n], second[1][:, :n]
    chosen = data.draw(arrays(bool, len(G)))
    given_A = sparse.csr_array(A) if first_sparse else A
    given_G = sparse.csr_array(G) if second_sparse else G
    found = stack_rows(given_A, given_G, chosen)
    assert is_sparse(found) == (first_sparse or second_sparse)
    close(to_dense(found), np.concatenate([A, G[chosen]]))


@given(matrices(), st.data())
def test_scaled_rows(pair, data):
    matrix, dense = pair
    if isinstance(matrix, FactorMatrix):
        matrix = to_dense(matrix)
    factors = data.draw(arrays(float, len(dense), elements=st.floats(0.1, 10)))
    close(to_dense(scale_rows(matrix, factors)), factors[:, None] * dense)


@given(matrices(), matrices())
def test_same_is_kind_and_entries(first, second):
    matrix, dense = first
    assert same(matrix, matrix) and same(matrix, deepcopy(matrix))
    other = second[0]
    if type(matrix) is not type(other):
        assert not same(matrix, other)
    elif same(matrix, other):
        np.testing.assert_array_equal(dense, second[1])
    changed = deepcopy(matrix)
    if isinstance(matrix, FactorMatrix):
        changed.d[-1] += 1.0
    elif is_sparse(matrix):
        changed = sparse.csr_array(changed + sparse.eye_array(len(dense)))
    else:
        changed[-1, -1] += 1.0
    assert not same(matrix, changed)


@pytest.mark.parametrize("make", [np.zeros, sparse.csr_array])
def test_no_rows_at_all(make):
    """Absent constraints: zero rows of any width."""
    empty, dense = make((0, 3)), np.eye(3)
    assert largest(empty) == 0.0 and row_sizes(empty).shape == (0,)
    assert times(empty, np.ones(3)).shape == (0,)
    np.testing.assert_array_equal(times_transposed(empty, np.zeros(0)), np.zeros(3))
    assert scale_rows(empty, np.zeros(0)).shape == (0, 3)
    np.testing.assert_array_equal(to_dense(stack_rows(empty, dense, np.ones(3, bool))), dense)
    assert block(empty, np.zeros(0, bool), np.ones(3, bool)).shape == (0, 3)


def test_products_of_a_batch():
    rng = np.random.default_rng(0)
    M, z, y = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    close(times(M, z), np.stack([a @ b for a, b in zip(M, z, strict=True)]))
    close(times_transposed(M, y), np.stack([a.T @ b for a, b in zip(M, y, strict=True)]))
    # One matrix for all items.
    close(times(M[:1], z), z @ M[0].T)
    close(times_transposed(M[:1], y), y @ M[0])
