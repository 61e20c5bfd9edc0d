"""From a solver's raw point to a Solution: polished on its active set, and judged by its KKT norm.

On the active set 𝒜 of a point the QP has equality constraints only, and its KKT system

    [P Cᵀ; C 0] [dz; dy] = [−∇L; d − Cz],   C = (A, G_𝒜),  coordinates on bounds fixed,

gives the exact point in one step, if 𝒜 is right. Where it is not, rows change sides and the next
system is solved: the primal-dual active set method of M. Hintermüller, K. Ito and K. Kunisch, SIAM
J. Optim. 13, 2002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from scipy import optimize

from ...problems.matrices import Array, block, stack_rows, to_dense
from ...problems.qp import QP
from ...problems.socp import SOCP
from ...problems.solution import Solution, SolveStatus, measure
from .active_set import ActiveSet, active_set, corrected
from .kkt import solve_equality_qp
from .protocol import SolverOptions

Point = TypeVar("Point", bound=Solution)

# Beyond this KKT norm an active set, and so a gradient, is a guess.
_USABLE = 1e-4
# Room for solvers that measure convergence in their own, slightly different units.
_SLACK = 10.0
_CERTAIN = 1e-2
_ROUNDING = 1e-11
_ROUNDS = 10
_EXACT = 1e-13
_ENOUGH = 1e-10
# A constraint this near, in the unit of z, may be active; so many entries are fitted at most.
_NEAR, _FITTED = 1e-6, 1 << 18


def finalize(
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

    A P that is not positive semidefinite is BAD_DATA, whatever the solver says. z is moved inside
    its bounds, duals of inequalities are made non-negative, and the point is polished
    (:func:`polished`) unless ``options`` say otherwise. The status follows the KKT norm alone
    (:func:`judge`): solved, inaccurate up to 1e-4, else the iteration limit.
    """
    if not problem.convex:  # where it curves downwards a KKT point proves nothing
        return Solution.failed(problem, SolveStatus.BAD_DATA, iterations=iterations, solver=solver)
    raw = (z, nu, lam, lam_lb, lam_ub)
    if not all(np.isfinite(part).all() for part in raw):
        return Solution.failed(
            problem, SolveStatus.ITERATION_LIMIT, iterations=iterations, solver=solver
        )
    z = np.clip(z, problem.lb, problem.ub)
    lam = np.maximum(lam, 0.0)
    lam_lb = np.where(np.isfinite(problem.lb), np.maximum(lam_lb, 0.0), 0.0)
    lam_ub = np.where(np.isfinite(problem.ub), np.maximum(lam_ub, 0.0), 0.0)
    point = Solution(z, nu, lam, lam_lb, lam_ub, None, None, iterations, solver)
    # A point so far out that numbers overflow has no norm, and is far from a solution.
    with np.errstate(over="ignore", invalid="ignore"):
        point = replace(point, kkt_norm=point.residuals(problem).norm)
        if options.polish:
            point = polished(problem, point)
    return replace(point, status=status_of(problem, point.kkt_norm, options))


def status_of(problem: QP | SOCP, kkt_norm: float, options: SolverOptions) -> SolveStatus:
    """:func:`judge`, but no point is solved where its norm cannot see every variable."""
    status = judge(kkt_norm, options.tolerance, exact=options.polish)
    return SolveStatus.INACCURATE if status is SolveStatus.SOLVED and problem.mixed else status


def judge(kkt_norm: float, eps: float, *, exact: bool) -> SolveStatus:
    """The status of a point from its KKT norm alone.

    A point is solved up to 10 eps. Of the point of an active set (``exact``) the norm is next to
    rounding where the set is right, so more is asked, eps / 100: one that nearly meets the
    conditions may be far from the solution where the objective is flat.
    """
    asked = _SLACK * eps
    if exact:
        asked = max(_CERTAIN * eps, min(asked, _ROUNDING))
    if kkt_norm <= asked:
        return SolveStatus.SOLVED
    return SolveStatus.INACCURATE if kkt_norm <= _USABLE else SolveStatus.ITERATION_LIMIT


def polished(problem: QP, point: Solution) -> Solution:
    """The exact point of the active set of ``point``, or ``point`` where none is better.

    On an active set the problem is an equality-constrained QP. A row that its solution violates
    joins the set, one whose dual has the wrong sign leaves it, and the next is solved: the
    primal-dual active set method (M. Hintermüller, K. Ito and K. Kunisch, 2002), which converges
    from any point near the solution. Where more rows meet than there are variables to fix, duals of
    the wrong sign do not mean a wrong set: then non-negative ones are looked for.
    """
    point = newton_on_active_set(partial(_newton, problem), point, active_set(problem, point))
    if point.kkt_norm <= _ENOUGH:
        return point
    fitted = _with_fitted_duals(problem, point)
    return point if fitted is None or not fitted.kkt_norm < point.kkt_norm else fitted


