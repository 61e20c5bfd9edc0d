"""The backward QP: from gradients at a solution to gradients in the problem's parameters.

At the solution, with the active rows G₊ and the active bounds, the backward QP of arXiv:2411.19285
(Theorem 1) is min ½ z̃ᵀPz̃ + rᵀz̃ s.t. Az̃ = 0, G₊z̃ = 0, z̃ = 0 on active bounds, r = ∂ℓ/∂z.
Gradients in the duals enter as right-hand sides of the constraints. Active bounds are eliminated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import SolverError
from ..problems.matrices import Array
from ..problems.qp import QP
from ..problems.solution import Solution, SolveStatus
from .active import active_set
from .kkt import solve_equality_qp
from .protocol import Solver, SolverOptions


@dataclass(frozen=True, eq=False)
class Adjoint:
    """Solution of the backward QP: z̃ (n,), ν̃ (p,), λ̃ (m,) and the gradients in lb and ub (n,).

    ``lam_active`` (m,) is λ with zeros on inactive rows. With them, at the solution (z, ν, λ):
    ∇q = z̃, ∇P = ½(z̃zᵀ + zz̃ᵀ), ∇A = ν̃zᵀ + νz̃ᵀ, ∇b = −ν̃, ∇G = λ̃zᵀ + λz̃ᵀ, ∇h = −λ̃.
    """

    z: Array
    nu: Array
    lam: Array
    lam_active: Array
    lb: Array
    ub: Array


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
    options: SolverOptions = SolverOptions(),  # noqa: B008
) -> Adjoint:
    """Solve the backward QP of ``problem`` at ``solution``.

    Parameters
    ----------
    dz (n,), dnu (p,), dlam (m,), dlam_lb, dlam_ub (n,) : gradient of the loss in the fields of the
        solution. Duals of inactive constraints are identically zero, so theirs are ignored.
    solver : a forward solver for the reduced QP; None takes the direct one. Where that QP is
        singular without a solution, no solver can return one, and the direct least-norm answer
        is taken whichever solver was chosen (see :mod:`~bpqp_portfolio.solvers.kkt`).

    Raises
    ------
    SolverError
        ``solver`` stopped without a solution or a certificate that there is none.
    """
    active = active_set(problem, solution)
    free, rows = active.free, active.rows
    # z̃ of an active bound: zero, but for a gradient in the bound's own dual.
    z = np.where(active.lower, dlam_lb, np.where(active.upper, -dlam_ub, 0.0))
    C = np.vstack([problem.A, problem.G[rows]])
    H = problem.P[np.ix_(free, free)]
    g = dz[free] + problem.P[free] @ z
    c = -np.concatenate([dnu, dlam[rows]]) - C @ z
    if solver is None:
        x, y = solve_equality_qp(H, g, C[:, free], c)
    else:
        x, y = _by_solver(solver, H, g, C[:, free], c, options)
    z[free] = x
    nu, lam = y[: problem.p], np.zeros(problem.m)
    lam[rows] = y[problem.p :]
    slope = problem.P @ z + dz + problem.A.T @ nu + problem.G.T @ lam
    return Adjoint(
        z=z,
        nu=nu,
        lam=lam,
        lam_active=np.where(rows, solution.lam, 0.0),
        lb=np.where(active.lower, slope, 0.0),
        ub=np.where(active.upper, slope, 0.0),
    )


def _by_solver(
    solver: Solver, H: Array, g: Array, C: Array, c: Array, options: SolverOptions
) -> tuple[Array, Array]:
    """:func:`~bpqp_portfolio.solvers.kkt.solve_equality_qp` by a forward solver."""
    size = np.abs(H).max(initial=0.0) or 1.0
    # The QP is linear in (g, c), which may be tiny: solve it at unit size.
    unit = np.abs(np.concatenate([g / size, c])).max(initial=0.0)
    if len(g) == 0 or not 0 < unit < np.inf:
        return solve_equality_qp(H, g, C, c)
    # Polishing would be the direct solve over again.
    options = replace(options, polish=False)
    solution = solver.solve(QP(H / size, g / (size * unit), C, c / unit), options=options)
    if solution.status in (SolveStatus.PRIMAL_INFEASIBLE, SolveStatus.DUAL_INFEASIBLE):
        return solve_equality_qp(H, g, C, c)
    if not solution.status.usable:
        raise SolverError(
            f"{solver.name}: the backward QP ({len(g)} free coordinates, {len(c)} active rows) "
            f'was not solved: {solution.status.value}. Use backward="kkt".'
        )
    return solution.z * unit, solution.nu * unit * size
