"""The direct solve of an equality-constrained QP, with a defined answer also when it is singular.

    min ½ xᵀHx + gᵀx  s.t.  Cx = c        that is        K t = [H Cᵀ; C 0] [x; y] = [−g; c]

K + diag(δI, −δI) is quasidefinite, so two Cholesky factorisations, of H + δI and of its Schur
complement, always solve it; iterative refinement against K takes δ out again. That covers
redundant rows and flat directions as long as K t = rhs has a solution, and finds one near the
smallest. Where it has none (a force along a flat direction of the objective, contradictory rows) or
K is too close to singular for refinement, t is the least-squares solution of least norm, from the
eigenvectors of K: the part of the right-hand side that no t can meet is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg, sparse

from ...problems.matrices import (
    Array,
    Matrix,
    is_sparse,
    largest,
    max_abs,
    row_sizes,
    scale_rows,
    symmetric_factors,
    to_dense,
    to_sparse,
)

DELTA = 1e-6
_REFINEMENTS = 20
_RESIDUAL = 1e-10
_RANK = 1e-12
_INDEPENDENT = 1e-9


def solve_equality_qp(H: Matrix, g: Array, C: Matrix, c: Array) -> tuple[Array, Array]:
    """Solve min ½ xᵀHx + gᵀx s.t. Cx = c.

    Parameters
    ----------
    H : (k, k) symmetric positive semidefinite (up to rounding); g : (k,); C : (p, k); c : (p,).
        k and p may be 0. Where H is sparse the factors are.

    Returns
    -------
    x (k,) and y (p,) with Hx + g + Cᵀy = 0 and Cx = c, or the least-norm least-squares solution
    (see the module's docstring) of these equations after scaling. Never NaN for finite data.

    Examples
    --------
    The shortest x with x₁ + x₂ = 2:

    >>> x, y = solve_equality_qp(np.eye(2), np.zeros(2), np.ones((1, 2)), np.array([2.0]))
    >>> x.round(9).tolist(), y.round(9).tolist()
    ([1.0, 1.0], [-1.0])
    """
    k = len(g)
    C = to_sparse(C) if is_sparse(H) else to_dense(C)
    # Step 1: unit scale for H and for the rows of C makes δ and the rank cut free of units.
    size = largest(H) or 1.0
    rows = row_sizes(C)
    H, C = H / size, scale_rows(C, 1.0 / rows)
    rhs = np.concatenate([-g / size, c / rows])
    # Step 2: where the rows alone determine x, H only gives their multipliers.
    t = _vertex(H, to_dense(C), rhs) if 0 < k <= len(c) else None
    if t is not None:
        return t[:k], t[k:] * size / rows
    # Step 3: quasidefinite factors and refinement.
    try:
        t, residual = _refined(H, C, rhs)
        floor = _RESIDUAL * max_abs(rhs) + 4 * np.finfo(float).eps * max_abs(t)
        good = bool(residual <= floor)
    except (linalg.LinAlgError, RuntimeError):  # H is indefinite by more than δ
        good = False
    # Step 4: least squares of least norm, by the eigenvectors of K.
    if t is None or not good:
        t = _least_norm(to_dense(H), to_dense(C), rhs)
    return t[:k], t[k:] * size / rows


def _vertex(H: Matrix, C: Array, rhs: Array) -> Array | None:
    """The solution where the rows alone determine x, so that H's size is of no importance."""
    k = C.shape[1]
    x, _, rank, _ = np.linalg.lstsq(C, rhs[k:], rcond=_INDEPENDENT)
    if rank < k or max_abs(C @ x - rhs[k:]) > _RESIDUAL * (max_abs(x) + max_abs(rhs[k:])):
        return None
    y = np.linalg.lstsq(C.T, rhs[:k] - H @ x, rcond=_INDEPENDENT)[0]
    return np.concatenate([x, y])


def _dense_factors(H: Array, C: Array) -> Callable[[Array], Array]:
    """v ↦ (K + diag(δI, −δI))⁻¹ v."""
    k = len(H)
    factor_h = linalg.cho_factor(H + DELTA * np.eye(k), lower=True, check_finite=False)
    W = linalg.cho_solve(factor_h, C.T, check_finite=False)
    schur = C @ W
    schur[np.diag_indices_from(schur)] += DELTA
    factor_s = linalg.cho_factor(schur, lower=True, check_finite=False)

    def apply(v: Array) -> Array:
        u = linalg.cho_solve(factor_h, v[:k], check_finite=False)
        y = linalg.cho_solve(factor_s, C @ u - v[k:], check_finite=False)
        return np.concatenate([u - W @ y, y])

    return apply


def _sparse_factors(H: Matrix, C: Matrix) -> Callable[[Array], Array]:
    """The same by sparse factors; SuperLU raises RuntimeError where a pivot is zero."""
    k, p = H.shape[0], C.shape[0]
    if k + p == 0:
        return lambda v: v
    shift = sparse.diags_array(np.concatenate([np.full(k, DELTA), np.full(p, -DELTA)]))
    K = sparse.block_array([[H, C.T], [C, None]]) if p else H
    # A quasidefinite matrix factorises with any symmetric order and no pivoting.
    return symmetric_factors(K + shift).solve


def _refined(H: Matrix, C: Matrix, rhs: Array) -> tuple[Array, float]:
    """Solution of K t = rhs by the regularised factors and refinement, and its residual."""
    k = len(rhs) - C.shape[0]
    apply = _sparse_factors(H, C) if is_sparse(H) else _dense_factors(H, C)

    def defect(t: Array) -> Array:
        return rhs - np.concatenate([H @ t[:k] + C.T @ t[k:], C @ t[:k]])

    t = apply(rhs)
    left = defect(t)
    for _ in range(_REFINEMENTS):
        if max_abs(left) <= np.finfo(float).eps * max_abs(rhs):
            break
        trial = t + apply(left)
        after = defect(trial)
        if not max_abs(after) < max_abs(left):
            break
        t, left = trial, after
    return t, max_abs(left)


def _least_norm(H: Array, C: Array, rhs: Array) -> Array:
    """K⁺ rhs, eigenvalues of K below 1e-12 of the largest taken as 0."""
    p = len(C)
    K = np.block([[H, C.T], [C, np.zeros((p, p))]])
    values, vectors = np.linalg.eigh(K)
    keep = np.abs(values) > _RANK * np.abs(values).max(initial=0.0)
    vectors = vectors[:, keep]
    return vectors @ ((vectors.T @ rhs) / values[keep])
