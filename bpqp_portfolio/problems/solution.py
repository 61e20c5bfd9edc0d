"""Solutions: the primal-dual point, how the solve ended, and its KKT residuals.

A point (z, ν, λ, λ_lb, λ_ub) solves a convex QP if and only if

    Pz + q + Aᵀν + Gᵀλ − λ_lb + λ_ub = 0,   Az = b,   Gz ≤ h,   lb ≤ z ≤ ub,

all λ ≥ 0, and each λ is zero where its constraint has slack (S. Boyd and L. Vandenberghe, Convex
Optimization, 2004, section 5.5.3).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, SupportsInt

import numpy as np

from .matrices import Array, times, times_transposed
from .qp import QP, Scaling
from .stack import QPStack

# Below this share of its data's units a point is 0 up to rounding.
ZERO = 1e-6
# Pz is a sum rounded relative to |P||z|: what cancels by more than this cannot be asked for.
CANCELLED = 1e-5
# But what is left of a force must be small beside the data's, however far z is.
_MOST = 10.0


class SolveStatus(enum.Enum):
    """How a solve ended; the value is a sentence, ``label`` a word or two, ``code`` an integer.

    Tensors of statuses hold codes, the better endings first: a usable point has a code of at most
    that of ``INACCURATE``.

    >>> SolveStatus.from_code(2).label, SolveStatus.BAD_DATA.code
    ('primal infeasible', 5)
    """

    SOLVED = "solved to the asked tolerance"
    INACCURATE = "a usable point, but its active set or its accuracy is in doubt"
    PRIMAL_INFEASIBLE = "primal infeasible: no point meets all constraints"
    DUAL_INFEASIBLE = "dual infeasible: the objective is unbounded below on the feasible set"
    ITERATION_LIMIT = "stopped (iteration limit or numerical trouble) far from a solution"
    BAD_DATA = "bad data: malformed, not finite, contradictory bounds, or not convex"

    @property
    def usable(self) -> bool:
        """Whether the point may be used: solved, or near enough for a meaningful gradient."""
        return self in (SolveStatus.SOLVED, SolveStatus.INACCURATE)

    @property
    def label(self) -> str:
        """The name as tables and metrics show it."""
        return self.name.lower().replace("_", " ")

    @property
    def code(self) -> int:
        """The integer that stands for this status in a tensor."""
        return list(SolveStatus).index(self)

    @classmethod
    def from_code(cls, code: SupportsInt) -> SolveStatus:
        """The status of an integer, or of a tensor with one entry.

        Raises
        ------
        ValueError
            No status has this code.
        """
        statuses = list(cls)
        if not 0 <= int(code) < len(statuses):
            raise ValueError(f"no SolveStatus has code {int(code)}; they are 0 to {len(cls) - 1}.")
        return statuses[int(code)]


def statuses(codes: Any) -> Any:
    """The statuses of a tensor or array of codes (T,), in an object array."""
    return np.array([SolveStatus.from_code(code) for code in codes.tolist()], dtype=object)


@dataclass(frozen=True)
class KKTResiduals:
    """Scaled violations of the optimality conditions; see :func:`kkt_residuals`."""

    stationarity: Any
    primal: Any
    dual: Any
    complementarity: Any

    @property
    def norm(self) -> Any:
        """The largest of the four, NaN if one is."""
        first = np.maximum(self.stationarity, self.primal)
        return np.maximum(first, np.maximum(self.dual, self.complementarity))


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
    ridge : ε‖z‖², what a layer's ridge adds to the objective at z; None without one.
    message : what is wrong with the data, or what the solver's package raised, in words; empty
        where neither is so, and for a batch an object array of the items' unless it is for all.
    factors : what a solver may leave for the backward QP; see ``solvers.dense``.

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
    solver: Any
    ridge: Any = None
    message: Any = ""
    factors: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def failed(cls, problem: Any, status: SolveStatus, *, iterations: int, solver: str) -> Solution:
        """A Solution of the :class:`QP` ``problem`` without a point: NaN everywhere.

        What stopped at the iteration limit is bad data where P is not positive semidefinite.
        """
        if status is SolveStatus.ITERATION_LIMIT and not problem.convex:
            status = SolveStatus.BAD_DATA
        n, p, m = problem.n, problem.p, problem.m
        z, nu, lam, lam_lb, lam_ub = (np.full(size, np.nan) for size in (n, p, m, n, n))
        return cls(z, nu, lam, lam_lb, lam_ub, status, float("nan"), iterations, solver)

    def residuals(self, problem: QP) -> KKTResiduals:
        """Scaled KKT residuals of one (numpy) point at ``problem``."""
        return kkt_residuals(problem, self.z, self.nu, self.lam, self.lam_lb, self.lam_ub)


def _largest(*values: Array) -> Array:
    """Largest absolute entry along the last axis of any of ``values``, at least 0."""
    found: Any = 0.0
    for value in values:
        if value.shape[-1]:
            found = np.maximum(found, np.abs(value).max(-1))
    return found


def _lowest(*values: Array) -> Array:
    """How far the smallest entry along the last axis of any of ``values`` is below 0."""
    found: Any = 0.0
    for value in values:
        if value.shape[-1]:
            found = np.maximum(found, -value.min(-1))
    return found


@dataclass(frozen=True, eq=False)
class Measured:
    """What residuals and active set of a point are read from, each computed once.

    ``gradient`` and ``length`` are the units of the gradient and of z (:func:`point_units`).
    ``stationarity`` (n,) is the gradient of the Lagrangian, ``equality``
    (p,) is Az − b, ``slack`` (m,), ``to_lb`` and ``to_ub`` (n,) are the distances to the
    inequalities.
    """

    gradient: Array
    length: Array
    stationarity: Array
    equality: Array
    slack: Array
    to_lb: Array
    to_ub: Array


def point_units(units: Scaling, length: Any, gradient: Any) -> tuple[Any, Any]:
    """The units of z and of the gradient at a point: (length, gradient), free of scale.

    ``length`` is ‖z‖∞ and ``gradient`` the largest entry of Pz and q. They are the units, so that
    an answer is right relative to its own size, unless they are nothing but rounding beside the
    problem's own (:class:`~bpqp_portfolio.problems.qp.Scaling`). The constraints' forces are no
    part of the gradient's: duals of dependent rows may cancel, and be of any size.
    """
    length = np.maximum(length, ZERO * units.length)
    cancelled = np.minimum(CANCELLED * units.curvature * length, _MOST * units.gradient)
    gradient = np.maximum(gradient, cancelled)
    return length, np.maximum(gradient, ZERO * units.gradient)


def measure(
    problem: QP | QPStack, z: Array, nu: Array, lam: Array, lam_lb: Array, lam_ub: Array
) -> Measured:
    """The point's distances from everything; a stack's come with its leading axis."""
    slope, from_A, from_G = (
        times(problem.P, z),
        times_transposed(problem.A, nu),
        times_transposed(problem.G, lam),
    )
    stationarity = slope + problem.q + from_A + from_G
    if problem.bounded or lam_lb.any() or lam_ub.any():
        stationarity = stationarity + (lam_ub - lam_lb)
    gradient = np.maximum(_largest(slope), problem.scaling.slope)
    length, gradient = point_units(problem.scaling, _largest(z), gradient)
    return Measured(
        gradient=gradient,
        length=length,
        stationarity=stationarity,
        equality=times(problem.A, z) - problem.b,
        slack=problem.h - times(problem.G, z),
        to_lb=z - problem.lb,
        to_ub=problem.ub - z,
    )


def kkt_residuals(
    problem: QP | QPStack,
    z: Array,
    nu: Array,
    lam: Array,
    lam_lb: Array,
    lam_ub: Array,
    measured: Measured | None = None,
) -> KKTResiduals:
    """Scaled residuals of the KKT conditions of ``problem`` at a point.

    With the units g of the gradient and s of z from :class:`Measured`, and every row of A and G
    divided by its largest entry (its dual multiplied by it):

    - stationarity: ‖Pz + q + Aᵀν + Gᵀλ − λ_lb + λ_ub‖∞ / g
    - primal: the largest violation of a row or bound / s
    - dual: the most negative of λ, λ_lb, λ_ub, or a dual of an infinite bound / g
    - complementarity: the largest product of a dual and its slack / (g s)

    So another unit of the objective, of a constraint or of z changes none of them. For a stack of
    problems the arrays and the residuals have its leading axis.
    """
    at = measured or measure(problem, z, nu, lam, lam_lb, lam_ub)
    units = problem.scaling
    slack = at.slack / units.rows_G
    scaled = lam * units.rows_G
    primal = np.maximum(_largest(at.equality / units.rows_A), _lowest(slack))
    dual, product = _lowest(scaled), _largest(scaled * slack)
    if problem.bounded or lam_lb.any() or lam_ub.any():
        for bound_dual, gap in ((lam_lb, at.to_lb), (lam_ub, at.to_ub)):
            finite = np.isfinite(gap)
            primal = np.maximum(primal, _lowest(gap))
            product = np.maximum(product, _largest(bound_dual * np.where(finite, gap, 0.0)))
            stray = _largest(np.where(finite, 0.0, bound_dual))
            dual = np.maximum(np.maximum(dual, _lowest(bound_dual)), stray)
    return KKTResiduals(
        stationarity=_largest(at.stationarity) / at.gradient,
        primal=primal / at.length,
        dual=dual / at.gradient,
        complementarity=product / at.gradient / at.length,
    )
