"""PIQP: a proximal interior-point method, on dense or sparse matrices.

An infeasible primal-dual path-following method inside the proximal method of multipliers, whose
ρI and δI keep its Newton systems regular where P or the rows are not of full rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import piqp

from ...problems.bounds import split_by_sign
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import SolveStatus
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc
from .base import Backend, Ending, State, set_native

_KNOWN = tuple(k for k in dir(piqp.DenseSolver().settings) if not k.startswith("_"))
_CLAIMS = {
    piqp.PIQP_PRIMAL_INFEASIBLE: SolveStatus.PRIMAL_INFEASIBLE,
    piqp.PIQP_DUAL_INFEASIBLE: SolveStatus.DUAL_INFEASIBLE,
}
# Its default of 1e-4 calls some solvable problems infeasible.
_INFEASIBILITY = 1e-6


@dataclass(frozen=True)
class PIQPSolver(Backend):
    """R. Schwan, Y. Jiang, D. Kuhn and C. N. Jones, PIQP: a proximal interior-point quadratic
    programming solver, 2023.

    Works on the problem in unit sizes, dense or, where a matrix is sparse or P is lifted, sparse. A
    coordinate whose bounds are equal goes in as an equality. P is checked to be convex, since a
    stationary point would do. An entry keeps the solver object: setup, memory and the sparse
    ordering.
    """

    name: str = "piqp"
    settings: tuple[str, ...] = _KNOWN

    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        fixed = np.flatnonzero(problem.lb == problem.ub)
        P, A, G = form.P, form.A, form.G
        if form.sparse:
            model = piqp.SparseSolver()
            P, G = csc([P], form.size), csc([G], form.size)
            A = csc([A, (fixed, 1.0)], form.size)
        else:
            model = piqp.DenseSolver()
            P = P.T  # symmetric, and then in the order of its library
            A = np.vstack([A, np.eye(form.size)[fixed]]) if len(fixed) else A
        settings = model.settings
        settings.eps_abs = settings.eps_duality_gap_abs = options.tolerance
        settings.eps_rel = settings.eps_duality_gap_rel = options.tolerance
        settings.eps_primal_inf = settings.eps_dual_inf = _INFEASIBILITY
        if options.max_iterations is not None:
            settings.max_iter = options.max_iterations
        set_native(settings, options, self.name)
        vectors = _vectors(form.vectors(problem), fixed)
        with native:
            model.setup(P=P, A=A, G=G, **vectors)
        return State(form, options, model, fixed)

    def update(self, state: State, vectors: Vectors) -> None:
        own = _vectors(vectors, state.places)
        with native:
            state.native.update(**own)

    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        with native:
            status = state.native.solve()
        result, fixed = state.native.result, state.places
        nu, on_fixed = np.split(np.asarray(result.y), [state.form.A.shape[0]])
        x, lam = np.asarray(result.x), np.asarray(result.z_u)
        lam_lb, lam_ub = np.array(result.z_bl), np.array(result.z_bu)
        lam_lb[fixed], lam_ub[fixed] = split_by_sign(on_fixed)
        raw = RawPoint(x, nu, lam, lam_lb, lam_ub)
        return Ending(raw, int(result.info.iter), _CLAIMS.get(status))


def _vectors(v: Vectors, fixed: Array) -> dict[str, Array]:
    lb, ub = v.lb.copy(), v.ub.copy()
    lb[fixed], ub[fixed] = -np.inf, np.inf
    return {"c": v.q, "b": np.concatenate([v.b, v.lb[fixed]]), "h_u": v.h, "x_l": lb, "x_u": ub}
