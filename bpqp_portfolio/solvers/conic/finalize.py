"""From a cone solver's raw point to a Solution: Newton's method on the active set, and a status.

The system of :mod:`.kkt` at the point's active set, with −∇L and the constraints' residuals on the
right, is Newton's method for the KKT conditions; a cone away from its apex bends, so that it takes
several steps. Each cone is classified anew from the signs of duals and slacks on the way, as rows
are in :mod:`~bpqp_portfolio.solvers.common.finalize`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...problems.matrices import Array
from ...problems.socp import (
    SOCP,
    ConePoint,
    SOCPSolution,
    lagrangian_gradient,
    measure_cones,
    socp_residuals,
)
from ...problems.solution import Measured, SolveStatus
from ..common.active_set import corrected
from ..common.finalize import status_of
from ..common.protocol import SolverOptions
from .kkt import ActiveGroup, ActiveSystem

_ROUNDS = 20
# So many steps in a row may bring no improvement.
_PATIENCE = 4
_EXACT = 1e-15
# Relative to the point's units: a smaller violation is rounding.
_NOISE = 1e-13
_ROUNDED = 1e-15


def newton_step(problem: SOCP, point: ConePoint) -> ConePoint:
    """One Newton step of the KKT conditions on the active set of ``point``."""
    return _inside(problem, _newton(problem, point, ActiveSystem.at(problem, point))[0])


def polished_cones(problem: SOCP, point: ConePoint) -> tuple[ConePoint, float]:
    """The exact point near ``point`` and its KKT norm, or ``point`` where none is better.

    As :func:`~bpqp_portfolio.solvers.common.finalize.polished` does for a QP the active set is
    corrected between the steps: what a step violates joins it, what has a dual of the wrong sign
    leaves it. A cone that binds is at its apex or away from it. It leaves the apex where its dual
    is outside the cone, or Fz + g = 0 and cᵀz + d = 0 have no solution, and goes there where cᵀz +
    d falls below 0: complementarity is a product, so a solver's point says which only of cones
    larger than the square root of its error.
    """
    norm = point_norm(problem, point)
    system = ActiveSystem.at(problem, point)
    worse = 0
    at, best = point, point
    for _ in range(_ROUNDS):
        if norm <= _EXACT or worse > (_PATIENCE if norm > _NOISE else 0):
            break
        at, following = _newton(problem, at, system)
        trial = _inside(problem, at)
        after = point_norm(problem, trial) if trial.finite() else np.inf
        if after < norm:
            best, norm, worse = trial, after, 0
        elif following is not None and following.key == system.key and not system.bent:
            break
        else:
            worse += 1
        if following is None:
            break
        system = following
    return best, norm


def _newton(
    problem: SOCP, point: ConePoint, system: ActiveSystem
) -> tuple[ConePoint, ActiveSystem | None]:
    """Where one Newton step on ``system`` leads, and the system there; None if it is not finite."""
    # Step 1: the residuals of the active constraints, coordinates on bounds moved there.
    qp, active = problem.qp, system.linear
    none = np.zeros(qp.n)
    z = point.z
    if problem.bounded:
        z = np.where(active.lower, qp.lb, np.where(active.upper, qp.ub, z))
    missing = [qp.b - qp.A @ z, (qp.h - qp.G @ z)[active.rows]]
    slacks, duals = [], []
    for a, (tau, w) in zip(system.groups, point.duals, strict=True):
        tau = np.where(a.rows, tau, 0.0)
        s0, s1 = a.group.heads(z)[a.rows], a.group.norm_vector(z)
        if a.apex:
            missing += [-s0, -s1]
        elif a.smooth:
            missing.append(s0 - a.normal @ s1)
            w = _smooth_dual(a, tau, s1)
        slacks.append(s1)
        duals.append((tau, w if a.rows.any() else np.zeros(a.group.r)))
    # Step 2: Newton's step in z and in the multipliers.
    lam = np.where(active.rows, point.lam, 0.0)
    start = ConePoint(z, point.nu, lam, none, none, tuple(duals))
    gradient, _ = lagrangian_gradient(problem, start)
    step, change = system.solve(none, gradient, np.concatenate(missing))
    d_nu, d_lam, d_cones = system.split(change)
    # Step 3: the duals of each cone after it.
    moved = []
    for a, (tau, w), s1, dual in zip(system.groups, duals, slacks, d_cones, strict=True):
        count = int(np.count_nonzero(a.rows))
        if a.apex:
            tau[a.rows] -= dual[:count]
            w = w - dual[count:]
        elif a.smooth:
            tau[a.rows] += dual
            # From the step, not from the new z, whose rounding is not small beside a small cone.
            w = _smooth_dual(a, tau, s1 + a.group.push(step))
        moved.append((tau, w))
    trial = ConePoint(z + step, point.nu + d_nu, lam + d_lam, none, none, tuple(moved))
    if problem.bounded:
        gradient, _ = lagrangian_gradient(problem, trial)
        at_lower = np.where(active.lower, gradient, 0.0)
        trial = replace(trial, lam_lb=at_lower, lam_ub=np.where(active.upper, -gradient, 0.0))
    # Step 4: how every constraint binds there.
    if not trial.finite():
        return trial, None
    at = measure_cones(problem, trial)
    groups = [
        _following_group(a, trial.z, tau, w, at)
        for a, (tau, w) in zip(system.groups, trial.duals, strict=True)
    ]
    linear = corrected(qp, trial, active, trial.lam, trial.lam_lb, trial.lam_ub, at)  # type: ignore[arg-type]
    return trial, ActiveSystem.of(problem, linear, groups)


def _smooth_dual(a: ActiveGroup, tau: Array, s1: Array) -> Array:
    """w of a cone away from its apex: along −u, and turned as Fz + g is."""
    return -tau.sum() * a.normal - a.curvature * (s1 - (a.normal @ s1) * a.normal)


def _following_group(a: ActiveGroup, z: Array, tau: Array, w: Array, at: Measured) -> ActiveGroup:
    """How a group of cones binds next, by the signs of its duals and slacks on the way."""
    group = a.group
    length, dual = _NOISE * at.length * group.size, -_NOISE * at.gradient / group.size
    heads, norm = group.heads(z), float(np.linalg.norm(group.norm_vector(z)))
    least = 0.0 if a.apex else norm
    rows = (a.rows & (tau >= dual)) | (heads < least - length)
    total, turned = float(tau[rows].sum()), float(np.linalg.norm(w))
    if a.apex:
        met = max(norm, float(np.abs(heads[a.rows]).max())) <= length
        apex = met and turned <= total * (1.0 + _ROUNDED)
    else:
        apex = bool(rows.any()) and float(heads[rows].min()) < -_ROUNDED * length
        apex = apex and (a.smooth or float(heads[rows].min()) <= -norm)
    unit = float(at.gradient / at.length) / group.size / group.size
    return ActiveGroup.on(group, rows, bool(apex), z, tau, w, unit)


def _inside(problem: SOCP, point: ConePoint) -> ConePoint:
    """``point`` with z inside its bounds and duals in their cones."""
    qp = problem.qp
    duals = []
    for group, (tau, w) in zip(problem.groups, point.duals, strict=True):
        tau, norm = np.maximum(tau, 0.0), float(np.linalg.norm(w))
        total = float(tau.sum())
        if norm > total:
            # τ has no part in ∇L where c = 0.
            tau, w = (tau, w * (total / norm)) if group.headed else (_raised(tau, norm), w)
        duals.append((tau, w))
    z, lb, ub = point.z, point.lam_lb, point.lam_ub
    if problem.bounded:
        z = np.clip(z, qp.lb, qp.ub)
        # A dual below 0 of a fixed coordinate is one of its other bound.
        fixed = qp.lb == qp.ub
        lb, ub = (
            np.maximum(np.where(fixed, lb - ub, lb), 0.0),
            np.maximum(np.where(fixed, ub - lb, ub), 0.0),
        )
    lb, ub = np.where(np.isfinite(qp.lb), lb, 0.0), np.where(np.isfinite(qp.ub), ub, 0.0)
    return ConePoint(z, point.nu, np.maximum(point.lam, 0.0), lb, ub, tuple(duals))


def _raised(tau: Array, total: float) -> Array:
    """``tau`` ≥ 0 with the sum ``total``."""
    return tau * (total / tau.sum()) if tau.any() else np.full(len(tau), total / len(tau))


def finalize(
    problem: SOCP, point: ConePoint, *, iterations: int, solver: str, options: SolverOptions
) -> SOCPSolution:
    """Solution at the point where a cone solver stopped without a certificate of infeasibility.

    As :func:`~bpqp_portfolio.solvers.common.finalize.finalize` does for a QP: z moves inside its
    bounds and duals into their cones, and unless ``options`` say otherwise the point is polished
    (:func:`polished_cones`). The status follows the KKT norm alone, once P is known to be positive
    semidefinite: that a point is stationary proves nothing elsewhere.
    """
    if not (point.finite() and problem.qp.convex):
        return SOCPSolution.failed(
            problem, SolveStatus.ITERATION_LIMIT, iterations=iterations, solver=solver
        )
    point = _inside(problem, point)
    if options.polish:
        point, norm = polished_cones(problem, point)
    else:
        norm = point_norm(problem, point)
    status = status_of(problem, norm, options)
    return as_solution(problem, point, status, norm, iterations, solver)


def point_norm(problem: SOCP, point: ConePoint) -> float:
    """The KKT norm of ``point``: its largest scaled residual."""
    r = socp_residuals(problem, point)
    return float(max(r.stationarity, r.primal, r.dual, r.complementarity))


def as_solution(
    problem: SOCP,
    point: ConePoint,
    status: SolveStatus,
    norm: float,
    iterations: int,
    solver: str,
    factors: Any = None,
) -> SOCPSolution:
    """``point`` as a Solution; ``factors`` are how its groups bind, where that is known."""
    fields = (point.z, point.nu, point.lam, point.lam_lb, point.lam_ub)
    cones = problem.spread(point.duals)
    return SOCPSolution(
        *fields, status, norm, iterations, solver, factors=factors, cone_duals=cones
    )
