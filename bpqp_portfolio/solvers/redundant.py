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

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import linprog

from ..problems.matrices import Array, Matrix, is_sparse, row_sizes, to_dense

# Squared share of a row that may depend on the others, and singular values that are rounding.
SUSPECT = 1e-10
_RANK = 1e-11
# Weight of a multiplier that stays, beside 1 for one that is to vanish.
_STAYS = 1e-6
# Multipliers of this share of the largest are none.
_NONE = 1e-9
# A sparse problem with more active rows leaves the choice to its solver, near the least norm too.
_MOST_SPARSE = 400


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
