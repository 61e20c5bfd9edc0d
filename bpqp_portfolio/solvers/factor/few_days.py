"""A few days of the plain portfolio QP, one after the other on NumPy arrays.

The method of :mod:`.dual_newton` for a budget, bounds and d > 0: with w(θ) = clip(−(q + B x + ν)/d,
l, u), Newton's method on the gradient (Bᵀw − x, 1ᵀw − budget) of the dual function of θ = (x, ν). A
batch of few days costs what its tensor calls cost; NumPy's cost a fraction of that, and each day
takes its own steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from ...problems.solution import CANCELLED, ZERO

Array = np.ndarray

MOST_DAYS = 16
_STEPS, _LINE_STEPS, _BUDGET_STEPS = 30, 30, 60
_SMALL, _SNAP, _LEAST = 1e-13, 1e-12, 1e-11
_START_GAP = 0.1


@dataclass(frozen=True)
class Days:
    """Solved days, in units of the gradient ``unit`` (T,), but for ``nu``.

    Parameters
    ----------
    columns, inverse : (T, n, k + 1), (T, n), the scaled (B, 1) and 1/d.
    weights, gradient, free : (T, n); the gradient is that of the Lagrangian without bounds.
    theta : (T, k + 1), the exposures x and the budget's dual.
    nu : (T,) the budget's dual, in the caller's units.
    norm, iterations : (T,) scaled KKT residual, and Newton's steps.
    """

    columns: Array
    inverse: Array
    weights: Array
    gradient: Array
    free: Array
    theta: Array
    nu: Array
    norm: Array
    iterations: Array
    unit: Array

    def backward(self, r: Array) -> tuple[Array, Array, Array]:
        """z̃ (T, n) and ỹ (T,) of the backward QP for the loss's gradient ``r`` (T, n), and
        P z̃ + r + ỹ (T, n), which is zero at free names.
        """
        z, y, slope = np.zeros_like(r), np.zeros(len(r)), np.zeros_like(r)
        for t in range(len(r)):
            free = np.flatnonzero(self.free[t])
            C, inverse = self.columns[t][free], self.inverse[t][free]
            weighted = C * inverse[:, None]
            own = _own(C.shape[1])
            factor = _cholesky(C.T @ weighted, own)
            dual = _solve(factor, -(r[t][free] @ weighted))
            part = -(r[t][free] * inverse + weighted @ dual)
            # What the diagonal was lifted by is taken out again.
            more = _solve(factor, part @ C - own * dual)
            dual = dual + more
            z[t, free] = (part - weighted @ more) / self.unit[t]
            y[t] = dual[-1]
            slope[t] = r[t] + self.columns[t] @ dual
        slope[self.free] = 0.0
        return z, y, slope


def solve_days(
    q: Array,
    loadings: Array,
    d: Array,
    lower: Array,
    upper: Array,
    budget: Array,
    mask: Array,
    tolerance: float,
    start: Array | None = None,
) -> Days | None:
    """Solve T days, or None where the general method should see them: anything unusual or unsolved.

    Shapes as for :class:`~.problem.FactorQP`; ``start`` (T, k) exposures Bᵀw to begin at.
    """
    T, _, k = loadings.shape
    everything = mask.all()
    if not everything:
        q, lower, upper = (np.where(mask, value, 0.0) for value in (q, lower, upper))
        typical = np.where(mask, d, 0.0).max(axis=1, keepdims=True)
        d = np.where(mask, d, typical)
    if not all(np.isfinite(value).all() for value in (q, d, lower, upper, budget)):
        return None
    if not (d.min(initial=1.0) > 0 and (lower <= upper).all()):
        return None
    # Weights of another size want units of their own.
    if not (np.abs(budget - 1.0) <= 0.5).all() or not mask.any(axis=1).all():
        return None
    if not ((lower.sum(axis=1) < budget) & (upper.sum(axis=1) > budget)).all():
        return None
    # With 1ᵀw fixed a constant in q only moves ν; without it the digits that differ are kept.
    middle = 0.5 * (np.where(mask, q, -np.inf).max(axis=1) + np.where(mask, q, np.inf).min(axis=1))
    q = np.where(mask, q - middle[:, None], 0.0)
    columns = np.empty((*loadings.shape[:2], k + 1))
    columns[..., :k] = loadings
    columns[..., k] = 1.0
    if not everything:
        columns = np.where(mask[..., None], columns, 0.0)
    factors = columns[..., :k]
    curvature = (d + np.einsum("tij,tij->ti", factors, factors)).max(axis=1)
    size = np.maximum(np.abs(q).max(axis=1), curvature)
    if not np.isfinite(size).all():
        return None
    unit = np.exp2(np.round(np.log2(size)))
    factors *= (unit**-0.5)[:, None, None]
    if not np.isfinite(columns).all():
        return None
    q, d, curvature = q / unit[:, None], d / unit[:, None], curvature / unit
    inverse = 1.0 / d
    weights, gradient, theta = np.empty_like(q), np.empty_like(q), np.empty((T, k + 1))
    free, norm, iterations = np.empty(q.shape, dtype=bool), np.empty(T), np.empty(T, dtype=int)
    for t in range(T):
        problem = columns[t], q[t], d[t], inverse[t], lower[t], upper[t], budget[t]
        day = _Day(*problem, float(curvature[t]))
        first = day.cold() if start is None else day.warm(start[t] * unit[t] ** -0.5)
        iterations[t], w, theta[t] = day.newton(first)
        weights[t], gradient[t], free[t], norm[t] = day.finished(w, theta[t])
        if not norm[t] <= tolerance:
            return None
    nu = unit * theta[:, -1] - middle
    return Days(columns, inverse, weights, gradient, free, theta, nu, norm, iterations, unit)


def _own(size: int) -> Array:
    """1 for the exposures' duals, which have curvature of their own, 0 for the budget's."""
    own = np.ones(size)
    own[-1] = 0.0
    return own


def _cholesky(normal: Array, own: Array) -> Array:
    normal.flat[:: len(own) + 1] += own + _LEAST * (1.0 - own)
    return lapack.dpotrf(normal, lower=1, overwrite_a=1)[0]


def _solve(factor: Array, rhs: Array) -> Array:
    return lapack.dpotrs(factor, rhs, lower=1)[0]


class _Day:
    """min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw  s.t.  1ᵀw = budget, l ≤ w ≤ u, by its dual θ = (x, ν)."""

    def __init__(
        self,
        columns: Array,
        q: Array,
        d: Array,
        inverse: Array,
        lower: Array,
        upper: Array,
        budget: float,
        curvature: float,
    ) -> None:
        self.columns, self.q, self.d, self.inverse = columns, q, d, inverse
        self.lower, self.upper, self.budget = lower, upper, budget
        self.curvature = curvature
        self.own = _own(columns.shape[1])
        self.target = budget * (1.0 - self.own)

    def cold(self) -> Array:
        """θ from the weights that are optimal for Σ's diagonal alone."""
        B = self.columns[:, :-1]
        variance = self.d + np.einsum("ij,ij->i", B, B)
        nu = self._budget_dual(self.q, variance)
        x = self._clipped((self.q + nu) / -variance) @ B
        return self.warm(x)

    def warm(self, x: Array) -> Array:
        """θ from exposures x, with the ν that comes near the budget."""
        linear = self.q + self.columns[:, :-1] @ x
        return np.append(x, self._budget_dual(linear, self.d))

    def _clipped(self, raw: Array) -> Array:
        return np.minimum(np.maximum(raw, self.lower), self.upper)

    def _budget_dual(self, linear: Array, d: Array) -> float:
        """A ν whose weights come near the budget, by Newton's method kept inside a bracket."""
        high = float((-linear - d * self.lower).max())
        low = float((-linear - d * self.upper).min())
        inverse = 1.0 / d
        raw_zero = linear * -inverse
        nu = 0.5 * (low + high)
        for _ in range(_BUDGET_STEPS):
            raw = raw_zero - nu * inverse
            w = self._clipped(raw)
            gap = float(w.sum() - self.budget)
            if abs(gap) <= _START_GAP:
                break
            slope = float(inverse @ (raw == w))
            low, high = (nu, high) if gap > 0 else (low, nu)
            new = nu + gap / slope if slope > 0 else np.inf
            nu = new if low < new < high else 0.5 * (low + high)
        return nu

    def _at(self, theta: Array) -> tuple[Array, Array, Array]:
        """Unbounded weights, weights, and the gradient of the dual function."""
        raw = (self.q + self.columns @ theta) * -self.inverse
        w = self._clipped(raw)
        return raw, w, w @ self.columns - self.own * theta - self.target

    def newton(self, theta: Array) -> tuple[int, Array, Array]:
        """Steps taken, weights and θ at the end."""
        raw, w, residual = self._at(theta)
        for number in range(_STEPS):
            free = np.flatnonzero(raw == w)
            inverse = self.inverse[free]
            # Weights move by 1/d a unit of the duals: no residual is below what these round to.
            if np.abs(residual).max() <= _SMALL + 1e-15 * inverse.sum():
                return number, w, theta
            C = self.columns[free]
            normal = C.T @ (C * inverse[:, None])
            if not len(free):
                # The budget's dual then moves as one typical name would have it.
                normal[-1, -1] += self.inverse.mean()
            step = _solve(_cholesky(normal, self.own), residual)
            theta, (raw, w, residual) = self._line_search(theta, step, residual @ step)
        return _STEPS, w, theta

    def _line_search(
        self, theta: Array, step: Array, rise: float
    ) -> tuple[Array, tuple[Array, Array, Array]]:
        """θ where the dual's slope has fallen to half of ``rise``, and :meth:`_at` there.

        The secant search of :mod:`..common.line_search` on plain numbers: with arrays of one entry
        it would take longer than the rest of the step.
        """
        new, length = theta + step, 1.0
        point = self._at(new)
        slope = point[2] @ step
        low, high, at_low, at_high = 0.0, np.inf, rise, 0.0
        for trial in range(_LINE_STEPS):
            if abs(slope) <= 0.5 * rise:
                break
            if slope > 0:
                low, at_low = length, slope
            else:
                high, at_high = length, slope
            if high == np.inf:
                length *= 4.0
            elif trial % 3 == 2:
                length = 0.5 * (low + high)
            else:
                length = low + (high - low) * at_low / (at_low - at_high)
            new = theta + length * step
            point = self._at(new)
            slope = point[2] @ step
        return new, point

    def finished(self, w: Array, theta: Array) -> tuple[Array, Array, Array, float]:
        """Weights with what is a rounding from its bound put there, gradient, free names, KKT norm.

        Sets ``theta`` to the exposures of these weights.
        """
        w = np.where(w - self.lower <= _SNAP, self.lower, w)
        w = np.where(self.upper - w <= _SNAP, self.upper, w)
        exposure = w @ self.columns
        theta[:-1] = exposure[:-1]
        risk = self.columns[:, :-1] @ theta[:-1] + self.d * w
        gradient = risk + self.q + theta[-1] * self.columns[:, -1]
        above, below = w > self.lower, w < self.upper
        wrong = max(float((gradient * above).max()), float((-gradient * below).max()))
        length = float(np.abs(w).max())
        slope = max(float(np.abs(risk).max()), float(np.abs(self.q).max()), abs(float(theta[-1])))
        scale = max(slope, CANCELLED * self.curvature * length, ZERO)
        gap = abs(float(exposure[-1] - self.budget))
        return w, gradient, above & below, max(wrong / scale, gap / length)
