"""One cone ‖z + g‖ ≤ d around z, equalities, and an objective that curves alike everywhere.

min ½ δ‖z‖² + qᵀz  s.t.  Az = b, ‖z + g‖ ≤ d has a closed form: the point of least objective on the
sphere that the affine set cuts out of the ball, or inside it.
"""

from __future__ import annotations

import numpy as np

from ...problems.matrices import FactorMatrix, to_dense
from ...problems.socp import SOCP, ConePoint, SOCPSolution, linear
from ...problems.solution import SolveStatus
from .finalize import as_solution, point_norm
from .kkt import ActiveGroup

# Below this relative size a length is rounding, and the solution not unique or not attained.
_FLAT = 1e-12
_EXACT = 1e-11
# A dual above this relative size is not rounding.
_CLEAR = 1e-6
_DEPENDENT = 1e-9


def solve_ball(problem: SOCP) -> SOCPSolution | None:
    """min ½ δ‖z‖² + qᵀz  s.t.  Az = b, ‖z + g‖ ≤ d, in closed form; None for other problems.

    With y = z + g the objective is ½ δ‖y‖² + pᵀy, p = q − δg. With y₀ the shortest solution of
    Ay = b + Ag and p₁ the part of p along the null space of A, y = y₀ − p₁ min(1/δ, ρ/‖p₁‖) where
    ρ² = d² − ‖y₀‖²; the cone's dual is max(0, d (‖p₁‖/ρ − δ)). For A empty and δ = 0 that is
    z = −d q/‖q‖ − g. None as well where p₁ or ρ vanishes or A has dependent rows.
    """
    # Step 1: is the program of this form?
    qp, P = problem.qp, problem.qp.P
    if len(problem.groups) != 1 or qp.m or problem.bounded or not isinstance(P, FactorMatrix):
        return None
    group = problem.groups[0]
    if group.F is not None or len(group.d) != 1 or P.B.shape[1] or group.headed:
        return None
    radius, delta = float(group.d[0]), float(P.d[0])
    if radius <= 0.0 or (P is not linear(qp.n) and (P.d != delta).any()):
        return None
    # Step 2: y₀, and the part of p along the null space of A.
    p = qp.q - delta * group.g if delta else qp.q
    pull, rho = p, radius
    A = y0 = None
    if qp.p:
        if 2 * qp.p > qp.n:
            return None
        rows = problem.scaling.rows_A
        A, b = to_dense(qp.A) / rows[:, None], qp.b / rows
        # Q R = Aᵀ: an orthonormal basis of the rows.
        Q, R = np.linalg.qr(A.T)
        diagonal = np.abs(R.diagonal())
        if diagonal.min() <= _DEPENDENT * diagonal.max():
            return None
        y0 = Q @ np.linalg.solve(R.T, b + A @ group.g)
        pull = p - Q @ (Q.T @ p)
        pull = pull - Q @ (Q.T @ pull)
        left = radius**2 - float(y0 @ y0)
        if left <= _DEPENDENT * radius**2:
            return None
        rho = np.sqrt(left)
    size = float(np.sqrt(pull @ pull))
    if not size > _FLAT * float(np.sqrt(p @ p)):
        return None
    # Step 3: the solution, on the sphere or inside it, and its duals.
    binds = size > delta * rho
    y = pull * (-(rho / size) if binds else -1.0 / delta)
    if y0 is not None:
        y = y + y0
    tau = radius * (size / rho - delta) if binds else 0.0
    w = y * (-tau / radius)
    nu = qp.b
    if A is not None:
        # p + δy − w + Aᵀν = 0 along the rows.
        nu = -np.linalg.solve(R, Q.T @ (p + delta * y - w)) / problem.scaling.rows_A
    # Step 4: judged, and with its active set where that is beyond doubt.
    none = np.zeros(qp.n)
    point = ConePoint(y - group.g, nu, qp.h, none, none, ((np.array([tau]), w),))
    norm = point_norm(problem, point)
    if not norm <= _EXACT:
        return None
    known = None
    if size > (1.0 + _CLEAR) * delta * rho:
        yes = np.ones(1, dtype=bool)
        known = (ActiveGroup(group, yes, False, y / radius, radius, tau / radius),)
    return as_solution(problem, point, SolveStatus.SOLVED, norm, 0, "ball", known)
