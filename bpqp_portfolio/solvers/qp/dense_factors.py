"""The factors of dense QPs, which serve forward steps, refinement and the backward QP.

P + ρI + σAᵀD²A = LLᵀ, the equalities' rows made orthonormal in that metric (U), and the inequality
rows split into a part along U and a part W beside it, so that a KKT system with any active rows
takes two triangular solves and one of the size of these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack

from ...problems.matrices import Array, largest, times, times_transposed, to_dense
from ...problems.qp import QP
from ...problems.stack import together
from ..common.redundant_rows import SUSPECT
from .dual_newton import independent, solve_active

# ρ relative to the largest entry of P, tried in turn until the factorisation is well conditioned.
_RHO = (0.0, 1e-9, 1e-7, 1e-5)
_PIVOTS = 1e-6
# For P = 0, relative to the largest entry of q.
_RHO_LINEAR = 1e-6
_SHIFT = 1e-13


@dataclass(frozen=True, eq=False)
class Factors:
    """What stays of P, A, G and the bounds' pattern: everything that costs more than n² work.

    P + ρI + σAᵀD²A = LLᵀ with D = diag(1/‖Aᵢ‖∞), ``pull`` = σD²A (p, n), which the equalities make
    known at any solution; with the equalities' rows in that metric, scaled by ``unit_A``,
    L⁻¹Aᵀ = UᵀL_Aᵀ with UUᵀ = I; the inequality rows C = [G; I at ``bounded``], scaled by ``unit``,
    are L⁻¹Cᵀ = W + UᵀJ with UW = 0, and M = WᵀW.
    """

    rho: float
    pull: Array
    L: Array
    L_A: Array
    U: Array
    J: Array
    W: Array
    M: Array
    unit_A: Array
    unit: Array
    bounded: Array

    @classmethod
    def of(cls, problem: QP, bounded: Array) -> Factors | None:
        """The factors of ``problem``, None if P is not positive semidefinite."""
        P, A, G = to_dense(problem.P), to_dense(problem.A), to_dense(problem.G)
        n, p, m = problem.n, problem.p, problem.m
        found = _cholesky(P, A, problem)
        if found is None:
            return None
        L, rho, pull = found
        rows = np.empty((p + m + len(bounded), n))
        rows[:p], rows[p : p + m], rows[p + m :] = A, G, 0.0
        rows[p + m + np.arange(len(bounded)), bounded] = 1.0
        half = blas.dtrsm(1.0, L, rows.T, lower=1, overwrite_b=True)
        size = np.sqrt(np.einsum("ij,ij->j", half, half))
        unit = 1.0 / np.where(size > 0, size, 1.0)
        half *= unit
        half_A, W = half[:, :p], half[:, p:]
        if p:
            gram = half_A.T @ half_A
            gram[np.diag_indices(p)] += p * 1e-12
            L_A = lapack.dpotrf(gram, lower=1)[0]
            U = blas.dtrsm(1.0, L_A, half_A.T, lower=1)
            J = U @ W
            W = W - U.T @ J
        else:
            L_A, U, J = np.zeros((0, 0)), np.zeros((0, n)), np.zeros((0, W.shape[1]))
        return cls(rho, pull, L, L_A, U, J, W, W.T @ W, unit[:p], unit[p:], bounded)


def _cholesky(P: Array, A: Array, problem: QP) -> tuple[Array, float, Array] | None:
    """L, ρ and ``pull`` of :class:`Factors`."""
    size, units, n = largest(P), problem.scaling, len(P)
    nothing = np.zeros(A.shape)
    if size == 0.0:
        rho = _RHO_LINEAR * units.gradient / units.length
        return np.asfortranarray(np.sqrt(rho) * np.eye(n)), rho, nothing
    L = _definite(P, 0.0)
    if L is not None:
        return L, 0.0, nothing
    if not problem.convex:
        return None
    # What is flat in P alone may be held by the equalities.
    pull = A * (size / units.rows_A**2)[:, None]
    P = P + pull.T @ A
    for share in _RHO:
        L = _definite(P, share * size)
        if L is not None:
            return L, share * size, pull
    return None


def _definite(P: Array, rho: float) -> Array | None:
    """L with P + ρI = LLᵀ; None where that breaks down, or for ρ = 0 comes near to it."""
    shifted = np.array(P, order="F")
    shifted[np.diag_indices_from(shifted)] += rho
    L, info = lapack.dpotrf(shifted, lower=1, clean=0, overwrite_a=True)
    pivots = L.diagonal()
    return L if info == 0 and (rho or pivots.min() > _PIVOTS * pivots.max()) else None


class FactorStack:
    """The factors of a stack of T problems, one object for each, or one for all."""

    def __init__(self, factors: Sequence[Factors]) -> None:
        first = factors[0]
        self.shared = all(f is first for f in factors)
        self.each = [first] if self.shared else list(factors)

        names = ("pull", "U", "J", "W", "M", "unit_A", "unit")
        arrays = [together([getattr(f, name) for f in self.each]) for name in names]
        self.pull, self.U, self.J, self.W, self.M, self.unit_A, self.unit = arrays
        self.pulls = bool(self.pull.any())
        self.rho = np.array([f.rho for f in self.each])[:, None]
        self.bounded = first.bounded

    def independent(self, active: Array) -> Array:
        """Whether the equalities and the ``active`` rows (T, m) are clearly independent (T,)."""
        out = np.ones(len(active), dtype=bool)
        for item, f in enumerate(self.each):
            p = len(f.unit_A)
            # The diagonal had p · 1e-12 added, which is a dependent row's pivot.
            out[item] = not p or f.L_A.diagonal().min() ** 2 > SUSPECT + 2e-12 * p
        out = np.broadcast_to(out[0], len(active)) if len(self.each) == 1 else out
        return out & independent(self.M, active, _SHIFT, SUSPECT)

    def triangular(self, name: str, x: Array, *, transposed: bool = False) -> Array:
        """L⁻¹x or L⁻ᵀx for the factor ``name`` and x (T, n)."""
        if not x.shape[1]:
            return x
        if len(self.each) == 1 and len(x) > 1:
            L = getattr(self.each[0], name)
            return blas.dtrsm(1.0, L, x.T, lower=1, trans_a=int(transposed)).T
        out = [
            blas.dtrsv(getattr(f, name), row, lower=1, trans=int(transposed))
            for f, row in zip(self.each, x, strict=True)
        ]
        return out[0][None] if len(out) == 1 else np.array(out)

    def known(self, slope: Array, equality: Array) -> tuple[Array, Array]:
        """L⁻¹ slope, with the share of σAᵀD²A in it, and L_A⁻¹ equality."""
        if self.pulls:
            slope = slope + times_transposed(self.pull, equality)
        return self.triangular("L", slope), self.triangular("L_A", equality * self.unit_A)

    def solve(
        self, active: Array, slope: Array, equality: Array, rows: Array
    ) -> tuple[Array, Array, Array]:
        """z, ν, y with (P + ρI)z + Aᵀν + Cᵀy = slope, Az = equality, Cz = rows where ``active``.

        All arguments have a leading axis T; y is zero where not active.
        """
        t, fixed = self.known(slope, equality)
        along = times(self.U, t)
        free = t - times_transposed(self.U, along - fixed)
        rhs = times_transposed(self.W, t) + times_transposed(self.J, fixed) - rows * self.unit
        y = solve_active(self.M, active, rhs, _SHIFT)
        z = self.triangular("L", free - times(self.W, y), transposed=True)
        nu = self.triangular("L_A", along - fixed - times(self.J, y), transposed=True)
        return z, nu * self.unit_A, y * self.unit
