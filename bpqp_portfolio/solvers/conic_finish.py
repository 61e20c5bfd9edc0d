"""From a cone solver's raw point to a Solution: Newton's method on the active set, and a status."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..problems.socp import SOCP, ConePoint, SOCPSolution, lagrangian_gradient, socp_residuals
from ..problems.solution import SolveStatus
from .conic_system import ActiveSystem
from .finish import judge
from .protocol import SolverOptions

_ROUNDS = 6
_EXACT = 1e-14


def newton_step(problem: SOCP, point: ConePoint) -> ConePoint:
    """One Newton step of the KKT conditions on the active set of ``point``."""
    qp, system = problem.qp, ActiveSystem.at(problem, point)
    active = system.linear
    z = np.where(active.lower, qp.lb, np.where(active.upper, qp.ub, point.z))
    lam = np.where(active.rows, point.lam, 0.0)
    missing, duals = [], []
    if qp.p:
        missing.append(qp.b - qp.A @ z)
    if active.rows.any():
        missing.append((qp.h - qp.G @ z)[active.rows])
    for a, (tau, w) in zip(system.groups, point.duals, strict=True):
        tau = np.where(a.rows, tau, 0.0)
        s0 = a.group.heads(z)[a.rows]
        s1 = a.group.norm_vector(z)
        if a.apex:
            missing += [-s0, -s1]
        elif a.rows.any():
            missing.append(s0 - np.linalg.norm(s1))
        duals.append((tau, w if a.apex else -tau.sum() * a.normal))
    start = ConePoint(z, point.nu, lam, np.zeros(qp.n), np.zeros(qp.n), tuple(duals))
    gradient, _ = lagrangian_gradient(problem, start)
    rest = np.concatenate(missing) if missing else np.zeros(0)
    step, change = system.solve(np.zeros(qp.n), gradient, rest)
    z = np.clip(z + step, qp.lb, qp.ub) if problem.bounded else z + step
    d_nu, d_lam, d_cones = system.split(change)
    lam = np.maximum(lam + d_lam, 0.0)
    moved = []
    for a, (tau, w), change in zip(system.groups, duals, d_cones, strict=True):
        count = int(np.count_nonzero(a.rows))
        if a.apex:
            tau[a.rows] -= change[:count]
            w = w - change[count:]
        elif count:
            tau[a.rows] += change[:count]
        tau = np.maximum(tau, 0.0)
        if not a.apex:
            s1 = a.group.norm_vector(z)
            norm = float(np.linalg.norm(s1))
            w = -tau.sum() * (s1 / norm if norm > 0 else a.normal)
        moved.append((tau, w))
    trial = ConePoint(z, point.nu + d_nu, lam, start.lam_lb, start.lam_ub, tuple(moved))
    if not problem.bounded:
        return trial
    gradient, _ = lagrangian_gradient(problem, trial)
    fixed = qp.lb == qp.ub
    return replace(
        trial,
        lam_lb=np.where(active.lower | fixed, np.maximum(gradient, 0.0), 0.0),
        lam_ub=np.where(active.upper | fixed, np.maximum(-gradient, 0.0), 0.0),
    )


def finish_cones(
    problem: SOCP, point: ConePoint, *, iterations: int, solver: str, options: SolverOptions
) -> SOCPSolution:
    """Solution at the point where a cone solver stopped without a certificate of infeasibility.

    As :func:`~bpqp_portfolio.solvers.finish.finish` does for a QP: z moves inside its bounds and
    duals into their cones; unless ``options`` say otherwise Newton's method on the active set
    continues while it lowers the KKT norm; the status follows that norm alone.
    """
    if not point.finite():
        return failed_cones(problem, SolveStatus.ITERATION_LIMIT, iterations, solver)
    qp = problem.qp
    duals = []
    for tau, w in point.duals:
        tau, norm = np.maximum(tau, 0.0), float(np.linalg.norm(w))
        duals.append((tau, w * min(1.0, tau.sum() / norm) if norm > 0 else w))
    point = ConePoint(
        np.clip(point.z, qp.lb, qp.ub),
        point.nu,
        np.maximum(point.lam, 0.0),
        np.where(np.isfinite(qp.lb), np.maximum(point.lam_lb, 0.0), 0.0),
        np.where(np.isfinite(qp.ub), np.maximum(point.lam_ub, 0.0), 0.0),
        tuple(duals),
    )
    norm = point_norm(problem, point)
    for _ in range(_ROUNDS if options.polish else 0):
        if norm <= _EXACT:
            break
        trial = newton_step(problem, point)
        after = point_norm(problem, trial) if trial.finite() else np.inf
        if not after < norm:
            break
        point, norm = trial, after
    status = judge(norm, options.eps, exact=False)
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


def failed_cones(problem: SOCP, status: SolveStatus, iterations: int, solver: str) -> SOCPSolution:
    """A Solution without a point: NaN everywhere."""
    n, p, m = problem.n, problem.qp.p, problem.qp.m
    z, nu, lam, lb, ub = (np.full(k, np.nan) for k in (n, p, m, n, n))
    duals = tuple((np.full(len(g.d), np.nan), np.full(g.r, np.nan)) for g in problem.groups)
    point = ConePoint(z, nu, lam, lb, ub, duals)
    return as_solution(problem, point, status, float("nan"), iterations, solver)
