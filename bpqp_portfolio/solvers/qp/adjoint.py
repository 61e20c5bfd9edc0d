"""The backward QP: from gradients at a solution to gradients in the problem's parameters.

At the solution, with the active rows G₊ and the active bounds, the backward QP of arXiv:2411.19285
(Theorem 1) is min ½ z̃ᵀPz̃ + rᵀz̃ s.t. Az̃ = 0, G₊z̃ = 0, z̃ = 0 on active bounds, r = ∂ℓ/∂z.
Gradients in the duals enter as right-hand sides of the constraints. Active bounds are eliminated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ...errors import SolverError
from ...problems.matrices import (
    Array,
    block,
    largest,
    row_sizes,
    stack_rows,
    times,
    times_transposed,
    to_dense,
)
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ...problems.stack import QPStack, together
from ..common.active_set import ActiveSet, active_set
from ..common.kkt import solve_equality_qp
from ..common.parallel import in_chunks
from ..common.protocol import DEFAULTS, Solver, SolverOptions
from ..common.redundant_rows import redundancy, with_least_multipliers
from .dense_factors import Factors, FactorStack
from .direct import Direct

_TINY = np.finfo(float).tiny
# Refinement shrinks corrections by a constant factor; one below this, it has converged.
_SETTLED = 1e-4
_REFINEMENTS = 6
_EXACT = 1e-13
_RANK = 1e-10


@dataclass(frozen=True, eq=False)
class Adjoint:
    """Solution of the backward QP: z̃ (n,), ν̃ (p,), λ̃ (m,) and the gradients in lb and ub (n,).

    ``z``, ``nu`` and ``lam`` are those; ``at_z``, ``at_nu`` and ``at_lam`` (zero on inactive rows)
    are the point at which it was built. With them ∇q = z̃, ∇P = ½(z̃zᵀ + zz̃ᵀ), ∇A = ν̃zᵀ + νz̃ᵀ,
    ∇b = −ν̃, ∇G = λ̃zᵀ + λz̃ᵀ, ∇h = −λ̃. All arrays may have a leading axis of problems.
    """

    z: Array
    nu: Array
    lam: Array
    lb: Array
    ub: Array
    at_z: Array
    at_nu: Array
    at_lam: Array


def adjoint(
    problem: QP,
    solution: Solution,
    dz: Array,
    dnu: Array,
    dlam: Array,
    dlam_lb: Array,
    dlam_ub: Array,
    *,
    solver: Solver | None = None,
    options: SolverOptions = DEFAULTS,
) -> Adjoint:
    """Solve the backward QP of ``problem`` at ``solution``.

    Parameters
    ----------
    dz (n,), dnu (p,), dlam (m,), dlam_lb, dlam_ub (n,) : gradient of the loss in the fields of the
        solution. Duals of inactive constraints are identically zero, so theirs are ignored.
    solver : a forward solver for the reduced QP; None takes the direct one. Where that QP is
        singular, and the solver finds no solution, the direct least-norm answer is taken
        whichever was chosen (see :mod:`~bpqp_portfolio.solvers.common.kkt`).

    Raises
    ------
    SolverError
        ``solver`` stopped without a solution or a certificate that there is none.

    Examples
    --------
    With z = −q/2 the gradient of z in q is −1/2:

    >>> from bpqp_portfolio.solvers import get_solver
    >>> problem = QP([[2.0]], [-4.0])
    >>> solution = get_solver("dense").solve(problem)
    >>> one, none = np.ones(1), np.zeros(0)
    >>> adjoint(problem, solution, one, none, none, 0 * one, 0 * one).z.tolist()  # ∇q = z̃
    [-0.5]
    """
    # Step 1: the active set, of multipliers that are the least where they are not unique.
    solution = with_least_multipliers(problem, solution)
    active = active_set(problem, solution)
    free, rows = active.free, active.rows
    # Step 2: eliminate the active bounds. z̃ is zero there, but for a gradient in the bound's dual.
    z = np.where(active.lower, dlam_lb, np.where(active.upper, -dlam_ub, 0.0))
    C = stack_rows(problem.A, problem.G, rows)
    H = block(problem.P, free, free)
    g = (dz + problem.P @ z)[free]
    c = -np.concatenate([dnu, dlam[rows]]) - C @ z
    # Step 3: the reduced QP in the free coordinates.
    if solver is None:
        x, y = solve_equality_qp(H, g, C[:, free], c)
    else:
        x, y = solve_by(solver, H, g, C[:, free], c, options)
    z[free] = x
    # Step 4: multipliers of dependent rows, and of the active bounds.
    slope = problem.P @ z + dz
    at = np.concatenate([solution.nu, solution.lam[rows]])
    equalities = np.arange(len(at)) < problem.p
    pull = solution.lam_lb - solution.lam_ub
    spare = redundancy(C, free, equalities, sides(problem, active), at, pull)
    if spare is not None:
        y, at = spare.settle(y, slope + C.T @ y), spare.settle(at, pull)
    slope = slope + C.T @ y
    lam, at_lam = np.zeros((2, problem.m))
    lam[rows], at_lam[rows] = y[problem.p :], at[problem.p :]
    return Adjoint(
        z=z,
        nu=y[: problem.p],
        lam=lam,
        lb=np.where(active.lower, slope, 0.0),
        ub=np.where(active.upper, slope, 0.0),
        at_z=solution.z,
        at_nu=at[: problem.p],
        at_lam=at_lam,
    )


def sides(problem: QP, active: ActiveSet) -> Array:
    """1 for a coordinate at its lower bound, −1 at its upper, 0 for a free or fixed one (n,)."""
    return np.where(problem.lb == problem.ub, 0, active.lower.astype(int) - active.upper)


def solve_by(
    solver: Solver, H: Array, g: Array, C: Array, c: Array, options: SolverOptions
) -> tuple[Array, Array]:
    """:func:`~bpqp_portfolio.solvers.common.kkt.solve_equality_qp` by a forward solver.

    Raises
    ------
    SolverError
        The solver did not solve it.
    """
    # A power of 2 changes no digit: a P of single precision is one still.
    size = float(np.exp2(np.ceil(np.log2(largest(H) or 1.0))))
    # The QP is linear in (g, c), which may be tiny: solve it at unit size.
    unit = np.abs(np.concatenate([g / size, c])).max(initial=0.0)
    # Where the rows alone determine x nothing is left to solve.
    if len(g) <= len(c) or not 0 < unit < np.inf:
        return solve_equality_qp(H, g, C, c)
    # Polishing would be the direct solve over again.
    options = replace(options, polish=False)
    solution = solver.solve(QP(H / size, g / (size * unit), C, c / unit), options=options)
    if solution.status in (SolveStatus.PRIMAL_INFEASIBLE, SolveStatus.DUAL_INFEASIBLE):
        return solve_equality_qp(H, g, C, c)
    if not solution.status.usable:
        if _singular(H, C):
            return solve_equality_qp(H, g, C, c)
        raise SolverError(
            f"{solver.name}: the backward QP ({len(g)} free coordinates, {len(c)} active rows) "
            f'was not solved: {solution.status.value}. Use backward="kkt".'
        )
    return solution.z * unit, solution.nu * unit * size


def _singular(H: Array, C: Array) -> bool:
    """Whether the KKT matrix of the reduced QP is, its blocks scaled to 1."""
    H, C = to_dense(H), to_dense(C)
    C = C / row_sizes(C)[:, None]
    K = np.block([[H / (largest(H) or 1.0), C.T], [C, np.zeros((len(C), len(C)))]])
    values = np.abs(np.linalg.eigvalsh(K))
    return bool(values.min() <= _RANK * values.max())


def adjoint_stack(
    problems: Sequence[QP],
    solutions: Sequence[Solution],
    gradients: Sequence[Array],
    *,
    solver: Solver | None = None,
    options: SolverOptions = DEFAULTS,
    reuse: bool = True,
) -> Adjoint:
    """:func:`adjoint` of T problems of equal sizes, as one Adjoint with a leading axis T.

    ``gradients`` are dz (T, n), dnu (T, p), dlam (T, m), dlam_lb and dlam_ub (T, n). With ``reuse``
    the factors that :class:`~bpqp_portfolio.solvers.qp.dense.DenseSolver` left in its solutions
    solve the backward QP, refined against the problem itself; where that does not settle, because
    the KKT system is singular, and for all other solutions, the items are solved one by one.
    """

    def work(part: slice) -> Adjoint:
        own = [gradient[part] for gradient in gradients]
        return _chunk(problems[part], solutions[part], own, solver, options, reuse)

    first = problems[0]
    light = reuse and isinstance(solutions[0].factors, Direct)
    entries = first.n * (first.n + first.p + first.m)
    found = in_chunks(work, len(problems), entries, light=light)
    if len(found) == 1:
        return found[0]
    return Adjoint(*(np.concatenate([getattr(a, f.name) for a in found]) for f in fields(Adjoint)))


def _chunk(
    problems: Sequence[QP],
    solutions: Sequence[Solution],
    gradients: Sequence[Array],
    solver: Solver | None,
    options: SolverOptions,
    reuse: bool,
) -> Adjoint:
    found: list[Adjoint | None] = [None] * len(problems)
    if reuse and _alike([s.factors for s in solutions]):
        stacked, settled = _by_factors(problems, solutions, gradients)
        if settled.all():
            return stacked
        for item in np.flatnonzero(settled).tolist():
            found[item] = Adjoint(*(getattr(stacked, f.name)[item] for f in fields(Adjoint)))
    for item, own in enumerate(found):
        factors = solutions[item].factors
        if own is None and reuse and isinstance(factors, Direct):
            found[item] = _by_direct(factors, *(g[item] for g in gradients[:3]))
        elif own is None:
            found[item] = adjoint(
                problems[item],
                solutions[item],
                *(g[item] for g in gradients),
                solver=solver,
                options=options,
            )
    return Adjoint(*(together([getattr(a, f.name) for a in found]) for f in fields(Adjoint)))


def _by_direct(at: Direct, dz: Array, dnu: Array, dlam: Array) -> Adjoint:
    z, nu, lam = at.adjoint(dz, dnu, dlam)
    lb, ub = np.zeros((2, len(z)))
    at_lam = np.zeros(len(lam))
    at_lam[at.rows] = at.lam[at.rows]
    return Adjoint(z, nu, lam, lb, ub, at.z, at.nu, at_lam)


def _alike(factors: Sequence[object]) -> bool:
    """Whether all are a dense solver's, and of the same bounds: chunks of a batch may differ."""
    first = factors[0]
    return isinstance(first, Factors) and all(
        isinstance(f, Factors) and np.array_equal(f.bounded, first.bounded) for f in factors
    )


