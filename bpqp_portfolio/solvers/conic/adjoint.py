"""The backward QP of a cone program, and from its solution the gradients in the cones.

The formulas are arXiv:2411.19285, Theorem 1, at the point's active set: a cone that binds away from
its apex is one smooth constraint, a cone at its apex 1 + r linear equalities
(:mod:`~bpqp_portfolio.solvers.conic.kkt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...problems.matrices import Array
from ...problems.socp import SOCP, ConePoint, SOCPSolution
from ..common.protocol import DEFAULTS, Solver, SolverOptions
from ..common.redundant_rows import independent, redundancy
from ..qp.adjoint import Adjoint, sides, solve_by
from .kkt import ActiveGroup, ActiveSystem, Solve


@dataclass(frozen=True, eq=False)
class ConeGradient:
    """Gradients of one cone's parts: g (r,) and d as they stand, and what F and c are made of.

    With the dual (``t``, ``w``) of the point, zero for a cone that does not bind,
    ∇F = g zᵀ − w z̃ᵀ and ∇c = d z − t z̃.
    """

    g: Array
    d: float
    t: float
    w: Array


def cone_adjoint(
    problem: SOCP,
    solution: SOCPSolution,
    dz: Array,
    dnu: Array,
    dlam: Array,
    dlam_lb: Array,
    dlam_ub: Array,
    *,
    dcones: Sequence[Array | None],
    solver: Solver | None = None,
    options: SolverOptions = DEFAULTS,
) -> tuple[Adjoint, list[ConeGradient]]:
    """Solve the backward QP of ``problem`` at ``solution``.

    Parameters
    ----------
    dz, dnu, dlam, dlam_lb, dlam_ub : as in :func:`~bpqp_portfolio.solvers.qp.adjoint.adjoint`.
    dcones : gradient (1 + r,) of the loss in each cone's dual, None for zero.
    solver : a forward QP solver for the backward QP; None takes the direct one.

    Returns
    -------
    The linear part's :class:`~bpqp_portfolio.solvers.qp.adjoint.Adjoint`, and one
    :class:`ConeGradient` for each cone.
    """
    # Step 1: the active constraints, and gradients in the duals as right-hand sides.
    system = ActiveSystem.at(problem, ConePoint.of(problem, solution), solution.factors)
    active = system.linear
    linear: Array | float = 0.0
    goal = [-dnu, -dlam[active.rows]]
    turned = []
    for a in system.groups:
        duals = [solution.cone_duals[i] for i in a.group.members]
        own = [dcones[i] for i in a.group.members]
        d_tau, pull, turn = _from_duals(a, duals, own)
        turned.append(turn)
        if a.apex:
            goal += [d_tau[a.rows], pull]
        elif a.rows.any():
            goal.append(-d_tau[a.rows])
            linear = linear + a.group.pull(pull)
    # Step 2: the backward QP. z̃ of an active bound is zero, but for a gradient in its own dual.
    z = none = np.zeros(problem.n)
    if problem.bounded:
        z = np.where(active.lower, dlam_lb, np.where(active.upper, -dlam_ub, 0.0))
    gradient = dz + linear
    z, y = system.solve(z, gradient, np.concatenate(goal), _by(solver, options))
    # Step 3: multipliers of dependent rows, of active bounds, and of each cone.
    at_nu, at_lam, y = _settled(system, solution, y, z, gradient)
    nu, lam, parts = system.split(y)
    lb = ub = none
    if problem.bounded:
        slope = system.hessian @ z + gradient + system.rows.T @ y
        lb, ub = np.where(active.lower, slope, 0.0), np.where(active.upper, slope, 0.0)
    found = Adjoint(z=z, nu=nu, lam=lam, lb=lb, ub=ub, at_z=solution.z, at_nu=at_nu, at_lam=at_lam)
    cones: list[ConeGradient | None] = [None] * len(problem.cones)
    for a, part, turn in zip(system.groups, parts, turned, strict=True):
        duals = [solution.cone_duals[i] for i in a.group.members]
        for i, cone in zip(a.group.members, _cone_gradients(a, part, turn, duals, z), strict=True):
            cones[i] = cone
    return found, cones  # type: ignore[return-value]


def _settled(
    system: ActiveSystem, solution: SOCPSolution, y: Array, z: Array, gradient: Array
) -> tuple[Array, Array, Array]:
    """ν and λ of the point and the multipliers y of the backward QP, as dependent rows have them.

    The duals of its cones stay as they are: with them the Hessian would change.
    """
    qp, active = system.problem.qp, system.linear
    at_lam = np.where(active.rows, solution.lam, 0.0)
    if independent(system.rows, active.free):
        return solution.nu, at_lam, y
    at = np.concatenate([solution.nu, solution.lam[active.rows]])
    at, y = _chosen(system, solution, at, y, system.hessian @ z + gradient)
    at_lam[active.rows] = at[qp.p :]
    return at[: qp.p], at_lam, y


def _chosen(
    system: ActiveSystem, solution: SOCPSolution, at: Array, y: Array, slope: Array
) -> tuple[Array, Array]:
    """``at`` and ``y`` where rows depend on each other."""
    qp, active = system.problem.qp, system.linear
    duals, equalities = [at], [np.arange(len(at)) < qp.p]
    for a in system.groups:
        if a.rows.any():
            duals.append(np.array([solution.cone_duals[i][0] for i in a.group.members])[a.rows])
            # The rows of an apex stay together.
            more = a.group.r if a.apex else 0
            duals.append(np.zeros(more))
            equalities.append(np.full(len(duals[-2]) + more, a.apex))
    whole, signs, k = np.concatenate(duals), np.concatenate(equalities), len(at)
    pull, held = solution.lam_lb - solution.lam_ub, sides(qp, active)
    spare = redundancy(system.rows, active.free, signs, held, whole, pull)
    if spare is not None:
        y = spare.settle(y, slope + system.rows.T @ y)
        own = redundancy(system.rows[:k], active.free, signs[:k], held, at, pull)
        at = at if own is None else own.settle(at, pull)
    return at, y


def _by(solver: Solver | None, options: SolverOptions) -> Solve | None:
    if solver is None:
        return None
    return lambda H, g, C, c: solve_by(solver, H, g, C, c, options)


def _from_duals(
    a: ActiveGroup, duals: Sequence[Array], own: Sequence[Array | None]
) -> tuple[Array, Array, list[Array | None]]:
    """Gradients in the duals (t, w) of a group's cones as those in what they are made of.

    Away from the apex (tᵢ, wᵢ) = (τᵢ, −τᵢ u): gradients in τ (k,), their sum in Fz + g through u
    (r,), and each cone's part of that. At the apex wᵢ = w τᵢ/Στ: gradients in τ and w.
    """
    k = len(a.rows)
    d_tau, total = np.zeros(k), np.zeros(a.group.r)
    turn: list[Array | None] = [None] * k
    if not a.rows.any() or all(v is None for v in own):
        return d_tau, total, turn
    tau = np.array([v[0] for v in duals])
    whole = float(tau.sum())
    w = np.sum([v[1:] for v in duals], axis=0)
    for i in np.flatnonzero(a.rows).tolist():
        value = own[i]
        if value is None:
            continue
        dt, dw = float(value[0]), value[1:]
        d_tau[i] += dt
        if a.apex:
            total = total + dw * (tau[i] / whole)
            along = float(dw @ w) / whole
            d_tau[i] += along
            d_tau -= along * tau[i] / whole
        else:
            along = float(dw @ a.normal)
            d_tau[i] -= along
            bend = (-tau[i] / a.norm) * (dw - along * a.normal)
            turn[i], total = bend, total + bend
    return d_tau, total, turn


def _cone_gradients(
    a: ActiveGroup, part: Array, turn: Sequence[Array | None], duals: Sequence[Array], z: Array
) -> list[ConeGradient]:
    """The cones of one group; ``part`` are the multipliers of its rows in the backward QP."""
    none = ConeGradient(np.zeros(a.group.r), 0.0, 0.0, np.zeros(a.group.r))
    out = [none] * len(a.rows)
    active = np.flatnonzero(a.rows).tolist()
    tau = np.array([v[0] for v in duals])
    bend = np.zeros(a.group.r)
    if a.smooth:
        push = a.group.push(z)
        bend = (push - (a.normal @ push) * a.normal) / a.norm
    share = tau / tau[active].sum() if len(active) else tau
    for j, i in enumerate(active):
        if a.apex:
            g, d = part[len(active) :] * share[i], float(part[j])
        else:
            g, d = tau[i] * bend + part[j] * a.normal, -float(part[j])
            g = g if turn[i] is None else g + turn[i]
        out[i] = ConeGradient(g, d, float(tau[i]), duals[i][1:])
    return out
