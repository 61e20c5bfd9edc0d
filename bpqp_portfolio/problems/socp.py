"""One second-order cone program: its data, checked once, its solutions and their KKT residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ..errors import ProblemError
from .cone_groups import ConeGroup, grouped, lengths
from .matrices import Array, FactorMatrix, Matrix, is_sparse, max_abs
from .qp import QP, Scaling, _refuse_infinite, _to_array
from .solution import KKTResiduals, Measured, Solution, SolveStatus, point_units


class SecondOrderCone(NamedTuple):
    """The constraint ‖Fz + g‖₂ ≤ cᵀz + d.

    F (r, n), None for the identity (then r = n); g (r,) and c (n,), None for zero; d a number,
    infinity for no limit.
    In a layer each may carry leading batch dimensions.
    """

    F: Any
    g: Any
    c: Any
    d: Any


@dataclass(frozen=True, eq=False)
class SOCP:
    """min ½ zᵀPz + qᵀz  s.t.  Az = b,  Gz ≤ h,  lb ≤ z ≤ ub  and  ‖Fz + g‖ ≤ cᵀz + d per cone.

    Parameters
    ----------
    qp : objective and linear constraints; :func:`linear` gives a P = 0 for it.
    cones : a sequence of :class:`SecondOrderCone` or tuples (F, g, c, d). F may be scipy sparse.

    ``groups`` holds the cones as arrays, those with the same F and g together.

    Raises
    ------
    ProblemError
        Names the cone and its part: wrong shape, NaN or infinity.

    Examples
    --------
    The point of ‖z‖ ≤ 2 that goes furthest along (3, 4):

    >>> from bpqp_portfolio.solvers import get_solver
    >>> problem = SOCP(QP(linear(2), [-3.0, -4.0]), [(None, None, None, 2.0)])
    >>> get_solver("auto", "cone").solve(problem).z.round(6).tolist()
    [1.2, 1.6]
    """

    qp: QP
    cones: Sequence[Any]
    groups: tuple[ConeGroup, ...] = field(init=False)

    def __post_init__(self) -> None:
        arrays = [_cone_arrays(i, cone, self.qp) for i, cone in enumerate(self.cones)]
        object.__setattr__(self, "groups", grouped(arrays))

    @classmethod
    def of_checked(cls, qp: QP, cones: Sequence[tuple[Any, Array, Array, float]]) -> SOCP:
        """A program of cones whose parts are there, fit and are finite float64 arrays."""
        problem = object.__new__(cls)
        problem.__dict__.update(qp=qp, cones=cones, groups=grouped(cones))
        return problem

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.qp.n

    @property
    def bounded(self) -> bool:
        """Whether any bound is finite."""
        return self.qp.bounded

    @cached_property
    def scaling(self) -> Scaling:
        """The program's units: those of ``qp`` with a length of z that the cones take part in."""
        return Scaling.of(self.qp, *lengths(self.groups)) if self.groups else self.qp.scaling

    @property
    def mixed(self) -> bool:
        """Whether the units of single variables differ by more than a norm of z can see."""
        return self.qp.mixed

    @property
    def kkt_entries(self) -> int:
        """Entries of the KKT matrix without bounds, a group of cones being dense."""
        rows = self.qp.p + self.qp.m + sum(len(g.d) + g.r for g in self.groups)
        return (self.n + rows) ** 2

    def objective(self, z: Array) -> float:
        """½ zᵀPz + qᵀz."""
        return self.qp.objective(z)

    def gather(self, cone_duals: Sequence[Array]) -> tuple[tuple[Array, Array], ...]:
        """Duals (t, w) of each cone as (τ, w) of each group: τ (k,) its t's, w (r,) summed."""
        out = []
        for group in self.groups:
            own = [cone_duals[i] for i in group.members]
            out.append((np.array([v[0] for v in own]), np.sum([v[1:] for v in own], axis=0)))
        return tuple(out)

    def spread(self, duals: Sequence[tuple[Array, Array]]) -> tuple[Array, ...]:
        """The inverse of :meth:`gather`: w is shared out in proportion to τ."""
        out: list[Any] = [None] * len(self.cones)
        for group, (tau, w) in zip(self.groups, duals, strict=True):
            total = tau.sum()
            for i, t in zip(group.members, tau, strict=True):
                part = w * (t / total) if len(tau) > 1 and total > 0 else w / len(tau)
                out[i] = np.concatenate([[t], part])
        return tuple(out)


@cache
def linear(n: int) -> FactorMatrix:
    """P = 0 for a linear objective in n variables: one object, so that it is known by identity."""
    zero = FactorMatrix(np.zeros((n, 0)), np.zeros(n))
    zero.B.flags.writeable = zero.d.flags.writeable = False
    return zero


