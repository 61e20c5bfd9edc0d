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

import numpy as np
from scipy import linalg

from ..problems.matrices import Array, Matrix, row_sizes, to_dense

DELTA = 1e-6
_REFINEMENTS = 20
_RESIDUAL = 1e-10
_RANK = 1e-12


def solve_equality_qp(H: Matrix, g: Array, C: Matrix, c: Array) -> tuple[Array, Array]:
    """Solve min ½ xᵀHx + gᵀx s.t. Cx = c.

    Parameters
    ----------
    H : (k, k) symmetric positive semidefinite (up to rounding); g : (k,); C : (p, k); c : (p,).
        k and p may be 0. Sparse H and C are made dense.

    Returns
    -------
    x (k,) and y (p,) with Hx + g + Cᵀy = 0 and Cx = c, or the least-norm least-squares solution
    (see the module's docstring) of these equations after scaling. Never NaN for finite data.
    """
    k = len(g)
    H, C = to_dense(H), to_dense(C)
    # Unit scale for H and for the rows of C makes δ and the rank cut free of units.
    size = np.abs(H).max(initial=0.0) or 1.0
    rows = row_sizes(C)
    H, C = H / size, C / rows[:, None]
    rhs = np.concatenate([-g / size, c / rows])
    try:
        t, residual = _refined(H, C, rhs)
        floor = _RESIDUAL * _size(rhs) + 4 * np.finfo(float).eps * _size(t)
        good = bool(residual <= floor)
    except linalg.LinAlgError:  # H is indefinite by more than δ
        good = False
    if not good:
        t = _least_norm(H, C, rhs)
    return t[:k], t[k:] * size / rows


def _size(v: Array) -> float:
    return float(np.abs(v).max(initial=0.0))


def _refined(H: Array, C: Array, rhs: Array) -> tuple[Array, float]:
    """Solution of K t = rhs by the regularised factors and refinement, and its residual."""
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

    def defect(t: Array) -> Array:
        return rhs - np.concatenate([H @ t[:k] + C.T @ t[k:], C @ t[:k]])

    t = apply(rhs)
    left = defect(t)
    for _ in range(_REFINEMENTS):
        if _size(left) <= np.finfo(float).eps * _size(rhs):
            break
        trial = t + apply(left)
        after = defect(trial)
        if not _size(after) < _size(left):
            break
        t, left = trial, after
    return t, _size(left)


def _least_norm(H: Array, C: Array, rhs: Array) -> Array:
    """K⁺ rhs, eigenvalues of K below 1e-12 of the largest taken as 0."""
    p = len(C)
    K = np.block([[H, C.T], [C, np.zeros((p, p))]])
    values, vectors = np.linalg.eigh(K)
    keep = np.abs(values) > _RANK * np.abs(values).max(initial=0.0)
    vectors = vectors[:, keep]
    return vectors @ ((vectors.T @ rhs) / values[keep])
