"""Solutions: the primal-dual point, how the solve ended, and its KKT residuals."""

from __future__ import annotations

import enum
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from .matrices import Array, largest
from .qp import QP, Scaling


class SolveStatus(enum.Enum):
    """How a solve ended; the value says it in words."""

    SOLVED = "solved to the asked tolerance"
    INACCURATE = "a usable point, but its KKT norm is above the asked tolerance"
    PRIMAL_INFEASIBLE = "primal infeasible: no point meets all constraints"
    DUAL_INFEASIBLE = "dual infeasible: the objective is unbounded below on the feasible set"
    ITERATION_LIMIT = "stopped (iteration limit or numerical trouble) far from a solution"
    BAD_DATA = "bad data: malformed, not finite, contradictory bounds, or not convex"

    @property
    def usable(self) -> bool:
        """Whether the point may be used: solved, or near enough for a meaningful gradient."""
        return self in (SolveStatus.SOLVED, SolveStatus.INACCURATE)


@dataclass(frozen=True)
class KKTResiduals:
    """Scaled violations of the optimality conditions; see :func:`kkt_residuals`."""

    stationarity: float
    primal: float
    dual: float
    complementarity: float

    @property
    def norm(self) -> float:
        """The largest of the four, NaN if one is."""
        return float(np.max(astuple(self)))


@dataclass(frozen=True, eq=False)
class Solution:
    """A primal-dual point of one problem, or of a batch of them.

    With f(z) = ½ zᵀPz + qᵀz the Lagrangian is
    f + νᵀ(Az − b) + λᵀ(Gz − h) + λ_lbᵀ(lb − z) + λ_ubᵀ(z − ub), and λ, λ_lb, λ_ub ≥ 0.

    Parameters
    ----------
    z : (..., n); nu : (..., p); lam : (..., m); lam_lb, lam_ub : (..., n).
        Numpy from a solver (no batch dims), tensors from a layer. NaN where the status is not
        usable, except that a solver alone keeps the point it stopped at.
    status : a :class:`SolveStatus`; for a batch, an object array of them with the batch's shape.
    kkt_norm : scaled KKT norm of the point, NaN where there is none; shape of the batch.
    iterations : of the forward solver; shape of the batch.
    solver : name of the forward solver; for a batch whose items took several, an object array.

    A solver's own Solution of an infeasible problem holds the certificate: for a primal infeasible
    one duals (ν, λ, λ_lb, λ_ub), largest entry 1, with Aᵀν + Gᵀλ − λ_lb + λ_ub = 0 and
    bᵀν + hᵀλ − lbᵀλ_lb + ubᵀλ_ub < 0; for a dual infeasible one a direction z with Pz = 0 and
    qᵀz < 0 that never leaves the feasible set. A layer says which constraints those are.
    """

    z: Any
    nu: Any
    lam: Any
    lam_lb: Any
    lam_ub: Any
    status: Any
    kkt_norm: Any
    iterations: Any
    solver: str

    def residuals(self, problem: QP) -> KKTResiduals:
        """Scaled KKT residuals of one (numpy) point at ``problem``."""
        return kkt_residuals(problem, self.z, self.nu, self.lam, self.lam_lb, self.lam_ub)


def _largest(*values: Any) -> float:
    return float(max(np.max(np.abs(value), initial=0.0) for value in values))


def point_scales(
    problem: QP, z: Array, nu: Array, lam: Array, lam_lb: Array, lam_ub: Array
) -> tuple[float, float]:
    """Units (of the gradient, of z) in which a point's residuals are measured.

    The gradient's unit is the largest entry of Pz, q, Aᵀν, Gᵀλ, λ_lb, λ_ub and P, the last being
    the gradient's change over a unit step: accuracy is relative to the size of the data. The unit
    of z is max(1, ‖z‖∞): as in the solvers' own tolerances, 1 is taken to be not small.
    """
    gradient = _largest(
        problem.P @ z, problem.q, problem.A.T @ nu, problem.G.T @ lam, lam_lb, lam_ub
    )
    gradient = max(gradient, largest(problem.P))
    return gradient or 1.0, max(1.0, _largest(z))


def kkt_residuals(
    problem: QP, z: Array, nu: Array, lam: Array, lam_lb: Array, lam_ub: Array
) -> KKTResiduals:
    """Scaled residuals of the KKT conditions of ``problem`` at a point.

    With the units g of the gradient and s of z from :func:`point_scales`, and every row of A and G
    divided by its largest entry (its dual multiplied by it):

    - stationarity: ‖Pz + q + Aᵀν + Gᵀλ − λ_lb + λ_ub‖∞ / g
    - primal: the largest violation of a row or bound / s
    - dual: the most negative of λ, λ_lb, λ_ub, or a dual of an infinite bound / g
    - complementarity: the largest product of a dual and its slack / (g s)

    So a multiple of the objective or of a constraint changes none of them.
    """
    units = Scaling.of(problem)
    gradient, length = point_scales(problem, z, nu, lam, lam_lb, lam_ub)
    stationarity = problem.P @ z + problem.q + problem.A.T @ nu + problem.G.T @ lam
    stationarity = stationarity - lam_lb + lam_ub

    equality = (problem.A @ z - problem.b) / units.rows_A
    has_lb, has_ub = np.isfinite(problem.lb), np.isfinite(problem.ub)
    slack = np.concatenate(
        [
            (problem.h - problem.G @ z) / units.rows_G,
            (z - problem.lb)[has_lb],
            (problem.ub - z)[has_ub],
        ]
    )
    duals = np.concatenate([lam * units.rows_G, lam_lb[has_lb], lam_ub[has_ub]])
    unbounded = np.concatenate([lam_lb[~has_lb], lam_ub[~has_ub]])
    return KKTResiduals(
        stationarity=_largest(stationarity) / gradient,
        primal=_largest(equality, np.minimum(slack, 0.0)) / length,
        dual=_largest(np.minimum(duals, 0.0), unbounded) / gradient,
        complementarity=_largest(duals * slack) / (gradient * length),
    )
