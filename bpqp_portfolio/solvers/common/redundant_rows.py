"""Multipliers of linearly dependent active constraints: one choice, whichever solver found some.

Where active rows and bounds depend on each other (an equality written as an inequality too, bounds
that meet a budget, repeated rows) their multipliers are not unique, in the problem as in its
backward QP, and a solver's own choice may be of any size. Here inequalities give way: of the
problem's multipliers those with the least sum are taken, at a vertex of their set, and an
inequality that has none there is left out of the backward QP, which loses nothing by it. So the
gradient is the derivative for one side of each constraint. What then is not unique yet has the
least norm. Rows count divided by their largest entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import linprog

from ...problems.matrices import Array, Matrix, is_sparse, row_sizes, stack_rows, to_dense
from ...problems.qp import QP
from ...problems.solution import Solution, measure

# Squared share of a row that may depend on the others, and singular values that are rounding.
SUSPECT = 1e-10
_RANK = 1e-11
# Weight of a multiplier that stays, beside 1 for one that is to vanish.
_STAYS = 1e-6
# Multipliers of this share of the largest are none.
_NONE = 1e-9
# A sparse problem with more active rows leaves the choice to its solver, near the least norm too.
_MOST_SPARSE = 400
# A constraint this near, in the unit of z, is active; so many entries are looked through at most.
_TOUCHING, _FITTED = 1e-10, 1 << 16
# A sum below this share of another is less.
_LESS = 1.0 - 1e-6


@dataclass(frozen=True, eq=False)
class Redundancy:
    """Directions ``null`` (k, d) in which the multipliers of k active rows may move.

    The gradient without bounds (n,), which the multipliers of the active bounds offset, then moves
    by ``bounds`` (n, d). ``weights`` (k + n,) are those of both in the norm that is made least.
    """

    null: Array
    bounds: Array
    weights: Array

    def settle(self, y: Array, slope: Array) -> Array:
        """The chosen multipliers (k,), from any ``y`` and the gradient ``slope`` (n,) at it."""
        moves = np.concatenate([self.null, self.bounds]) * self.weights[:, None]
        at = np.concatenate([y, slope]) * self.weights
        return y - self.null @ np.linalg.lstsq(moves, at, rcond=None)[0]


def redundancy(
    rows: Matrix, free: Array, equalities: Array, sides: Array, duals: Array, slope: Array
) -> Redundancy | None:
    """How the active ``rows`` (k, n) depend on each other and on the active bounds, if they do.

    Parameters
    ----------
    free : (n,) mask of the coordinates that no bound holds.
    equalities : (k,) mask of the rows whose multiplier has no sign.
    sides : (n,) 1 where a lower bound holds, −1 an upper one, 0 at free coordinates and at those
        that both hold.
    duals : (k,) the problem's multipliers of the rows; slope : (n,) its λ_lb − λ_ub.
    """
    if independent(rows, free):
        return None
    k, sizes = rows.shape[0], row_sizes(rows)
    scaled = to_dense(rows) / sizes[:, None]
    inside = scaled[:, free]
    length = np.sqrt(np.einsum("ij,ij->i", inside, inside))
    length[length <= _RANK] = 0.0
    inside = inside / np.where(length > 0, length, 1.0)[:, None]
    inside[length == 0] = 0.0
    U, values, _ = np.linalg.svd(inside)
    rank = int(np.count_nonzero(values > _RANK * max(inside.shape)))
    if rank == k:
        return None
    # From rows of unit length to rows of unit size, then to the caller's.
    null = U[:, rank:] / np.where(length > 0, length, 1.0)[:, None]
    bounds = np.where(free[:, None], 0.0, scaled.T @ null)
    moves = np.concatenate([null, sides[:, None] * bounds])
    signed = np.concatenate([~equalities, sides != 0])
    at = np.concatenate([duals * sizes, sides * slope])
    weights = np.where(_vanishing(moves, at, signed), 1.0, _STAYS)
    weights[:k] *= sizes
    # Coordinates that are held from both sides take what the others do not.
    weights[k:] *= sides != 0
    return Redundancy(null / sizes[:, None], bounds, weights)


def independent(rows: Matrix, free: Array) -> bool:
    """Whether the ``rows`` (k, n) are clearly independent on the ``free`` coordinates (n,)."""
    k = rows.shape[0]
    if not k or (is_sparse(rows) and k > _MOST_SPARSE):
        return True
    rows = to_dense(rows)
    inside = rows if free.all() else rows[:, free]
    if k > inside.shape[1]:
        return False
    if k == 1:
        return bool(np.abs(inside).max() > _RANK * np.abs(rows).max())
    gram = inside @ inside.T
    square = gram.diagonal().copy()
    if not (square > (_RANK * row_sizes(rows)) ** 2).all():
        return False
    unit = 1.0 / np.sqrt(square)
    gram *= unit
    gram *= unit[:, None]
    factor, info = lapack.dpotrf(gram, lower=1, clean=0, overwrite_a=True)
    return bool(info == 0 and factor.diagonal().min() ** 2 > SUSPECT)


def _vanishing(moves: Array, at: Array, signed: Array) -> Array:
    """Which multipliers are 0 where the ``signed`` ones have the least sum and stay ≥ 0.

    They are ``at`` + ``moves`` v (k,) for any v (d,).
    """
    out = np.zeros(len(at), dtype=bool)
    own = signed & (np.abs(moves) > _RANK).any(1)
    size = np.abs(at[own]).max(initial=0.0)
    if not size:
        return own
    start, M = np.maximum(at[own] / size, 0.0), moves[own]
    found = linprog(M.sum(0), A_ub=-M, b_ub=start, bounds=(None, None), method="highs-ds")
    left = start + M @ found.x if found.x is not None else start
    out[own] = left <= _NONE * max(1.0, left.max())
    return out


def with_least_multipliers(problem: QP, solution: Solution) -> Solution:
    """``solution`` with the multipliers of least sum, where those that it has are not the least.

    Rows that a simplex method left at 0 may be active as well, beside others that depend on them:
    then its multipliers are one vertex of many, and a gradient by their rows alone can be far
    larger than any derivative. Unchanged as well where the program is large.
    """
    s = solution
    at = measure(problem, s.z, s.nu, s.lam, s.lam_lb, s.lam_ub)
    near, units, n, p = _TOUCHING * at.length, problem.scaling, problem.n, problem.p
    rows = at.slack <= near * units.rows_G
    free = problem.lb < problem.ub
    lower, upper = (at.to_lb <= near) & free, (at.to_ub <= near) & free
    idle = (s.lam[rows] == 0).any() or (s.lam_lb[lower] == 0).any() or (s.lam_ub[upper] == 0).any()
    count = p + int(np.count_nonzero(rows))
    held = count + np.count_nonzero(lower) + np.count_nonzero(upper)
    if not idle or n * held > _FITTED:
        return s
    size = np.concatenate([units.rows_A, units.rows_G[rows]])
    eye = np.eye(n)
    C = to_dense(stack_rows(problem.A, problem.G, rows)) / size[:, None]
    columns = np.concatenate([C, -eye[lower], eye[upper]])
    own = np.concatenate([s.nu, s.lam[rows]]) * size
    now = np.concatenate([own, s.lam_lb[lower], s.lam_ub[upper]]) / at.gradient
    force = now @ columns  # what the multipliers hold, whatever the point's error
    least = np.where(np.arange(held) < p, -np.inf, 0.0)
    signed = np.isfinite(least)
    bounds = np.column_stack([least, np.full(held, np.inf)])
    found = linprog(signed * 1.0, A_eq=columns.T, b_eq=force, bounds=bounds, method="highs-ds").x
    if found is None or found[signed].sum() >= _LESS * now[signed].sum():
        return s
    kept = ~signed | (found > _NONE * found[signed].max())
    y = np.zeros(held)
    y[kept] = np.linalg.lstsq(columns[kept].T, force, rcond=None)[0] * at.gradient
    lam, lam_lb, lam_ub = np.zeros(problem.m), s.lam_lb.copy(), s.lam_ub.copy()
    lam[rows] = y[p:count] / size[p:]
    lam_lb[lower], lam_ub[upper] = np.split(y[count:], [np.count_nonzero(lower)])
    return replace(s, nu=y[:p] / size[:p], lam=lam, lam_lb=lam_lb, lam_ub=lam_ub)
