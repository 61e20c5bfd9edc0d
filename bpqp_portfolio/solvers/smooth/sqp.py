"""Newton's method for smooth programs: each step a convex QP, a line search on the l1 merit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from ...problems.convex import ConvexProgram, UndefinedError
from ...problems.matrices import Array, row_sizes
from ...problems.qp import QP
from ...problems.solution import Solution, kkt_residuals, point_units
from ..common.protocol import Solver, SolverOptions
from ..registry import get_solver
from .finalize import RawPoint

OPTIONS = {"sqp": ("maxiter", "qp_solver")}
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


def sqp(program: ConvexProgram, eps: float, options: Mapping[str, Any]) -> RawPoint:
    """Sequential quadratic programming with the exact Hessian of the Lagrangian.

    Every step solves the local QP, made convex by the absolute values of its Hessian's
    eigenvalues where it is not, and, where its linearised constraints contradict each other, with
    a price on their violation. A step is taken in full if it halves the best KKT norm so far, else
    shortened until it lowers f + Σ wᵢ|hᵢ| + Σ wᵢ max(gᵢ, 0), with Powell's weights wᵢ, at least
    the duals. A point where a value is not finite counts as infinitely bad, so iterates stay in
    the domain of f. J. Nocedal and S. J. Wright, Numerical Optimization, 2006, chapter 18.

    Options: ``maxiter`` (100), ``qp_solver`` (a QP solver's name, "clarabel").
    """
    solver = get_solver(options.get("qp_solver", "clarabel"))
    settings = SolverOptions(eps=max(eps, 1e-9))
    weights = np.zeros(program.p + program.m)
    x = _Iterate.at(program, program.start, np.zeros(program.p), np.zeros(program.m))
    best, iteration = x.norm, 0
    while x.norm > eps and iteration < options.get("maxiter", 100):
        iteration += 1
        found = _solve_local(solver, x, settings)
        if not found.status.usable:
            break
        step = found.z[: program.n]
        duals = np.abs(np.concatenate([found.nu, found.lam[: program.m]]))
        weights = np.maximum(duals, 0.5 * (weights + duals))
        length, trial = 1.0, _moved(program, x, found, 1.0)
        if trial is None or not trial.norm <= 0.5 * best:
            length = _line_search(program, x, step, weights)
            if length < 1.0:
                trial = _moved(program, x, found, length) if length > 0 else None
        if trial is None:
            break
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


def _solve_local(solver: Solver, x: _Iterate, settings: SolverOptions) -> Solution:
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
