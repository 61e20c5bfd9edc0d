"""Cone programs with few cones and dense data: an interior-point method that uses their structure.

Primal-dual path following with Nesterov–Todd scaling and Mehrotra's predictor and corrector, as in
L. Vandenberghe, The CVXOPT linear and quadratic cone program solvers, 2010, without a homogeneous
embedding: a certificate is recognised where the iterates become one. The scaling of a cone is the
identity but for one plane, so that ‖z‖ ≤ c of any length adds a multiple of I and two columns to
the Newton system (:mod:`~bpqp_portfolio.solvers.conic.newton`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...problems.bounds import BoundPlaces
from ...problems.matrices import Array, FactorMatrix, is_sparse, max_abs, scale_rows, to_dense
from ...problems.qp import Scaling
from ...problems.socp import SOCP, ConePoint, SOCPSolution
from ...problems.solution import SolveStatus
from ..common.protocol import SolverOptions
from .ball import solve_ball
from .base import ConeSolver
from .certificates import certified
from .finalize import finalize
from .newton import ConeBlock, ConeVector, NewtonSystem, nesterov_todd, wide

_ITERATIONS = 60
# From here Newton's method on the active set usually ends it.
_CLOSE = 1e-6
_DONE = 1e-11
_STEP = 0.99
_PROOF = 1e-7
_STUCK = 1e-6


@dataclass(frozen=True)
class ConicInterior(ConeSolver):
    """This package's own solver for cone programs with few cones and dense data.

    A ball around an affine set with an objective that does not bend it is solved in closed form
    (:mod:`~bpqp_portfolio.solvers.conic.ball`); the Solution's ``solver`` is then "ball". It has no
    native settings. Bounds that are equal become equalities.
    """

    name: str = "interior"
    settings: tuple[str, ...] = ()

    def cold(self, problem: SOCP, options: SolverOptions) -> SOCPSolution:
        found = solve_ball(problem)
        return _solve(problem, options, self.name) if found is None else found


@dataclass(frozen=True, eq=False)
class _Form:
    """min ½ xᵀPx + qᵀx, Ax = b, s = push(x) + e ≥ 0: objective, rows and cones of unit size.

    x is z and, for each group of two or more cones, t with ‖Fz + g‖ ≤ t ≤ cz + d, in the unit
    ``units.length``. The linear part of s is e − Lx, x − lb, ub − x.
    """

    problem: SOCP
    P: Any
    q: Array
    A: Array
    b: Array
    L: Array
    places: BoundPlaces
    cones: tuple[ConeBlock, ...]
    e: ConeVector
    units: Scaling

    @classmethod
    def of(cls, problem: SOCP) -> _Form:
        qp, n = problem.qp, problem.n
        units = problem.scaling
        length = units.length
        width = n + sum(len(g.d) > 1 and g.r > 0 for g in problem.groups)
        at = BoundPlaces.of(qp.lb, qp.ub)
        fixed, lower, upper = at.fixed, at.lower, at.upper
        A = np.zeros((qp.p + len(fixed), width))
        if qp.p:
            A[: qp.p, :n] = to_dense(scale_rows(qp.A, 1 / units.rows_A))
        A[np.arange(qp.p, len(A)), fixed] = 1.0
        b = np.concatenate([qp.b / units.rows_A, qp.lb[fixed]]) / length
        rows, right, cones, shifts = [], [], [], []
        if qp.m:
            rows.append(wide(to_dense(scale_rows(qp.G, 1 / units.rows_G)), width))
            right.append(qp.h / units.rows_G)
        column = n
        for group in problem.groups:
            size, single = group.size, len(group.d) == 1
            head, offset = np.zeros(width), 0.0
            if group.r and single:
                head[:n], offset = group.c[0] / size, float(group.d[0]) / size
            else:
                block = wide(-group.c / size, width)
                if group.r:
                    head[column] = 1.0
                    block[:, column] = 1.0
                    column += 1
                rows.append(block)
                right.append(group.d / size)
            if group.r:
                F = None if group.F is None else to_dense(group.F) / size
                cones.append(ConeBlock(head, F, 1.0 / size, n, single))
                shifts.append(np.concatenate([[offset], group.g / size]))
        L = np.concatenate(rows) if rows else np.zeros((0, width))
        right += [-qp.lb[lower], qp.ub[upper]]
        q = np.zeros(width)
        q[:n] = qp.q / units.gradient
        P = qp.P / (units.gradient / length)
        if is_sparse(P):
            P = to_dense(P)
        if width > n:
            P = _bordered(P, width)
        e = ConeVector(np.concatenate(right) / length, [shift / length for shift in shifts])
        return cls(problem, P, q, A, b, L, at, tuple(cones), e, units)

    def push(self, x: Array) -> ConeVector:
        """What s changes by with x."""
        linear = -(self.L @ x)
        lower, upper = self.places.lower, self.places.upper
        if len(lower) or len(upper):
            linear = np.concatenate([linear, x[lower], -x[upper]])
        return ConeVector(linear, [cone.push(x) for cone in self.cones])

    def pull(self, y: ConeVector) -> Array:
        """The transpose of :meth:`push`."""
        m, k = len(self.L), len(self.L) + len(self.places.lower)
        out = -(y.linear[:m] @ self.L)
        out[self.places.lower] += y.linear[m:k]
        out[self.places.upper] -= y.linear[k:]
        for cone, own in zip(self.cones, y.cones, strict=True):
            cone.pull(own, out)
        return out

    def point(self, x: Array, nu: Array, y: ConeVector) -> ConePoint:
        """The point of the original problem."""
        qp, n, unit = self.problem.qp, self.problem.n, self.units.gradient
        nu, on_fixed = nu[: qp.p] * unit / self.units.rows_A, nu[qp.p :] * unit
        linear = y.linear * unit
        lam, linear = linear[: qp.m] / self.units.rows_G, linear[qp.m :]
        duals, cones = [], iter(y.cones)
        for group in self.problem.groups:
            own = next(cones) * (unit / group.size) if group.r else np.zeros(1)
            if group.r and len(group.d) == 1:
                tau = own[:1]
            else:
                tau, linear = linear[: len(group.d)] / group.size, linear[len(group.d) :]
            duals.append((tau, own[1:]))
        on_lower, on_upper = np.split(linear, [len(self.places.lower)])
        lam_lb, lam_ub = self.places.duals(n, on_fixed, on_lower, on_upper)
        return ConePoint(x[:n] * self.units.length, nu, lam, lam_lb, lam_ub, tuple(duals))


def _bordered(P: Any, width: int) -> Any:
    """P with zeros for further variables."""
    if isinstance(P, FactorMatrix):
        B = np.zeros((width, P.B.shape[1]))
        B[: len(P.d)] = P.B
        return FactorMatrix(B, np.concatenate([P.d, np.zeros(width - len(P.d))]))
    out = np.zeros((width, width))
    out[: len(P), : len(P)] = P
    return out


def _solve(problem: SOCP, options: SolverOptions, name: str) -> SOCPSolution:
    form = _Form.of(problem)
    system = NewtonSystem(form.P, form.A, form.L, form.places, form.cones)
    degree = len(form.e.linear) + len(form.cones)
    one = ConeVector(np.ones(len(form.e.linear)), [_unit(len(v)) for v in form.e.cones])
    try:
        x, nu, s, y = _initial_point(form, system, one)
    except np.linalg.LinAlgError:
        return SOCPSolution.failed(problem, SolveStatus.ITERATION_LIMIT, iterations=0, solver=name)
    length = max(1.0, form.e.largest(), max_abs(form.b))
    limit = options.max_iterations or _ITERATIONS
    tried, count, least, best = _CLOSE, 0, np.inf, (x, nu, y)
    for count in range(limit + 1):
        # Step 1: residuals, and the certificates that the iterate may have become.
        Px, pulled, pushed = form.P @ x, form.pull(y) - nu @ form.A, form.push(x)
        Ax = form.A @ x
        off_x, off_nu, off_s = pulled - Px - form.q, form.b - Ax, pushed + form.e - s
        gap = s @ y
        for status in _proofs(form, x, nu, s, y, Px, Ax, pulled, pushed):
            proof = certified(problem, form.point(x, nu, y), status, count, name)
            if proof is not None:
                return proof
        # Step 2: near enough? Then Newton's method on the active set ends it.
        grown = max(1.0, max_abs(Px), max_abs(pulled))
        far = max(1.0, max_abs(x))
        error = max(max_abs(off_x) / grown, max_abs(off_nu) / length, off_s.largest() / length)
        error = max(error, gap / (grown * far))
        if error < least:
            least, best = error, (x, nu, y)
        if error <= _DONE or (options.polish and error <= tried):
            found = finalize(
                problem, form.point(x, nu, y), iterations=count, solver=name, options=options
            )
            if error <= _DONE or found.kkt_norm <= _DONE:
                return found
            tried = 1e-2 * error
        # Step 3: the next step along the central path.
        if count == limit:
            break
        try:
            step = _step(form, system, degree, gap, (s, y), (off_x, off_nu, off_s), one)
        except np.linalg.LinAlgError:
            break
        dx, dnu, ds, dy, by_s, by_y = step
        if not np.isfinite(by_s + by_y + dx.sum()) or max(by_s, by_y) < _STUCK:
            break
        x, s = x + by_s * dx, s + by_s * ds
        nu, y = nu + by_y * dnu, y + by_y * dy
    # Near a cone's boundary the scaling is singular, and a step may lose what was reached.
    return finalize(problem, form.point(*best), iterations=count, solver=name, options=options)


def _initial_point(
    form: _Form, system: NewtonSystem, one: ConeVector
) -> tuple[Array, Array, ConeVector, ConeVector]:
    """The least-squares point, its slacks and duals moved into the cones."""
    system.factor(None)
    x, nu = system.solve(-form.q - form.pull(form.e), form.b)
    residual = form.push(x) + form.e
    s, y = residual, -residual
    out = []
    for value in (s, y):
        depth = value.depth()
        out.append(value + (1.0 - depth) * one if depth <= 1e-8 * max(1.0, value.norm()) else value)
    return x, nu, out[0], out[1]


def _step(
    form: _Form,
    system: NewtonSystem,
    degree: int,
    gap: float,
    at: tuple[ConeVector, ConeVector],
    off: tuple[Array, Array, ConeVector],
    one: ConeVector,
) -> Any:
    """Mehrotra's step: (dx, dν, ds, dy, primal step length, dual step length)."""
    s, y = at
    off_x, off_nu, off_s = off
    W = nesterov_todd(s, y)
    system.factor(W)
    ell = W.times(y)

    def direction(u: ConeVector, keep: float) -> tuple[Array, Array, ConeVector, ConeVector]:
        """W dy + W⁻¹ ds = u beside the linear equations, of whose residuals ``keep`` is met."""
        load = W.over(u - W.over(off_s if keep == 1.0 else keep * off_s))
        dx, dnu = system.solve(keep * off_x + form.pull(load), keep * off_nu)
        moved = form.push(dx)
        dy = load - W.over(W.over(moved))
        return dx, dnu, moved + keep * off_s, dy

    # Predictor: straight to the solution; how far it gets decides the centring σ.
    _, _, ds, dy = direction(-ell, 1.0)
    alpha = min(1.0, s.reach(ds), y.reach(dy)) if degree else 1.0
    sigma = (1.0 - alpha) ** 3
    # Corrector: towards the central path at σ, second-order terms of the predictor included.
    product = W.over(ds).jordan(W.times(dy))
    u = ell.divide((sigma * gap / max(degree, 1)) * one - product) - ell
    dx, dnu, ds, dy = direction(u, 1.0 - sigma)
    by_s, by_y = min(1.0, _STEP * s.reach(ds)), min(1.0, _STEP * y.reach(dy))
    if not _is_linear(form.P):
        by_s = by_y = min(by_s, by_y)
    return dx, dnu, ds, dy, by_s, by_y


def _is_linear(P: Any) -> bool:
    """Whether P = 0: primal and dual steps may then differ."""
    return isinstance(P, FactorMatrix) and not (P.B.any() or P.d.any())


def _proofs(
    form: _Form,
    x: Array,
    nu: Array,
    s: ConeVector,
    y: ConeVector,
    Px: Array,
    Ax: Array,
    pulled: Array,
    pushed: ConeVector,
) -> list[SolveStatus]:
    """The certificates that the iterate seems to be, to 1e-7."""
    out = []
    value = form.b @ nu + form.e @ y
    if value < 0 and max_abs(pulled) <= _PROOF * -value:
        out.append(SolveStatus.PRIMAL_INFEASIBLE)
    descent = -(form.q @ x)
    if descent > 0 and max(max_abs(Px), max_abs(Ax), (s - pushed).largest()) <= _PROOF * descent:
        out.append(SolveStatus.DUAL_INFEASIBLE)
    return out


def _unit(k: int) -> Array:
    out = np.zeros(k)
    out[0] = 1.0
    return out
