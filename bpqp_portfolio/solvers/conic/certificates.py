"""Certificates that a cone program has no solution: checked, made clean, and as a Solution.

As those of a QP (:mod:`~bpqp_portfolio.solvers.common.certificates`), with duals (t, w), ‖w‖ ≤ t,
of the cones: −Σ(ct + Fᵀw) joins the sum that vanishes and Σ(dt + gᵀw) the one that is negative; a
ray z also has ‖Fz‖ ≤ cᵀz (S. Boyd and L. Vandenberghe, Convex Optimization, 2004, section 5.9.4).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...problems.matrices import max_abs
from ...problems.socp import SOCP, ConePoint, SOCPSolution
from ...problems.solution import SolveStatus
from ..common import certificates
from .finalize import as_solution

_CERTIFIED = 1e-6
# Smaller parts of a certificate, whose largest is 1, are left out of it.
_NOISE = 1e-9
# What is left of a sum may be its rounding.
_ROUNDING = 1e-12


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


def describe_infeasibility(problem: SOCP, solution: SOCPSolution) -> str:
    """:func:`~bpqp_portfolio.solvers.common.certificates.describe_infeasibility` with the cones
    that take part."""
    linear = certificates.describe_infeasibility(problem.qp, solution)
    if solution.status is not SolveStatus.PRIMAL_INFEASIBLE:
        return linear
    places = np.flatnonzero([dual[0] > 0 for dual in solution.cone_duals])
    return "; ".join(filter(None, [linear, certificates.numbered("cone", "cones", places)]))


def _primal_certificate(problem: SOCP, point: ConePoint) -> ConePoint | None:
    """``point``'s duals, largest entry 1, if they prove that no point is feasible."""
    qp, units = problem.qp, problem.scaling
    parts = [point.nu * units.rows_A, point.lam * units.rows_G, point.lam_lb, point.lam_ub]
    parts += [group.size * v[0] for group, v in zip(problem.groups, point.duals, strict=True)]
    unit = max(map(max_abs, parts))
    if not 0.0 < unit < np.inf:
        return None
    # Noise is what is small in the units of its row; the size is that of the entries themselves.
    noise = _NOISE * unit
    nu = np.where(np.abs(parts[0]) > noise, point.nu, 0.0)
    lam, lb, ub = (
        np.where(part > noise, v, 0.0)
        for part, v in zip(parts[1:4], (point.lam, point.lam_lb, point.lam_ub), strict=True)
    )
    kept = [
        (np.where(part > noise, tau, 0.0), w)
        for part, (tau, w) in zip(parts[4:], point.duals, strict=True)
    ]
    size = max(map(max_abs, [nu, lam, lb, ub, *sum(kept, ())]))
    if not 0.0 < size < np.inf:
        return None
    nu, lam, lb, ub = nu / size, lam / size, lb / size, ub / size
    duals = []
    for tau, w in kept:
        tau, w = tau / size, w / size
        norm = float(np.linalg.norm(w))
        duals.append((tau, w * min(1.0, tau.sum() / norm) if norm > 0 else w))
    on_lb, on_ub = lb > 0, ub > 0
    terms = [qp.b * nu, qp.h * lam, qp.ub[on_ub] * ub[on_ub], -qp.lb[on_lb] * lb[on_lb]]
    for group, (tau, w) in zip(problem.groups, duals, strict=True):
        terms += [group.d * tau, group.g * w]
    values = np.concatenate(terms)
    proved = -values.sum()
    sums = qp.A.T @ nu + qp.G.T @ lam - lb + ub
    for group, (tau, w) in zip(problem.groups, duals, strict=True):
        sums = sums - tau @ group.c - group.pull(w)
    error = np.abs(sums).max() * units.length
    if not (error <= _CERTIFIED * proved and proved > _ROUNDING * np.abs(values).sum()):
        return None
    return ConePoint(np.full(qp.n, np.nan), nu, lam, lb, ub, tuple(duals))


def _dual_certificate(problem: SOCP, point: ConePoint) -> ConePoint | None:
    """``point``'s z, largest entry 1, if the objective is unbounded along it."""
    qp = problem.qp
    size = max_abs(point.z)
    if not 0.0 < size < np.inf:
        return None
    z, units = point.z / size, problem.scaling
    descent = -(qp.q @ z) / units.gradient
    wrong = [np.abs(qp.P @ z) * (units.length / units.gradient), np.abs(qp.A @ z) / units.rows_A]
    wrong += [(qp.G @ z) / units.rows_G, -z[np.isfinite(qp.lb)], z[np.isfinite(qp.ub)]]
    for group in problem.groups:
        wrong.append((np.linalg.norm(group.push(z)) - group.c @ z) / group.size)
    error = max(float(v.max(initial=0.0)) for v in wrong)
    rounding = _ROUNDING * np.abs(qp.q * z).sum() / units.gradient
    if not (error <= _CERTIFIED * descent and descent > rounding):
        return None
    nan = SOCPSolution.failed(problem, SolveStatus.DUAL_INFEASIBLE, iterations=0, solver="")
    return replace(ConePoint.of(problem, nan), z=z)
