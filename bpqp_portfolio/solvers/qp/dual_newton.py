"""The method of multipliers' inner problem, for a stack of QPs, by semismooth Newton steps.

Seen from the inequality rows alone a strictly convex QP is: rows r = v − My as functions of their
duals y, to lie in [low, high], with y pushing only at an end of its interval. One step of the
method of multipliers from duals y₀ with penalty 1/μ is the unconstrained minimisation over η of
the piecewise quadratic

    φ(η) = ½ ηᵀMη + (1/2μ) dist²(v − Mη + μy₀, [low, high]),

whose solution gives the new duals. On one piece the minimiser is the solution of
(M_aa + μI) y_a = (v − end + μy₀)_a over the rows a outside their interval, and 0 elsewhere; an
exact line search between pieces makes the iteration converge from anywhere. μ ≪ 1 keeps it close
to the QP itself, and M has unit diagonal, so μ has no unit.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from ...problems.matrices import Array
from ..common.line_search import Bracket

_SEARCH_STEPS = 50
# Up to this size all items of a stack are solved at once, with identity rows where not active.
_TOGETHER = 96


def excess(r: Array, low: Array, high: Array) -> Array:
    """How far r is outside [low, high], signed."""
    return r - np.minimum(np.maximum(r, low), high)


def solve_active(M: Array, active: Array, rhs: Array, shift: float) -> Array:
    """y (T, m) with (M + shift I) y = rhs on the ``active`` rows (T, m), and 0 on the others.

    M is (T, m, m), or (1, m, m) for all.
    """
    items, m = rhs.shape
    if items > 1 and m <= _TOGETHER:
        try:
            return np.linalg.solve(_on_active(M, active, shift), (rhs * active)[..., None])[..., 0]
        except np.linalg.LinAlgError:  # one of them is singular: each by itself
            pass
    y = np.zeros((items, m))
    for item in range(items):
        index = np.flatnonzero(active[item])
        if not len(index):
            continue
        own = M[item if len(M) > 1 else 0]
        for more in (1.0, 1e3, 1e6):
            # take() is several times as fast as indexing with both.
            part = own.take(index, 0).take(index, 1)
            part.ravel()[:: len(index) + 1] += more * shift
            _, found, info = lapack.dposv(part.T, rhs[item, index], lower=1, overwrite_a=True)
            if info == 0:
                break
        y[item, index] = found.ravel()
    return y


def independent(M: Array, active: Array, shift: float, least: float) -> Array:
    """Whether the Cholesky pivots of M + shift I on the ``active`` rows all exceed ``least`` (T,).

    M has at most a unit diagonal: a pivot is the square of a row's independent share.
    """
    items, m = active.shape
    out = np.ones(items, dtype=bool)
    if items > 1 and m <= _TOGETHER:
        try:
            factor = np.linalg.cholesky(_on_active(M, active, shift))
        except np.linalg.LinAlgError:
            pass
        else:
            return np.diagonal(factor, axis1=1, axis2=2).min(1, initial=1.0) ** 2 > least
    for item in range(items):
        index = np.flatnonzero(active[item])
        if len(index):
            own = M[item if len(M) > 1 else 0].take(index, 0).take(index, 1)
            own.ravel()[:: len(index) + 1] += shift
            factor, info = lapack.dpotrf(own.T, lower=1, overwrite_a=True)
            out[item] = info == 0 and factor.diagonal().min() ** 2 > least
    return out


def _on_active(M: Array, active: Array, shift: float) -> Array:
    """M + shift I (T, m, m) on the ``active`` rows, and I on the others."""
    items, m = active.shape
    keep = active.astype(float)
    masked = M * keep[:, :, None] * keep[:, None, :]
    diagonal = masked.reshape(items, m * m)[:, :: m + 1]
    diagonal += np.where(active, shift, 1.0)
    return masked


def minimise(
    M: Array,
    v: Array,
    low: Array,
    high: Array,
    mu: float,
    initial: Array,
    centre: Array,
    *,
    max_iterations: int,
) -> tuple[Array, Array, Array]:
    """Minimise φ from η = ``initial`` with y₀ = ``centre``, for every problem of a stack.

    Parameters
    ----------
    M : (T, m, m) or (1, m, m); v, low, high, initial, centre : (T, m); mu > 0.

    Returns
    -------
    The new duals (T, m); by its sign, at which end of its interval each row stands (T, m), 0 for
    inside; the number of Newton steps (T,). A problem that has not converged in ``max_iterations``
    returns where it stands.
    """
    y, side = initial.copy(), np.zeros_like(initial)
    steps = np.zeros(len(v), dtype=int)
    live = np.arange(len(v))
    shared = len(M) == 1
    eta, base = y, v + mu * centre
    pull = np.matmul(M, eta[..., None])[..., 0]
    out = excess(base - pull, low, high)
    for _ in range(max_iterations):
        # Step 1: the minimiser of the piece on which η stands.
        active = out != 0
        # Where active, base − Mη − out is the violated end of the interval.
        rhs = pull + out
        new = solve_active(M, active, rhs, mu)
        new_pull = np.matmul(M, new[..., None])[..., 0]
        new_out = excess(base - new_pull, low, high)
        steps[live] += 1
        # Step 2: it is that of φ if it stands on the same piece; if not, search along the line.
        done = (((new_out > 0) == (out > 0)) & ((new_out < 0) == (out < 0))).all(-1)
        if not done.all():
            length = _exact_step(base, low, high, mu, eta, new, pull, new_pull, new_out)
            if length is not None:
                new = eta + length * (new - eta)
                new_pull = pull + length * (new_pull - pull)
                new_out = excess(base - new_pull, low, high)
        # Step 3: problems that are done leave the stack.
        eta, pull, out = new, new_pull, new_out
        if done.any():
            y[live[done]], side[live[done]] = eta[done], out[done]
            go = ~done
            live = live[go]
            if not len(live):
                return y, side, steps
            eta, pull, out = eta[go], pull[go], out[go]
            low, high, base = low[go], high[go], base[go]
            M = M if shared else M[go]
    y[live], side[live] = eta, out
    return y, side, steps


def _exact_step(
    base: Array,
    low: Array,
    high: Array,
    mu: float,
    eta: Array,
    new: Array,
    pull: Array,
    new_pull: Array,
    new_out: Array,
) -> Array | None:
    """The minimiser t (T, 1) of φ along η + t(new − η), None where that is 1 for all.

    φ's derivative along the line is increasing and piecewise linear: Newton's method kept inside
    a bracket finds its root.
    """
    step, change = new - eta, new_pull - pull

    def slope(t: Array, out: Array) -> Array:
        first = ((pull + t * change) * step).sum(-1, keepdims=True)
        return first - (out * change).sum(-1, keepdims=True) / mu

    one = np.ones((len(eta), 1))
    end = slope(one, new_out)
    curved = (step * change).sum(-1, keepdims=True)
    noise = 1e-10 * curved
    # Where the line does not rise at its end the full step is at or before the minimum.
    settled = end <= noise
    if settled.all():
        return None
    t, bracket = one, Bracket(0 * one, one, one, end)
    found, out = end, new_out
    for _ in range(_SEARCH_STEPS):
        # −φ is concave: its slope falls along the line.
        bracket.narrow(t, -found)
        second = curved + ((out != 0) * change * change).sum(-1, keepdims=True) / mu
        trial, inside = bracket.newton(t, -found, second)
        t = np.where(settled, t, np.where(inside, trial, bracket.middle()))
        out = excess(base - pull - t * change, low, high)
        found = slope(t, out)
        settled |= np.abs(found) <= noise
        if settled.all():
            break
    return t
