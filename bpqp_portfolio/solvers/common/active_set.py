"""Which constraints are active at a primal-dual point: those whose dual exceeds their slack.

With the point's units g of the gradient and s of z, row i of G, divided by its largest entry,
counts as active where λᵢ/g > (h − Gz)ᵢ/s. That is the prediction of the primal-dual active set
method (M. Hintermüller, K. Ito and K. Kunisch, SIAM J. Optim. 13, 2002): λᵢ − c (h − Gz)ᵢ > 0 for a
c > 0, here c = g/s, which makes the rule free of all units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import Measured, Solution, measure
from ...problems.stack import QPStack


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """Active inequality rows (m,) and coordinates on their lower or upper bound (n,), as masks.

    No coordinate is in both ``lower`` and ``upper``: one whose bounds are equal is in the one with
    the larger dual.
    """

    rows: Array
    lower: Array
    upper: Array

    @property
    def free(self) -> Array:
        """Coordinates on neither bound (n,)."""
        return ~(self.lower | self.upper)

    @property
    def key(self) -> bytes:
        """The set as a value that can be compared and hashed."""
        return np.concatenate([self.rows, self.lower, self.upper]).tobytes()


def active_set(
    problem: QP | QPStack, solution: Solution, measured: Measured | None = None
) -> ActiveSet:
    """Constraints whose dual exceeds their slack, both measured in the point's own units.

    Duals are divided by the gradient's unit, slacks by that of z
    (:class:`~bpqp_portfolio.problems.solution.Measured`), and each row of G is divided by its
    largest entry; a multiple of the objective or of a row therefore changes nothing. Under strict
    complementarity one of the two is zero and the other is not, so the rule is right for any
    reasonably accurate point. A weakly active constraint (both zero) counts as inactive: it is
    the side on which the constraint does not bind that is differentiated.
    """
    s = solution
    at = measured or measure(problem, s.z, s.nu, s.lam, s.lam_lb, s.lam_ub)
    units = problem.scaling.rows_G
    ratio = (at.gradient / at.length)[..., None]
    rows = s.lam * units > ratio * np.maximum(at.slack, 0.0) / units
    if not problem.bounded:
        none = np.zeros(s.z.shape, dtype=bool)
        return ActiveSet(rows=rows, lower=none, upper=none)
    lower = s.lam_lb > ratio * np.maximum(at.to_lb, 0.0)
    upper = s.lam_ub > ratio * np.maximum(at.to_ub, 0.0)
    fixed = problem.lb == problem.ub
    at_lower = s.lam_lb >= s.lam_ub
    return ActiveSet(
        rows=rows,
        lower=(lower & (~upper | at_lower)) | (fixed & at_lower),
        upper=(upper & ~(lower & at_lower)) | (fixed & ~at_lower),
    )


# A dual or a slack this far below 0, in the units of the point, is not rounding.
_WRONG = 1e-13


def corrected_rows(
    problem: QP, point: Solution, rows: Array, lam: Array, measured: Measured | None = None
) -> Array:
    """``rows`` (m,) of G less those whose dual in ``lam`` (m,) is below 0, and with those violated.

    ``lam`` are the duals on ``rows`` before they were made non-negative for ``point``.
    """
    s = point
    at = measured or measure(problem, s.z, s.nu, s.lam, s.lam_lb, s.lam_ub)
    units = problem.scaling.rows_G
    right = lam * units >= -_WRONG * at.gradient
    return (rows & right) | (at.slack < -_WRONG * at.length * units)


def corrected(
    problem: QP,
    point: Solution,
    active: ActiveSet,
    lam: Array,
    lam_lb: Array,
    lam_ub: Array,
    measured: Measured | None = None,
) -> ActiveSet:
    """``active`` less the constraints whose dual is below 0, and with those that are violated.

    The point is that of the active set, before it was moved inside its bounds; the duals (m,), (n,)
    and (n,) are those before they were made non-negative.
    """
    s = point
    at = measured or measure(problem, s.z, s.nu, s.lam, s.lam_lb, s.lam_ub)
    rows = corrected_rows(problem, point, active.rows, lam, at)
    if not problem.bounded:
        return ActiveSet(rows, active.lower, active.upper)
    least, fixed = -_WRONG * at.gradient, problem.lb == problem.ub
    lower = (active.lower & ((lam_lb >= least) | fixed)) | (at.to_lb < -_WRONG * at.length)
    upper = (active.upper & ((lam_ub >= least) | fixed)) | (at.to_ub < -_WRONG * at.length)
    return ActiveSet(rows, lower & ~(upper & active.upper), upper & ~(lower & ~active.upper))