def newton_on_active_set(
    step: Callable[[Point, ActiveSet], tuple[Point, ActiveSet] | None],
    point: Point,
    active: ActiveSet,
    *,
    share: float = 1.0,
) -> Point:
    """The best point of at most ten Newton steps from ``point`` on its active set.

    Parameters
    ----------
    step : from a point and an active set to the point of that set, with its KKT norm, and the set
        that is active at this point; None where there is none.
    share : a step is taken where it makes the KKT norm smaller than this share of it.

    The steps end at a norm of 1e-13, at a set that no longer improves its point, and at one that
    has been tried.
    """
    seen: set[bytes] = set()
    for _ in range(_ROUNDS):
        if point.kkt_norm <= _EXACT:
            break
        seen.add(active.key)
        found = step(point, active)
        if found is None:
            break
        trial, following = found
        better = trial.kkt_norm < share * point.kkt_norm
        if better:
            point = trial
        if following.key == active.key:
            if not better:
                break
        elif following.key in seen:
            break
        active = following
    return point


def _newton(problem: QP, point: Solution, active: ActiveSet) -> tuple[Solution, ActiveSet]:
    """One Newton step of the KKT conditions on ``active``, and the set that is active there."""
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
    nu = point.nu + change[: problem.p]
    lam[rows] += change[problem.p :]
    gradient = problem.P @ z + problem.q + problem.A.T @ nu + problem.G.T @ lam
    raw = replace(point, z=z, nu=nu, lam=np.maximum(lam, 0.0))
    following = corrected(problem, raw, active, lam, gradient, -gradient)

    z = np.clip(z, problem.lb, problem.ub)
    lam = np.maximum(lam, 0.0)
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
    return replace(trial, kkt_norm=trial.residuals(problem).norm), following


def _with_fitted_duals(problem: QP, point: Solution) -> Solution | None:
    """``point`` on all constraints that it almost meets, with the duals that fit it best.

    None where there are none or that is too large, or no duals are found.
    """
    at = measure(problem, point.z, point.nu, point.lam, point.lam_lb, point.lam_ub)
    near, units, p, n = _NEAR * at.length, problem.scaling, problem.p, problem.n
    rows = at.slack <= near * units.rows_G
    lower, upper = at.to_lb <= near, at.to_ub <= near
    count = p + int(np.count_nonzero(rows))
    duals = count + np.count_nonzero(lower) + np.count_nonzero(upper)
    if not 0 < n * duals <= _FITTED:
        return None
    C = to_dense(stack_rows(problem.A, problem.G, rows))
    z = np.where(lower, problem.lb, np.where(upper, problem.ub, point.z))
    free = ~(lower | upper)
    missing = np.concatenate([problem.b, problem.h[rows]]) - C @ z
    gradient = problem.P @ z + problem.q + C.T @ np.concatenate([point.nu, point.lam[rows]])
    H = block(problem.P, free, free)
    z[free] += solve_equality_qp(H, gradient[free], C[:, free], missing)[0]
    z = np.clip(z, problem.lb, problem.ub)

    # The duals, each in the unit of its row; those of A are of either sign.
    unit = float(at.gradient)
    size = np.concatenate([units.rows_A, units.rows_G[rows]])
    C, eye = C / size[:, None], np.eye(n)
    columns = np.concatenate([-C[:p], C, -eye[lower], eye[upper]])
    force = -(problem.P @ z + problem.q) / unit
    if not (np.isfinite(force).all() and np.isfinite(columns).all()):  # numbers that overflow
        return None
    try:
        found, _ = optimize.nnls(columns.T, force)
    except RuntimeError:  # it ran into its limit
        return None
    minus, plus, at_lower, at_upper = np.split(
        found * unit, [p, p + count, p + count + np.count_nonzero(lower)]
    )
    plus[:p] -= minus
    lam, lam_lb, lam_ub = np.zeros(problem.m), np.zeros(n), np.zeros(n)
    lam[rows] = plus[p:] / size[p:]
    lam_lb[lower], lam_ub[upper] = at_lower, at_upper
    nu = plus[:p] / size[:p]
    trial = replace(point, z=z, nu=nu, lam=lam, lam_lb=lam_lb, lam_ub=lam_ub)
    return replace(trial, kkt_norm=trial.residuals(problem).norm)