def cone_parts(index: int, cone: Any) -> SecondOrderCone:
    """``cone`` as a :class:`SecondOrderCone`, with the parts it must have.

    Raises
    ------
    ProblemError
        It is no tuple of four, or lacks d.
    """
    if not isinstance(cone, tuple | list) or len(cone) != 4:
        raise ProblemError(
            f"cones[{index}]: expected SecondOrderCone(F, g, c, d) or such a tuple, "
            f"got {type(cone).__name__}{f' of {len(cone)}' if hasattr(cone, '__len__') else ''}."
        )
    cone = SecondOrderCone(*cone)
    if cone.d is None:
        raise ProblemError(f"cones[{index}].d: missing; d is required (zero for no such term).")
    return cone


def check_cone_shapes(index: int, shapes: dict[str, tuple[int, ...] | None], n: int) -> int:
    """r of cone ``index`` whose parts have these shapes, leading batch dims allowed.

    Raises
    ------
    ProblemError
        The shapes do not go together.
    """
    r = None
    if shapes["F"] is not None:
        r = shapes["F"][-2] if len(shapes["F"]) >= 2 else -1
    else:
        r = n
    wanted = {"F": (r, n), "g": (r,), "c": (n,)}
    letters = {"F": "(..., r, n)", "g": "(..., r)", "c": "(..., n)"}
    for name, expected in wanted.items():
        shape = shapes[name]
        if shape is not None and tuple(shape[-len(expected) :]) != expected:
            text = ", ".join("r" if size < 0 else str(size) for size in expected)
            raise ProblemError(
                f"cones[{index}].{name}: expected shape (..., {text}), that is {letters[name]} "
                f"with F (r, n), F = None meaning the identity, got {tuple(shape)}."
            )
    return r


def _cone_arrays(index: int, cone: Any, qp: QP) -> tuple[Matrix | None, Array, Array, float]:
    n, parts = qp.n, cone_parts(index, cone)
    names = [f"cones[{index}].{k}" for k in SecondOrderCone._fields]
    F, g, c, d = (None if v is None else _to_array(k, v) for k, v in zip(names, parts, strict=True))
    shapes = {k: None if v is None else v.shape for k, v in zip("Fgc", (F, g, c), strict=True)}
    r = check_cone_shapes(index, shapes, n)
    g = np.zeros(r) if g is None else g
    c = np.zeros(n) if c is None else c
    for name, value, ndim in zip(names, (F, g, c, d), (2, 1, 1, 0), strict=True):
        if value is None:
            continue
        if value.ndim != ndim:
            raise ProblemError(
                f"{name}: one problem has no batch dimensions, got shape {value.shape}."
            )
        if ndim or value != np.inf:
            _refuse_infinite(name, value if ndim else value.reshape(1))
    if d == np.inf:  # no limit: ‖0‖ ≤ the unit of z
        empty = sparse.csr_array((r, n)) if is_sparse(F) else np.zeros((r, n))
        return empty, np.zeros(r), np.zeros(n), qp.scaling.length
    return F, g, c, float(np.asarray(d))


@dataclass(frozen=True, eq=False)
class SOCPSolution(Solution):
    """A primal-dual point of one cone program, or of a batch of them.

    The Lagrangian of :class:`~bpqp_portfolio.problems.Solution` has −t(cᵀz + d) − wᵀ(Fz + g) added
    for each cone, with t ≥ ‖w‖.

    ``cone_duals`` has (t, w) of each cone as one array (..., 1 + r). For cones that share F and g
    and meet at their common apex w is not unique; it is shared out in proportion to t.

    A certificate of primal infeasibility adds −Σ(ct + Fᵀw) to its first equation and
    Σ(dt + gᵀw) to its second; a direction of dual infeasibility has ‖Fz‖ ≤ cᵀz in each cone.
    """

    cone_duals: tuple[Any, ...] = ()

    @classmethod
    def failed(
        cls, problem: SOCP, status: SolveStatus, *, iterations: int, solver: str
    ) -> SOCPSolution:
        """A Solution of ``problem`` without a point; see :meth:`Solution.failed`."""
        blank = Solution.failed(problem.qp, status, iterations=iterations, solver=solver)
        sizes = {i: 1 + group.r for group in problem.groups for i in group.members}
        duals = tuple(np.full(sizes[i], np.nan) for i in range(len(sizes)))
        return cls(**vars(blank), cone_duals=duals)

    def fits(self, problem: SOCP) -> bool:
        """Whether this (numpy) point is finite and has the sizes of ``problem``."""
        sizes = (problem.n, problem.qp.p, problem.qp.m)
        cones = {i: 1 + group.r for group in problem.groups for i in group.members}
        return (
            (len(self.z), len(self.nu), len(self.lam)) == sizes
            and [len(dual) for dual in self.cone_duals] == [cones[i] for i in range(len(cones))]
            and bool(np.isfinite(self.z).all())
        )

    def residuals(self, problem: Any) -> KKTResiduals:
        """Scaled KKT residuals of one (numpy) point at the :class:`SOCP` ``problem``."""
        return socp_residuals(problem, ConePoint.of(problem, self))


