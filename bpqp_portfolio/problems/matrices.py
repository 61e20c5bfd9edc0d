"""The matrices of a problem: dense arrays, sparse ones, and B Bᵀ + diag(d) never formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse.linalg import splu

Array = np.ndarray
# An ndarray or a scipy.sparse.csr_array; P may be a FactorMatrix as well.
Matrix = Any

# How far below 0, relative to its largest entry, rounding may put the eigenvalues of a positive
# semidefinite matrix that was computed in double or in single precision.
_DOUBLE, _SINGLE = 1e-9, 1e-5


@dataclass(frozen=True, eq=False)
class FactorMatrix:
    """B Bᵀ + diag(d), with B (n, k) and d (n,); a diagonal matrix has k = 0."""

    B: Array
    d: Array

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return len(self.d), len(self.d)

    def __matmul__(self, z: Array) -> Array:
        d = self.d if z.ndim == 1 else self.d[:, None]
        return self.B @ (self.B.T @ z) + d * z

    def __truediv__(self, number: float) -> FactorMatrix:
        return FactorMatrix(self.B / np.sqrt(number), self.d / number)


def is_sparse(matrix: Matrix) -> bool:
    """Whether ``matrix`` is a scipy sparse array."""
    return sparse.issparse(matrix)


def to_dense(matrix: Matrix) -> Array:
    """``matrix`` as an ndarray."""
    if isinstance(matrix, FactorMatrix):
        out = matrix.B @ matrix.B.T
        out[np.diag_indices_from(out)] += matrix.d
        return out
    return matrix.toarray() if is_sparse(matrix) else matrix


def to_sparse(matrix: Matrix) -> Any:
    """``matrix`` as a csr_array; zeros of a dense one are dropped."""
    if isinstance(matrix, FactorMatrix) and not matrix.B.any():
        return sparse.diags_array(matrix.d, format="csr")
    return matrix if is_sparse(matrix) else sparse.csr_array(to_dense(matrix))


def block(matrix: Matrix, rows: Array, columns: Array) -> Matrix:
    """The rows and columns (boolean masks) of ``matrix``: dense, or sparse if it is sparse."""
    if isinstance(matrix, FactorMatrix):
        out = matrix.B[rows] @ matrix.B[columns].T
        place = np.full(len(matrix.d), -1)
        place[columns] = np.arange(np.count_nonzero(columns))
        row, column = np.arange(np.count_nonzero(rows)), place[rows]
        both = column >= 0
        out[row[both], column[both]] += matrix.d[rows][both]
        return out
    if is_sparse(matrix):
        return matrix[np.flatnonzero(rows)][:, np.flatnonzero(columns)]
    return matrix[np.ix_(rows, columns)]


def times(matrix: Matrix, z: Array) -> Array:
    """matrix @ z for vectors z (..., n), an ndarray possibly with batch dimensions as well."""
    if isinstance(matrix, np.ndarray) and matrix.ndim > 2:
        return np.matmul(matrix, z[..., None])[..., 0]
    return matrix @ z


def times_transposed(matrix: Matrix, y: Array) -> Array:
    """matrixᵀ @ y for vectors y (..., m), as :func:`times`."""
    if isinstance(matrix, np.ndarray) and matrix.ndim > 2:
        return np.matmul(y[..., None, :], matrix)[..., 0, :]
    return matrix.T @ y


def largest(matrix: Matrix) -> float:
    """Largest absolute entry, 0 for an empty matrix. For B Bᵀ + diag(d), that of its diagonal,
    where a positive semidefinite matrix has it."""
    if isinstance(matrix, FactorMatrix):
        return float(np.abs((matrix.B * matrix.B).sum(1) + matrix.d).max(initial=0.0))
    values = matrix.data if is_sparse(matrix) else matrix
    # Faster on large matrices than the maximum of a temporary |matrix|.
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def max_abs(values: Array) -> float:
    """Largest absolute entry of an array, 0 for none."""
    return float(np.abs(values).max(initial=0.0))


def row_sizes(rows: Matrix) -> Array:
    """Largest absolute entry of each row (p, n) → (p,), and 1 for a row of zeros."""
    if is_sparse(rows):
        empty = 0 in rows.shape
        sizes = np.zeros(rows.shape[0]) if empty else abs(rows).max(axis=1).toarray().reshape(-1)
    else:
        sizes = np.abs(rows).max(1, initial=0.0)
    return sizes if sizes.all() else np.where(sizes > 0, sizes, 1.0)


def column_sizes(rows: Matrix) -> Array:
    """Largest absolute entry of each column (p, n) → (n,), 0 for a column of zeros."""
    if is_sparse(rows):
        return np.asarray(abs(rows).max(axis=0).todense()).reshape(-1)
    return np.abs(rows).max(0, initial=0.0)


def to_diagonal(matrix: Matrix) -> Array:
    """The diagonal of a square matrix, dense."""
    if isinstance(matrix, FactorMatrix):
        return (matrix.B * matrix.B).sum(1) + matrix.d
    return matrix.diagonal()


def row_norms(rows: Matrix) -> Array:
    """Euclidean length of each row (p, n) → (p,), and 1 for a row of zeros."""
    if is_sparse(rows):
        squares = np.asarray(rows.multiply(rows).sum(axis=1)).reshape(-1)
    else:
        squares = np.einsum("ij,ij->i", rows, rows)
    return np.sqrt(np.where(squares > 0, squares, 1.0))


def stack_rows(A: Matrix, G: Matrix, chosen: Array) -> Matrix:
    """A above the ``chosen`` rows (a mask) of G; sparse if one is."""
    if is_sparse(A) or is_sparse(G):
        picked = sparse.csr_array(G)[np.flatnonzero(chosen)]
        return sparse.vstack([sparse.csr_array(A), picked], format="csr")
    return np.concatenate([A, G[chosen]])


def scale_rows(rows: Matrix, factors: Array) -> Matrix:
    """diag(factors) @ rows."""
    if is_sparse(rows):
        return sparse.diags_array(factors) @ rows
    return rows * factors[:, None]


def same(first: Matrix, second: Matrix) -> bool:
    """Whether two matrices have the same kind and entries."""
    if first is second:
        return True
    if type(first) is not type(second) or first.shape != second.shape:
        return False
    if isinstance(first, FactorMatrix):
        return np.array_equal(first.B, second.B) and np.array_equal(first.d, second.d)
    if is_sparse(first):
        return (
            np.array_equal(first.indptr, second.indptr)
            and np.array_equal(first.indices, second.indices)
            and np.array_equal(first.data, second.data)
        )
    return np.array_equal(first, second)


def symmetric_factors(matrix: Any) -> Any:
    """SuperLU factors of a sparse symmetric matrix without pivoting; RuntimeError at a zero."""
    order: dict[str, Any] = {"permc_spec": "MMD_AT_PLUS_A", "options": {"SymmetricMode": True}}
    return splu(sparse.csc_matrix(matrix), diag_pivot_thresh=0.0, **order)


def is_positive_semidefinite(P: Matrix) -> bool:
    """Whether symmetric P has no negative eigenvalue, up to rounding, by a factorisation.

    Rounding is relative to max |P|: 1e-9, or 1e-5 where all entries are numbers of single
    precision, as a covariance computed in it has. A FactorMatrix with d ≥ 0 is not looked at.
    """
    if isinstance(P, FactorMatrix):
        return True
    entries = P.data if is_sparse(P) else P
    single = np.array_equal(entries.astype(np.float32), entries)
    shift = (_SINGLE if single else _DOUBLE) * largest(P)
    if not is_sparse(P):
        shifted = np.array(P, order="F")
        shifted[np.diag_indices_from(shifted)] += shift
        return bool(lapack.dpotrf(shifted, overwrite_a=True, clean=False)[1] == 0) or not shift
    if P.nnz == np.count_nonzero(P.diagonal()):
        return bool((P.diagonal() >= -shift).all())
    try:
        # Without pivoting, a symmetric matrix is definite where every pivot is positive.
        factors = symmetric_factors(P + shift * sparse.eye_array(P.shape[0]))
    except RuntimeError:  # an exact zero as pivot
        return False
    straight = np.array_equal(factors.perm_r, factors.perm_c)
    return bool(straight and (factors.U.diagonal() > 0).all())
