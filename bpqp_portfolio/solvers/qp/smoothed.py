"""Gradients of a relaxed solution, where λ·slack = κ: informative where the exact one is zero.

The relaxed point solves Pz + q + Aᵀν + Cᵀλ = 0, Az = b and λᵢ(h − Cz)ᵢ = κ, with C all inequality
rows, bounds among them: the point of the central path where an interior-point method would stand.
Differentiated, every constraint counts in proportion to λᵢ/slackᵢ instead of wholly or not at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from ...errors import SolverError
from ...problems.bounds import BoundPlaces
from ...problems.matrices import Array, row_sizes, to_dense
from ...problems.qp import QP
from ...problems.solution import Solution, measure
from ...problems.stack import together
from ..common.active_set import active_set
from ..common.kkt import solve_equality_qp
from .adjoint import Adjoint

_ITERATIONS = 200
_TOLERANCE = 1e-12
_TO_BOUNDARY = 0.99
# Duals so many times the usual ones mean that there is no interior: with slacks that are lost in
# rounding, and in any case.
_LARGE, _ENDLESS = 1e3, 1e10


def smoothed_adjoint(
    problems: Sequence[QP],
    solutions: Sequence[Solution],
    gradients: Sequence[Array],
    *,
    smoothing: float,
    throw: bool = True,
) -> Adjoint:
    """The backward QPs of T problems at their relaxed points, as one Adjoint.

    Parameters
    ----------
    gradients : those of :func:`~bpqp_portfolio.solvers.qp.adjoint.adjoint_stack`.
    smoothing : κ > 0, in the objective's unit.

    Raises
    ------
    SolverError
        A problem without a relaxed point: no point meets all its inequalities strictly. Without
        ``throw`` it gets zero gradient and a warning.
    """
    found = []
    for item, (problem, solution) in enumerate(zip(problems, solutions, strict=True)):
        try:
            found.append(_one(problem, solution, [g[item] for g in gradients], smoothing))
        except SolverError as error:
            if throw:
                raise
            warnings.warn(f"item {item} has zero gradient: {error}", stacklevel=2)
            found.append(_nothing(problem, solution))
    return Adjoint(*(together([getattr(a, f.name) for a in found]) for f in fields(Adjoint)))


def _nothing(problem: QP, solution: Solution) -> Adjoint:
    z, nu, lam = (np.zeros(size) for size in (problem.n, problem.p, problem.m))
    return Adjoint(z, nu, lam, z, z, solution.z, solution.nu, solution.lam)


def _one(problem: QP, solution: Solution, gradients: Sequence[Array], smoothing: float) -> Adjoint:
    # Step 1: fixed coordinates become equalities, other bounds rows of C.
    dz, dnu, dlam, dlam_lb, dlam_ub = gradients
    n, p, m = problem.n, problem.p, problem.m
    at_bounds = BoundPlaces.of(problem.lb, problem.ub)
    lower, upper, pinned = at_bounds.lower, at_bounds.upper, at_bounds.fixed
    eye = np.eye(n)
    P = to_dense(problem.P)
    A = np.concatenate([to_dense(problem.A), eye[pinned]])
    b = np.concatenate([problem.b, problem.lb[pinned]])
    C = np.concatenate([to_dense(problem.G), -eye[lower], eye[upper]])
    h = np.concatenate([problem.h, -problem.lb[lower], problem.ub[upper]])

    # Step 2: a first guess of λ and slack, and from there the relaxed point.
    at = measure(problem, solution.z, solution.nu, solution.lam, solution.lam_lb, solution.lam_ub)
    active = active_set(problem, solution, at)
    lam = np.concatenate([solution.lam, solution.lam_lb[lower], solution.lam_ub[upper]])
    slack = np.concatenate([at.slack, at.to_lb[lower], at.to_ub[upper]])
    binding = np.concatenate([active.rows, active.lower[lower], active.upper[upper]])
    nu = np.concatenate([solution.nu, (solution.lam_ub - solution.lam_lb)[pinned]])
    # To first order in κ an active row keeps its dual, an inactive one its slack.
    ratio = float(at.gradient / at.length)
    least = 1e-3 * np.sqrt(smoothing * ratio), 1e-3 * np.sqrt(smoothing / ratio)
    slack = np.where(binding, smoothing / np.maximum(lam, least[0]), np.maximum(slack, least[1]))
    # No further from a bound than the middle of a box.
    half = 0.5 * (problem.ub - problem.lb)
    slack = np.minimum(slack, np.concatenate([np.full(m, np.inf), half[lower], half[upper]]))
    lam = smoothing / slack
    length = float(at.length)
    z, nu, lam, slack = _central(
        P, problem.q, A, b, C, h, smoothing, solution.z, nu, lam, slack, ratio, length
    )

    # Step 3: the relaxed KKT conditions differentiated there.
    weight = lam / slack
    dual = np.concatenate([dlam, dlam_lb[lower], dlam_ub[upper]])
    # A fixed coordinate's one free dual is λ_ub − λ_lb, split by sign.
    sign = np.where(solution.lam_ub[pinned] > solution.lam_lb[pinned], 1.0, -1.0)
    dpin = np.where(sign > 0, dlam_ub[pinned], -dlam_lb[pinned])
    x, y, w = _newton(P, A, C, weight, dz, -np.concatenate([dnu, dpin]), weight * dual, ratio)
    lb, ub = np.zeros(n), np.zeros(n)
    lb[lower] = w[m : m + len(lower)]
    ub[upper] = -w[m + len(lower) :]
    lb[pinned] = np.where(sign < 0, -y[p:], 0.0)
    ub[pinned] = np.where(sign > 0, -y[p:], 0.0)
    return Adjoint(x, y[:p], w[:m], lb, ub, z, nu[:p], lam[:m])


def _central(
    P: Array,
    q: Array,
    A: Array,
    b: Array,
    C: Array,
    h: Array,
    smoothing: float,
    z: Array,
    nu: Array,
    lam: Array,
    slack: Array,
    ratio: float,
    unit: float,
) -> tuple[Array, Array, Array, Array]:
    """The relaxed point, by Newton's method kept inside λ, slack > 0; ``unit`` is that of z."""
    size = max(np.abs(P).max(initial=0.0) * unit, np.abs(q).max(initial=0.0)) or 1.0
    usual = max(size, np.abs(lam).max(initial=0.0))
    for _ in range(_ITERATIONS):
        # Step 1: the residuals of the relaxed KKT conditions.
        dual = P @ z + q + A.T @ nu + C.T @ lam
        equal, inside, product = A @ z - b, C @ z + slack - h, lam * slack - smoothing
        scale = max(size, np.abs(lam).max(initial=0.0), np.abs(nu).max(initial=0.0))
        length = max(unit, np.abs(z).max(initial=0.0))
        error = max(
            np.abs(dual).max(initial=0.0) / scale,
            np.abs(equal).max(initial=0.0) / length,
            np.abs(inside).max(initial=0.0) / length,
            np.abs(product).max(initial=0.0) / smoothing,
        )
        if error <= _TOLERANCE * max(1.0, len(z)):
            # Without an interior slacks drown in rounding, and their duals grow without bound.
            lost = (np.abs(inside) > 0.1 * slack) & (lam > _LARGE * usual)
            if lost.any():
                break
            return z, nu, lam, slack
        if max(lam.max(initial=0.0), smoothing / slack.min(initial=np.inf)) > _ENDLESS * usual:
            break
        # Step 2: Newton's step, shortened to stay inside λ, slack > 0.
        weight = lam / slack
        push = (lam * inside - product) / slack
        step, change, lam_step = _newton(P, A, C, weight, dual, -equal, push, ratio)
        slack_step = -inside - C @ step
        share = min(1.0, _room(lam, lam_step), _room(slack, slack_step))
        z, nu = z + share * step, nu + share * change
        lam, slack = lam + share * lam_step, slack + share * slack_step
    raise SolverError(
        f"smoothing {smoothing:g}: no point with λ·slack = {smoothing:g} was found (error "
        f"{error:.1e}). It needs a point that meets every inequality strictly; write implied "
        "equalities as A, b, or use smoothing=0."
    )