@dataclass(frozen=True, eq=False)
class ConePoint:
    """A primal-dual point with the duals (τ (k,), w (r,)) of each group of cones."""

    z: Array
    nu: Array
    lam: Array
    lam_lb: Array
    lam_ub: Array
    duals: tuple[tuple[Array, Array], ...]

    @classmethod
    def of(cls, problem: SOCP, solution: SOCPSolution) -> ConePoint:
        """The point of ``solution``."""
        s = solution
        duals = problem.gather(s.cone_duals)
        return cls(s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, duals)

    def finite(self) -> bool:
        """Whether every number is finite."""
        parts = [self.z, self.nu, self.lam, self.lam_lb, self.lam_ub, *sum(self.duals, ())]
        return all(np.isfinite(part).all() for part in parts)


def lagrangian_gradient(problem: SOCP, point: ConePoint) -> tuple[Array, float]:
    """∇L (n,) at a point, and the largest entry of Pz and q."""
    qp, s = problem.qp, point
    terms, unit = [qp.q], problem.scaling.slope
    if qp.P is not linear(qp.n):
        terms.append(qp.P @ s.z)
        unit = max(unit, max_abs(terms[-1]))
    if problem.bounded or s.lam_lb.any() or s.lam_ub.any():
        terms += [-s.lam_lb, s.lam_ub]
    if qp.p:
        terms.append(qp.A.T @ s.nu)
    if qp.m:
        terms.append(qp.G.T @ s.lam)
    for group, (tau, w) in zip(problem.groups, s.duals, strict=True):
        terms.append(-group.pull(w))
        if group.headed:
            terms.append(-(tau @ group.c))
    return np.sum(terms, axis=0), unit


def measure_cones(problem: SOCP, point: ConePoint) -> Measured:
    """What residuals and active set of a point are read from, as
    :func:`~bpqp_portfolio.problems.solution.measure` has it for a QP."""
    qp, z = problem.qp, point.z
    stationarity, terms = lagrangian_gradient(problem, point)
    length, gradient = point_units(problem.scaling, max_abs(z), terms)
    return Measured(
        gradient=gradient,
        length=length,
        stationarity=stationarity,
        equality=qp.A @ z - qp.b,
        slack=qp.h - qp.G @ z,
        to_lb=z - qp.lb,
        to_ub=qp.ub - z,
    )


def socp_residuals(problem: SOCP, point: ConePoint) -> KKTResiduals:
    """Scaled residuals of the KKT conditions of a cone program at a point.

    As :func:`~bpqp_portfolio.problems.kkt_residuals`; each cone is divided by the largest entry of
    its F and c and its dual multiplied by it. Its slack is s = (cᵀz + d, Fz + g), its dual
    y = (t, w); both belong to the cone K of vectors whose first entry is at least the norm of the
    others. Primal and dual residuals are how far they are outside K, complementarity is the norm
    of the Jordan product (sᵀy, s₀w + t s₁), which is zero exactly for complementary pairs and,
    unlike sᵀy alone, measures an angle between them to first order.
    """
    qp, s, units = problem.qp, point, problem.scaling
    at = measure_cones(problem, s)
    primal, dual, product = [0.0], [0.0], [0.0]
    if qp.p:
        primal.append(max_abs(at.equality / units.rows_A))
    slacks, duals = [], []
    if qp.m:
        slacks.append(at.slack / units.rows_G)
        duals.append(s.lam * units.rows_G)
    bounds = ((s.lam_lb, at.to_lb), (s.lam_ub, at.to_ub)) if problem.bounded else ()
    for lam, slack in bounds:
        finite = np.isfinite(slack)
        slacks.append(slack[finite])
        duals.append(lam[finite])
        dual.append(max_abs(lam[~finite]))
    if not problem.bounded:
        dual.append(max(max_abs(s.lam_lb), max_abs(s.lam_ub)))
    if slacks and sum(map(len, slacks)):
        slack, lam = np.concatenate(slacks), np.concatenate(duals)
        primal.append(-slack.min())
        dual.append(-lam.min())
        product.append(max_abs(slack * lam))
    for group, (tau, w) in zip(problem.groups, s.duals, strict=True):
        size = group.size
        s1, s0 = group.norm_vector(s.z) / size, group.heads(s.z) / size
        tau, w = tau * size, w * size
        total, norm = tau.sum(), float(np.linalg.norm(s1))
        primal.append(norm - s0.min())
        dual += [float(np.linalg.norm(w)) - total, -tau.min()]
        # (t, w)ᵢ = (τᵢ, w τᵢ/Στ): summed over the group s₀w is (Σ τᵢ s₀ᵢ / Στ) w.
        mean = float(tau @ s0) / total if total > 0 else float(s0.max())
        product += [max_abs(tau * (s0 - norm)), abs(mean * total + w @ s1)]
        product.append(float(np.linalg.norm(mean * w + total * s1)))
    return KKTResiduals(
        stationarity=max_abs(at.stationarity) / at.gradient,
        primal=max(primal) / at.length,
        dual=max(dual) / at.gradient,
        complementarity=max(product) / (at.gradient * at.length),
    )