def _by_factors(
    problems: Sequence[QP], solutions: Sequence[Solution], gradients: Sequence[Array]
) -> tuple[Adjoint, Array]:
    """The backward QPs by the forward factors, and for which of them refinement settled (T,)."""
    dz, dnu, dlam, dlam_lb, dlam_ub = gradients
    # Step 1: the stack, its points and their active sets.
    stack = QPStack.of(problems)
    factors = FactorStack([s.factors for s in solutions])
    z, nu, lam, lam_lb, lam_ub = (
        together([getattr(s, name) for s in solutions])
        for name in ("z", "nu", "lam", "lam_lb", "lam_ub")
    )
    point = replace(solutions[0], z=z, nu=nu, lam=lam, lam_lb=lam_lb, lam_ub=lam_ub)
    active = active_set(stack, point)
    bounded = factors.bounded
    mask = np.concatenate([active.rows, ~active.free[:, bounded]], axis=1)
    # z̃ of an active bound: zero, but for a gradient in the bound's own dual.
    pinned = np.where(active.lower, dlam_lb, np.where(active.upper, -dlam_ub, 0.0))
    goal = np.concatenate([-dlam, pinned[:, bounded]], axis=1)
    m = dlam.shape[1]

    def defect(x: Array, y: Array, w: Array) -> Array:
        out = times(stack.P, x) + dz
        out += times_transposed(stack.A, y) + times_transposed(stack.G, w[:, :m])
        return out

    # Step 2: the backward QPs by the forward factors, which have P + ρI, refined against P.
    x, y, w = factors.solve(mask, -dz, -dnu, goal)
    last = np.abs(x).max(1)
    for _ in range(_REFINEMENTS):
        gap = -defect(x, y, w)
        gap[:, bounded] -= w[:, m:]
        missing = goal - np.concatenate([times(stack.G, x), x[:, bounded]], axis=1)
        step = factors.solve(mask, gap, -dnu - times(stack.A, x), missing)
        x, y, w = x + step[0], y + step[1], w + step[2]
        size, scale = np.abs(step[0]).max(1), np.abs(x).max(1)
        # Steps shrink by a constant factor: what the next one would be decides.
        if (size * size <= _EXACT * last * scale).all():
            break
        last = size
    x[:, bounded] = np.where(mask[:, m:], goal[:, m:], x[:, bounded])
    # Step 3: gradients in the bounds, and which items refinement settled.
    slope = defect(x, y, w)
    found = Adjoint(
        z=x,
        nu=y,
        lam=w[:, :m],
        lb=np.where(active.lower, slope, 0.0),
        ub=np.where(active.upper, slope, 0.0),
        at_z=z,
        at_nu=nu,
        at_lam=np.where(active.rows, lam, 0.0),
    )
    # The multipliers of dependent rows are rounding here, and seldom go on growing. At a vertex z̃
    # is determined by the rows alone, and the factors of P only add rounding.
    settled = factors.independent(mask)
    settled &= dnu.shape[1] + np.count_nonzero(mask, axis=1) < z.shape[1]
    for value, change in zip((x, y, w), step, strict=True):
        if value.shape[1]:
            settled &= np.abs(change).max(1) <= _SETTLED * np.abs(value).max(1)
    return found, settled
