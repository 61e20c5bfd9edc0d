"""Certificates that a cone program has no solution: checked, made clean, and as a Solution."""

from __future__ import annotations

import numpy as np

from ..problems.matrices import Array
from ..problems.qp import Scaling
from ..problems.socp import SOCP, ConePoint, SOCPSolution
from ..problems.solution import SolveStatus
from .conic_finish import as_solution, failed_cones

_CERTIFIED = 1e-6
# Smaller parts of a certificate, whose largest is 1, are left out of it.
_NOISE = 1e-9


def certified(
    problem: SOCP, claim: ConePoint, status: SolveStatus, iterations: int, solver: str
) -> SOCPSolution | None:
    """Solution with the certificate that ``claim`` holds, its duals or its z as ``status`` says.

    None where it does not prove that to 1e-6 of its own size.
    """
    primal = status is SolveStatus.PRIMAL_INFEASIBLE
    proof = (_primal_certificate if primal else _dual_certificate)(problem, claim)
    if proof is None:
        return None
    return as_solution(problem, proof, status, float("nan"), iterations, solver)


def _primal_certificate(problem: SOCP, point: ConePoint) -> ConePoint | None:
    """``point``'s duals, largest entry 1, if they prove that no point is feasible."""
    qp = problem.qp
    parts = [point.nu, point.lam, point.lam_lb, point.lam_ub, *sum(point.duals, ())]
    size = max((float(np.abs(v).max(initial=0.0)) for v in parts), default=0.0)
    if not 0.0 < size < np.inf:
        return None
    nu = np.where(np.abs(point.nu) > _NOISE * size, point.nu / size, 0.0)
    lam, lb, ub = (_positive(v / size) for v in (point.lam, point.lam_lb, point.lam_ub))
    duals = []
    for tau, w in point.duals:
        tau, w = _positive(tau / size), w / size
        norm = float(np.linalg.norm(w))
        duals.append((tau, w * min(1.0, tau.sum() / norm) if norm > 0 else w))
    value = qp.b @ nu + qp.h @ lam
    on_lb, on_ub = lb > 0, ub > 0
    value += qp.ub[on_ub] @ ub[on_ub] - qp.lb[on_lb] @ lb[on_lb]
    value += sum(g.d @ tau + g.g @ w for g, (tau, w) in zip(problem.groups, duals, strict=True))
    sums = qp.A.T @ nu + qp.G.T @ lam - lb + ub
    for group, (tau, w) in zip(problem.groups, duals, strict=True):
        sums = sums - tau @ group.c - group.pull(w)
    if not np.abs(sums).max() <= _CERTIFIED * -value:
        return None
    return ConePoint(np.full(qp.n, np.nan), nu, lam, lb, ub, tuple(duals))


def _positive(values: Array) -> Array:
    return np.where(values > _NOISE, values, 0.0)


def _dual_certificate(problem: SOCP, point: ConePoint) -> ConePoint | None:
    """``point``'s z, largest entry 1, if the objective falls for ever along it."""
    qp = problem.qp
    size = float(np.abs(point.z).max(initial=0.0))
    if not 0.0 < size < np.inf:
        return None
    z, units = point.z / size, Scaling.of(qp)
    descent = -(qp.q @ z) / units.objective
    wrong = [np.abs(qp.P @ z) / units.objective, np.abs(qp.A @ z) / units.rows_A]
    wrong += [(qp.G @ z) / units.rows_G, -z[np.isfinite(qp.lb)], z[np.isfinite(qp.ub)]]
    for group in problem.groups:
        wrong.append((np.linalg.norm(group.push(z)) - group.c @ z) / group.size)
    if not max(float(v.max(initial=0.0)) for v in wrong) <= _CERTIFIED * descent:
        return None
    nan = ConePoint.of(problem, failed_cones(problem, SolveStatus.DUAL_INFEASIBLE, 0, ""))
    return ConePoint(z, nan.nu, nan.lam, nan.lam_lb, nan.lam_ub, nan.duals)
