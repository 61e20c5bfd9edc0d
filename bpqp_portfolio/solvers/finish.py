"""From a solver's raw point to a Solution: polishing on the active set, and an honest status."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..problems.matrices import Array, block, stack_rows
from ..problems.qp import QP
from ..problems.solution import Solution, SolveStatus
from .active import active_set
from .kkt import solve_equality_qp
from .protocol import SolverOptions

# Beyond this KKT norm an active set, and so a gradient, is a guess.
_USABLE = 1e-4
# Room for solvers that measure convergence in their own, slightly different units.
_SLACK = 10.0
_ROUNDS = 3
_EXACT = 1e-13


def failed(problem: QP, status: SolveStatus, *, iterations: int, solver: str) -> Solution:
    """A Solution without a point: NaN everywhere."""
    n, p, m = problem.n, problem.p, problem.m
    z, nu, lam, lam_lb, lam_ub = (np.full(k, np.nan) for k in (n, p, m, n, n))
    return Solution(z, nu, lam, lam_lb, lam_ub, status, float("nan"), iterations, solver)


def finish(
    problem: QP,
    z: Array,
    nu: Array,
    lam: Array,
    lam_lb: Array,
    lam_ub: Array,
    *,
    iterations: int,
    solver: str,
    options: SolverOptions,
) -> Solution:
    """Solution at the point where a solver stopped without a certificate of infeasibility.

    z is moved inside its bounds, duals of inequalities are made non-negative, and the point is
    polished unless ``options`` say otherwise: on its active set the problem is an
    equality-constrained QP, whose exact solution replaces the point when that has the smaller KKT
    norm. The status follows the KKT norm alone:
    solved up to 10 eps, inaccurate up to 1e-4, else the iteration limit.
    """
    raw = (z, nu, lam, lam_lb, lam_ub)
    if not all(np.isfinite(part).all() for part in raw):
        return failed(problem, SolveStatus.ITERATION_LIMIT, iterations=iterations, solver=solver)
    z = np.clip(z, problem.lb, problem.ub)
    lam = np.maximum(lam, 0.0)
    lam_lb = np.where(np.isfinite(problem.lb), np.maximum(lam_lb, 0.0), 0.0)
    lam_ub = np.where(np.isfinite(problem.ub), np.maximum(lam_ub, 0.0), 0.0)
    point = Solution(z, nu, lam, lam_lb, lam_ub, None, None, iterations, solver)
    point = replace(point, kkt_norm=point.residuals(problem).norm)
    for _ in range(_ROUNDS if options.polish else 0):
        if point.kkt_norm <= _EXACT:
            break
        trial = _polish(problem, point)
        if not trial.kkt_norm < point.kkt_norm:
            break
        point = trial
    return replace(point, status=judge(point.kkt_norm, options.eps))


def judge(kkt_norm: float, eps: float) -> SolveStatus:
    """The status of a point from its KKT norm alone."""
    if kkt_norm <= _SLACK * eps:
        return SolveStatus.SOLVED
    return SolveStatus.INACCURATE if kkt_norm <= _USABLE else SolveStatus.ITERATION_LIMIT


def _polish(problem: QP, point: Solution) -> Solution:
    """One Newton step of the KKT conditions on the active set of ``point``."""
    active = active_set(problem, point)
    free, rows = active.free, active.rows
    z = np.where(active.lower, problem.lb, np.where(active.upper, problem.ub, point.z))
    lam = np.where(rows, point.lam, 0.0)
    C = stack_rows(problem.A, problem.G, rows)
    gradient = problem.P @ z + problem.q + problem.A.T @ point.nu + problem.G.T @ lam
    missing = np.concatenate([problem.b, problem.h[rows]]) - C @ z
    step, change = solve_equality_qp(
        block(problem.P, free, free), gradient[free], C[:, free], missing
    )
    z[free] += step
    z = np.clip(z, problem.lb, problem.ub)
    nu = point.nu + change[: problem.p]
    lam[rows] = np.maximum(lam[rows] + change[problem.p :], 0.0)
    gradient = problem.P @ z + problem.q + problem.A.T @ nu + problem.G.T @ lam
    fixed = problem.lb == problem.ub
    trial = replace(
        point,
        z=z,
        nu=nu,
        lam=lam,
        lam_lb=np.where(active.lower | fixed, np.maximum(gradient, 0.0), 0.0),
        lam_ub=np.where(active.upper | fixed, np.maximum(-gradient, 0.0), 0.0),
    )
    return replace(trial, kkt_norm=trial.residuals(problem).norm)
