"""Newton's method for smooth programs: each step a convex QP, a line search on the l1 merit.

With H = ∇²(f + νᵀh + λᵀg) at an iterate z the step d solves the local QP

    min ½ dᵀHd + ∇fᵀd   s.t.   h + Ad = 0,  g + Gd ≤ 0,

H made convex by the absolute values of its eigenvalues where it is not, and, where the linearised
constraints contradict each other, with a price on their violation. A step that does not halve the
KKT norm is shortened until it lowers f + Σ wᵢ|hᵢ| + Σ wᵢ max(gᵢ, 0), with Powell's weights w.
J. Nocedal and S. J. Wright, Numerical Optimization, 2006, sections 18.1 to 18.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ...problems.convex import ConvexProgram, UndefinedError
from ...problems.matrices import Array, row_sizes
from ...problems.qp import QP
from ...problems.solution import Solution, kkt_residuals, point_units
from ..common.protocol import Solver, SolverOptions
from .base import SmoothSolver
from .finalize import RawPoint

_ITERATIONS = 100
# The local QPs need not be solved more exactly than this.
_QP_TOLERANCE = 1e-9
_CURVATURE = 1e-8
_DECREASE = 1e-4
_HALVINGS = 40
_STALLED = 1e-14
# Price of a violated constraint, in units of the gradient, where no step can meet them all.
_PRICE = 1e3


@dataclass(frozen=True, eq=False)
class _Iterate:
    z: Array
    nu: Array
    lam: Array
    local: QP
    norm: float

    @classmethod
    def at(cls, program: ConvexProgram, z: Array, nu: Array, lam: Array) -> _Iterate:
        local, none = program.local_qp(z, nu, lam), np.zeros(program.n)
        return cls(z, nu, lam, local, kkt_residuals(local, z, nu, lam, none, none).norm)


@dataclass(frozen=True)
class SQPSolver(SmoothSolver):
    """Sequential quadratic programming with the exact Hessian of the Lagrangian.

    J. Nocedal and S. J. Wright, Numerical Optimization, 2006, chapter 18. A point where a value is
    not finite counts as infinitely bad, so iterates stay in the domain of f. ``qp_solvers`` finds a
    solver of QPs by its name.

    Settings: ``maxiter`` (100), ``qp_solver`` (a QP solver's name, "clarabel").
    """

    qp_solvers: Callable[[str], Solver[QP, Solution]]
    name: str = "sqp"
    settings: tuple[str, ...] = ("maxiter", "qp_solver")

    def find(self, program: ConvexProgram, options: SolverOptions) -> RawPoint:
        solver = self.qp_solvers(options.native.get("qp_solver", "clarabel"))
        eps = options.tolerance
        limit = options.native.get("maxiter", options.max_iterations or _ITERATIONS)
        settings = SolverOptions(tolerance=max(eps, _QP_TOLERANCE))
        weights = np.zeros(program.p + program.m)
        x = _Iterate.at(program, program.initial_point, np.zeros(program.p), np.zeros(program.m))
        best, iteration = x.norm, 0
        while x.norm > eps and iteration < limit:
            iteration += 1
            # Step 1: the local QP, and the weights of the merit function, at least its duals.
            found = _solve_local(solver, x, settings)
            if not found.status.usable:
                break
            step = found.z[: program.n]
            duals = np.abs(np.concatenate([found.nu, found.lam[: program.m]]))
            weights = np.maximum(duals, 0.5 * (weights + duals))
            # Step 2: the full step where it halves the best KKT norm, else one that lowers the
            # merit function.
            trial = _moved(program, x, found, 1.0)
            if trial is None or not trial.norm <= 0.5 * best:
                length = _line_search(program, x, step, weights)
                if length < 1.0:
                    trial = _moved(program, x, found, length) if length > 0 else None
            if trial is None:
                break
            # Step 3: stop where nothing moves any more.
            stalled = np.abs(trial.z - x.z).max() <= _STALLED * np.abs(x.z).max()
            stalled = stalled and not trial.norm < x.norm
            x, best = trial, min(best, trial.norm)
            if stalled:
                break
        return RawPoint(x.z, x.nu, x.lam, iteration)


def _moved(program: ConvexProgram, x: _Iterate, found: Solution, length: float) -> _Iterate | None:
    """The iterate after ``length`` of a step, in the duals too; None where it is undefined."""
    z = x.z + length * found.z[: program.n]
    nu = x.nu + length * (found.nu - x.nu)
    lam = x.lam + length * (found.lam[: program.m] - x.lam)
    try:
        return _Iterate.at(program, z, nu, lam)
    except UndefinedError:
        return None


def _solve_local(solver: Solver[QP, Solution], x: _Iterate, settings: SolverOptions) -> Solution:
    """The local QP made convex, in the step from x; elastic where that has no feasible point.

    Its first n entries of z, p of ν and m of λ are those of the step.
    """
    local = x.local
    n, p, m = local.n, local.p, local.m
    P, slope = _convex(local.P), local.P @ x.z + local.q
    b, h = local.b - local.A @ x.z, local.h - local.G @ x.z
    found = solver.solve(QP(P, slope, local.A, b, local.G, h), options=settings)
    if found.status.usable:
        return found
    # Perhaps there is no curvature along some direction: steps of the size of z at most.
    unit = max(float(np.abs(P).max()), float(np.abs(slope).max())) or 1.0
    length, _ = point_units(local.scaling, np.abs(x.z).max(), 0.0)
    P = P + unit / length * np.eye(n)
    found = solver.solve(QP(P, slope, local.A, b, local.G, h), options=settings)
    if found.status.usable or p + m == 0:
        return found
    # A d + u − v = b, G d − w ≤ h with u, v, w ≥ 0 at a price always has one.
    price_A, price_G = _PRICE * unit / row_sizes(local.A), _PRICE * unit / row_sizes(local.G)
    return solver.solve(
        QP(
            linalg.block_diag(P, np.zeros((2 * p + m, 2 * p + m))),
            np.concatenate([slope, price_A, price_A, price_G]),
            np.hstack([local.A, np.eye(p), -np.eye(p), np.zeros((p, m))]),
            b,
            np.hstack([local.G, np.zeros((m, 2 * p)), -np.eye(m)]),
            h,
            lb=np.concatenate([np.full(n, -np.inf), np.zeros(2 * p + m)]),
        ),
        options=settings,
    )


def _convex(H: Array) -> Array:
    """H, or where it is not positive definite its eigenvalues' absolute values, at least 1e-8 of
    the largest."""
    size = float(np.abs(H).max()) or 1.0
    try:
        linalg.cholesky(H + 1e-12 * size * np.eye(len(H)), check_finite=False)
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(H, check_finite=False)
        return (vectors * np.maximum(np.abs(values), _CURVATURE * size)) @ vectors.T
    return H


def _line_search(program: ConvexProgram, x: _Iterate, step: Array, weights: Array) -> float:
    """Length of the step that lowers the merit function enough; 0 where none does."""
    local, p = x.local, program.p
    h, g = local.A @ x.z - local.b, local.G @ x.z - local.h

    def violation(h: Array, g: Array) -> float:
        return float(weights[:p] @ np.abs(h) + weights[p:] @ np.maximum(g, 0.0))

    now = violation(h, g)
    merit = program.value(x.z) + now
    slope = (local.P @ x.z + local.q) @ step
    slope += violation(h + local.A @ step, g + local.G @ step) - now
    noise = 1e-14 * (abs(merit) + now)
    length = 1.0
    for _ in range(_HALVINGS):
        z = x.z + length * step
        after = program.value(z) + violation(program.h(z), program.g(z))
        if np.isfinite(after) and after <= merit + _DECREASE * length * min(slope, 0.0) + noise:
            return length
        length *= 0.5
    return 0.0
