"""From a point of a smooth program to a Solution: its duals, Newton steps, its status.

Let A, G be the Jacobians of h and g, s = −g the slacks. The duals of a primal point z minimise
‖∇f + Aᵀν + Gᵀλ‖² + Σ (λᵢ sᵢ)² over λ ≥ 0 (:func:`least_squares_duals`). The Newton steps are those
of the KKT conditions on the active rows, that is of the local QP (arXiv:2411.19285, Theorem 1),
whose backward QP is the program's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, optimize

from ...problems.convex import ConvexProgram, SmoothSolution, UndefinedError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import SolveStatus, point_units
from ..common.active_set import ActiveSet, active_set, corrected_rows
from ..common.finalize import judge, newton_on_active_set
from ..common.kkt import solve_equality_qp
from ..common.native import native
from ..common.protocol import SolverOptions

# A step that does not halve the KKT norm is not that of Newton's method near a solution.
_HALF = 0.5


@dataclass(frozen=True)
class RawPoint:
    """What a forward solver returns: z (n,), duals nu (p,) and lam (m,) or None, iterations."""

    z: Array
    nu: Array | None = None
    lam: Array | None = None
    iterations: int = 0


def finalize(
    program: ConvexProgram,
    raw: RawPoint,
    *,
    solver: str,
    options: SolverOptions,
    given: bool = False,
) -> SmoothSolution:
    """Solution at the point where a solver stopped, with its duals, KKT norm and local QP.

    The point is polished (:func:`polished`) unless ``options`` say otherwise; the status follows
    the KKT norm alone (:func:`~bpqp_portfolio.solvers.common.finalize.judge`). A point that is
    ``given``, by the caller, is never changed: it is solved up to 10 times the tolerance, else
    inaccurate. Missing duals are those of :func:`least_squares_duals`. A point where a value or
    derivative is not finite is none.
    """
    failed = SmoothSolution.failed(
        program, SolveStatus.ITERATION_LIMIT, iterations=raw.iterations, solver=solver
    )
    # Step 1: duals where the solver has none, and the KKT norm at the local QP.
    if not all(np.isfinite(v).all() for v in (raw.z, raw.nu, raw.lam) if v is not None):
        return failed
    nu, lam = raw.nu, raw.lam
    try:
        if nu is None or lam is None:
            nu, lam = least_squares_duals(program, raw.z)
        point = _at(program, replace(failed, z=raw.z, nu=nu, lam=lam))
    except UndefinedError:
        return failed
    # Step 2: Newton's method on the active set, and the status.
    polish = options.polish and not given
    if polish:
        point = polished(program, point)
    status = judge(point.kkt_norm, options.tolerance, exact=polish)
    if given and not status.usable:
        status = SolveStatus.INACCURATE
    return replace(point, status=status)


def _at(program: ConvexProgram, point: SmoothSolution) -> SmoothSolution:
    """``point`` with the local QP at it and its KKT norm there."""
    local = program.local_qp(point.z, point.nu, point.lam)
    return replace(point, local=local, kkt_norm=point.residuals(local).norm)


def least_squares_duals(program: ConvexProgram, z: Array) -> tuple[Array, Array]:
    """Duals ν (p,) and λ ≥ 0 (m,) that best explain a primal point.

    They minimise ‖∇f + Aᵀν + Gᵀλ‖² + Σ (λᵢ slackᵢ)², the squared residuals of stationarity and
    complementarity in the units of :func:`~bpqp_portfolio.problems.kkt_residuals`: slack, not a
    threshold, says how near a constraint is to being active. Exact at an exact point where duals
    are unique. ν is eliminated by a QR factorisation, λ found by non-negative least squares.

    Raises
    ------
    UndefinedError
        A value or derivative is not finite at z.
    """
    local = program.local_qp(z, np.zeros(program.p), np.zeros(program.m))
    units = local.scaling
    gradient = local.P @ z + local.q
    A = local.A / units.rows_A[:, None]
    G = local.G / units.rows_G[:, None]
    slack = np.maximum(local.h - local.G @ z, 0.0) / units.rows_G
    length, _ = point_units(units, np.abs(z).max(), 0.0)
    Q, R, order = linalg.qr(A.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(R))
    rank = int(np.count_nonzero(diagonal > 1e-12 * diagonal.max(initial=0.0)))
    Q, R = Q[:, :rank], R[:rank, :rank]

    lam = np.zeros(program.m)
    if program.m:
        rows = np.vstack([G.T - Q @ (Q.T @ G.T), np.diag(slack / length)])
        size = float(np.abs(gradient).max()) or 1.0
        target = np.concatenate([Q @ (Q.T @ gradient) - gradient, np.zeros(program.m)]) / size
        with native:
            lam = optimize.nnls(rows, target, maxiter=30 * (program.m + 10))[0] * size
    nu = np.zeros(program.p)
    nu[order[:rank]] = -linalg.solve_triangular(R, Q.T @ (gradient + G.T @ lam))
    return nu / units.rows_A, lam / units.rows_G


def polished(program: ConvexProgram, point: SmoothSolution) -> SmoothSolution:
    """Newton steps on the active set while each halves the KKT norm, at most ten.

    They go on beyond the tolerance: gradients inherit the accuracy of the point. The active set is
    corrected as in :func:`~bpqp_portfolio.solvers.common.finalize.polished`.
    """

    def step(at: SmoothSolution, active: ActiveSet) -> tuple[SmoothSolution, ActiveSet] | None:
        try:
            return _newton(program, at, active)
        except UndefinedError:
            return None

    return newton_on_active_set(step, point, active_set(_local(point), point), share=_HALF)


def _local(point: SmoothSolution) -> QP:
    """The local QP of a point that has one."""
    assert point.local is not None
    return point.local


def _newton(
    program: ConvexProgram, point: SmoothSolution, active: ActiveSet
) -> tuple[SmoothSolution, ActiveSet]:
    """A Newton step on the ``active`` rows, and the set that is active there."""
    local, rows = _local(point), active.rows
    lam = np.where(rows, point.lam, 0.0)
    C = np.vstack([local.A, local.G[rows]])
    slope = local.P @ point.z + local.q + local.A.T @ point.nu + local.G.T @ lam
    missing = np.concatenate([local.b, local.h[rows]]) - C @ point.z
    step, change = solve_equality_qp(local.P, slope, C, missing)
    nu = point.nu + change[: program.p]
    lam[rows] += change[program.p :]
    z = point.z + step
    trial = _at(program, replace(point, z=z, nu=nu, lam=np.maximum(lam, 0.0)))
    return trial, replace(active, rows=corrected_rows(_local(trial), trial, rows, lam))
