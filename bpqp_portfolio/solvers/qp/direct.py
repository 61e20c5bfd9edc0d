"""One strictly convex dense QP without bounds: two factorisations, and its active rows by pivoting.

With P = LLᵀ and all rows C = [A; G], d = [b; h], the problem is one in the duals y of the rows
alone: Cz − d = g − My with M = CP⁻¹Cᵀ. Rows of A are always active; which of G are is found by
block principal pivoting (J. J. Júdice and F. M. Pires, A block principal pivoting algorithm for
large-scale strictly monotone linear complementarity problems, 1994): all rows of the wrong sign
change sides at once, and one alone where that has not helped for a while, which makes it finite.
The KKT system of the active rows is then solved by the factors, refined against the true P, and
serves the backward QP. What is singular or degenerate is left to others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import blas, lapack

from ...problems.matrices import Array
from ...problems.solution import CANCELLED

_PIVOTS = 1e-6
# Smallest share of a row that is independent of the other active rows.
_INDEPENDENT = 1e-5
_STEPS, _BLOCK_TRIES = 60, 3
_WRONG = 1e-13
_REFINEMENTS = 4
_EXACT = 1e-15


def _size(v: Array) -> float:
    """‖v‖∞, 0 for no entries; several times as fast as by numpy on short vectors."""
    return abs(float(v[blas.idamax(v)])) if v.size else 0.0


@dataclass(frozen=True, eq=False)
class Active:
    """The KKT system of the rows ``index`` of C (k, n), by the factors of P and of their M.

    W (k, n) has WLᵀ = C. ``C``, ``W`` and ``factor`` are those of the rows in ``index``.
    """

    P: Array
    L: Array
    index: Array
    C: Array
    W: Array
    factor: Array

    def _step(self, slope: Array, goal: Array) -> tuple[Array, Array]:
        t = blas.dtrsv(self.L, slope, lower=1)
        if not len(goal):
            return blas.dtrsv(self.L, t, lower=1, trans=1, overwrite_x=True), goal
        y = lapack.dpotrs(self.factor, self.W @ t - goal, lower=1, overwrite_b=True)[0]
        return blas.dtrsv(self.L, t - y @ self.W, lower=1, trans=1, overwrite_x=True), y

    def solve(
        self, slope: Array, goal: Array, first: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        """z (n,) and y with Pz + Cᵀy = slope and Cz = goal; ``first`` where a step is known."""
        z, y = self._step(slope, goal) if first is None else first
        last = _size(z)
        for _ in range(_REFINEMENTS):
            more, change = self._step(slope - self.P @ z - y @ self.C, goal - self.C @ z)
            z += more
            y = y + change
            # Steps shrink by a constant factor: what the next one would be decides.
            size = _size(more)
            if size * size <= _EXACT * last * _size(z):
                break
            last = size
        return z, y


@dataclass(frozen=True, eq=False)
class Direct:
    """A solution z (n,), nu (p,), lam (m,) with its KKT norm, and what its backward QP needs.

    ``rows`` are the active rows of G by the rule of
    :mod:`~bpqp_portfolio.solvers.common.active_set`.
    """

    z: Array
    nu: Array
    lam: Array
    norm: float
    steps: int
    rows: Array
    active: Active

    def adjoint(
        self, dz: Array | None, dnu: Array | None, dlam: Array | None
    ) -> tuple[Array, Array, Array]:
        """z̃, ν̃ and λ̃ of the backward QP, from gradients of the loss; None is zero."""
        p = len(self.nu)
        goal = np.zeros(p + len(self.rows))
        if dnu is not None:
            goal[:p] = -dnu
        if dlam is not None:
            goal[p:] = -dlam[self.rows]
        slope = np.zeros(len(self.z)) if dz is None else -dz
        z, y = self.active.solve(slope, goal)
        lam = np.zeros(len(self.lam))
        lam[self.rows] = y[p:]
        return z, y[:p], lam


def solve_direct(
    P: Array, q: Array, A: Array, b: Array, G: Array, h: Array, tolerance: float
) -> Direct | None:
    """min ½ zᵀPz + qᵀz s.t. Az = b, Gz ≤ h, for finite arrays and a symmetric P.

    Returns
    -------
    The solution; None where P or the active rows are close to singular, or where the point found
    has a KKT norm above ``tolerance``.
    """
    # Step 1: factorise P, and the rows in its metric: M = WWᵀ, W = C L⁻ᵀ.
    n, p = len(q), len(b)
    L, info = lapack.dpotrf(P.T, lower=1, clean=0)
    pivots = L.diagonal()
    if info or not pivots.min() > _PIVOTS * pivots.max():
        return None
    C, d = np.concatenate((A, G)), np.concatenate((b, h))
    W, M, size = np.zeros((0, n)), np.zeros((0, 0)), d
    if len(d):
        W = blas.dtrsm(1.0, L, C.T, lower=1).T
        M = W @ W.T
        size = np.sqrt(M.diagonal())
        if not size.all():
            return None
    # Step 2: which rows are active, by pivoting on the duals alone.
    t = blas.dtrsv(L, q, lower=1)
    length = float(np.sqrt(t @ t))
    off = -(W @ t) - d
    found = _pivot(M, off, p, size, length, size * length + np.abs(d))
    if found is None:
        return None
    index, factor, y, steps = found
    # Step 3: the KKT system of the active rows, refined against P itself.
    active = Active(P, L, index, C[index], W[index], factor)
    z = blas.dtrsv(L, -t - y @ active.W, lower=1, trans=1, overwrite_x=True)
    z, on = active.solve(-q, d[index], (z, y))
    nu = on[:p]
    lam = np.zeros(len(h))
    lam[index[p:] - p] = np.maximum(on[p:], 0.0)
    return _judged(active, q, A, b, G, h, z, nu, lam, steps, M, W, C, tolerance)


def _pivot(
    M: Array, off: Array, p: int, size: Array, length: float, terms: Array
) -> tuple[Array, Array, Array, int] | None:
    """Rows, the first p among them, with My = off and y ≥ 0 there, y = 0 and My ≥ off elsewhere.

    Signs count beyond the rounding of ``off``, whose ``terms`` are so large, and of y, which is
    ``length`` over the rows' ``size``. With the Cholesky factor of the rows' part of M, their y and
    the number of solves; None where the rows are nearly dependent.
    """
    k = len(off)
    noise = _WRONG * terms
    inside = np.zeros(k, dtype=bool)
    inside[:p] = True
    fewest, tries = k + 1, _BLOCK_TRIES
    for step in range(1, _STEPS + 1):
        # Step 1: My = off on the rows inside; which signs are wrong, inside and outside?
        index = inside.nonzero()[0]
        factor, own, wrong = np.zeros((0, 0)), np.zeros(0), off > noise
        if len(index):
            part = M.take(index, 0).take(index, 1)
            factor, own, info = lapack.dposv(part.T, off[index], lower=1, overwrite_a=True)
            if info:
                return None
            y = np.zeros(k)
            y[index] = own
            left = off - M @ y
            y *= size
            least = -_WRONG * max(length, _size(y))
            wrong = np.where(inside, y < least, left > noise)
        wrong[:p] = False
        count = int(np.count_nonzero(wrong))
        if not count:
            if len(index):
                share = factor.diagonal() / size[index]
                if not share.min() > _INDEPENDENT:
                    return None
            return index, factor, own, step
        # Step 2: all of them change sides, or, where that has not helped, the last one alone.
        if count < fewest:
            fewest, tries = count, _BLOCK_TRIES
        elif tries:
            tries -= 1
        else:
            last = wrong.nonzero()[0][-1]
            wrong[:] = False
            wrong[last] = True
        inside ^= wrong
    return None


def _judged(
    active: Active,
    q: Array,
    A: Array,
    b: Array,
    G: Array,
    h: Array,
    z: Array,
    nu: Array,
    lam: Array,
    steps: int,
    M: Array,
    W: Array,
    C: Array,
    tolerance: float,
) -> Direct | None:
    """The point with its KKT norm, as :func:`~bpqp_portfolio.problems.solution.kkt_residuals`.

    None for z = 0 as well: its units are the problem's, which take longer to find.
    """
    p = len(b)
    sizes = np.abs(C).max(1, initial=0.0)
    slope, from_A, from_G = active.P @ z, nu @ A, lam @ G
    gap = A @ z - b
    slack = (h - G @ z) / sizes[p:]
    length = _size(z)
    if not length:
        return None
    # The largest entry of a positive definite matrix is on its diagonal.
    cancelled = CANCELLED * float(active.P.diagonal().max()) * length
    gradient = max(_size(slope), _size(q), cancelled)
    scaled = lam * sizes[p:]
    primal = max(_size(gap / sizes[:p]), -float(slack.min(initial=0.0)))
    stationarity = float(np.abs(slope + q + from_A + from_G).max())
    product = _size(scaled * slack)
    norm = max(stationarity / gradient, primal / length, product / (gradient * length))
    if not norm <= tolerance:
        return None
    rows = (scaled > gradient / length * np.maximum(slack, 0.0)).nonzero()[0]
    if len(rows) != len(active.index) - p:
        # Weakly active rows are differentiated as inactive.
        index = np.concatenate((np.arange(p), rows + p))
        factor = np.zeros((0, 0))
        if len(index):
            factor, info = lapack.dpotrf(M[np.ix_(index, index)].T, lower=1)
            if info:
                return None
        active = replace(active, index=index, C=C[index], W=W[index], factor=factor)
    return Direct(z, nu, lam, norm, steps, rows, active)