def _newton(
    P: Array, A: Array, C: Array, weight: Array, g: Array, c: Array, push: Array, ratio: float
) -> tuple[Array, Array, Array]:
    """x, y, w with Px + Aᵀy + Cᵀw = −g, Ax = c and w = weight · Cx + push.

    A row whose weight, at unit size of the row, is below ``ratio`` joins P. The others would
    swamp it: each stays a row Cx − t/√weight = −push/weight with a coordinate t of its own, which
    in the limit is an equality.
    """
    stiff = weight * row_sizes(C) ** 2 > ratio
    soft = C[~stiff]
    H = P + (soft.T * weight[~stiff]) @ soft
    size = np.abs(H).max(initial=0.0) or 1.0
    n, p, s = len(g), len(A), int(np.count_nonzero(stiff))
    full = np.zeros((n + s, n + s))
    full[:n, :n] = H
    full[range(n, n + s), range(n, n + s)] = size
    rows = np.zeros((p + s, n + s))
    rows[:p, :n], rows[p:, :n] = A, C[stiff]
    rows[range(p, p + s), range(n, n + s)] = -np.sqrt(size / weight[stiff])
    slope = np.concatenate([g + soft.T @ push[~stiff], np.zeros(s)])
    x, y = solve_equality_qp(full, slope, rows, np.concatenate([c, -push[stiff] / weight[stiff]]))
    w = weight * (C @ x[:n]) + push
    w[stiff] = y[p:]
    return x[:n], y[:p], w


def _room(value: Array, step: Array) -> float:
    """The share of ``step`` that keeps ``value`` positive."""
    falling = step < 0
    if not falling.any():
        return np.inf
    return float(_TO_BOUNDARY * (-value[falling] / step[falling]).min())
