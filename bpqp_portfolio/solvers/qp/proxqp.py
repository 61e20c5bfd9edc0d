"""ProxQP: a proximal augmented Lagrangian method, on dense or sparse matrices.

Each outer step minimises f + ρ/2‖x − xₖ‖² + 1/2μ‖Ax − b + μyₖ‖² + 1/2μ‖[Cx − u + μzₖ]₊‖² by
semismooth Newton steps with an exact line search, then moves the multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from proxsuite import proxqp

from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import SolveStatus
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc
from .base import Backend, Ending, State, set_native

_KNOWN = tuple(k for k in dir(proxqp.dense.QP(1, 0, 0).settings) if not k.startswith("_"))
_INFINITY = 1e20
# Its default of 1e-4 calls some solvable problems infeasible.
_INFEASIBILITY = 1e-9
# Its own 10 000 × 1 500 can take hours.
_MAX_ITERATIONS = 1_000
_CLAIMS = {
    proxqp.QPSolverOutput.PROXQP_PRIMAL_INFEASIBLE: SolveStatus.PRIMAL_INFEASIBLE,
    proxqp.QPSolverOutput.PROXQP_DUAL_INFEASIBLE: SolveStatus.DUAL_INFEASIBLE,
}


@dataclass(frozen=True)
class ProxQPSolver(Backend):
    """A. Bambade, S. El-Kazdadi, A. Taylor and J. Carpentier, PROX-QP: yet another quadratic
    programming solver for robotics and beyond, 2022.

    Works on the problem in unit sizes, dense or, where a matrix is sparse or P is lifted, sparse.
    An entry keeps the solver's preconditioned matrices and starts from the last solution.
    """

    name: str = "proxqp"
    settings: tuple[str, ...] = _KNOWN

    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        """See :class:`.base.Backend`.

        ``places`` numbers the coordinates with a finite bound; the sparse solver has them as rows
        below G, the dense one as a box of all coordinates.
        """
        v = form.vectors(problem)
        n, p, m = form.size, form.A.shape[0], form.G.shape[0]
        bounded = np.flatnonzero(np.isfinite(v.lb) | np.isfinite(v.ub))
        if form.sparse:
            model = proxqp.sparse.QP(n, p, m + len(bounded))
            P, A, G = csc([form.P], n), csc([form.A], n), csc([form.G, (bounded, 1.0)], n)
        else:
            bounded = np.arange(n) if len(bounded) else bounded
            model = proxqp.dense.QP(n, p, m, bool(len(bounded)))
            P, A, G = form.P, form.A, form.G
        settings = model.settings
        settings.eps_abs, settings.eps_rel = options.tolerance, 0.0
        settings.check_duality_gap, settings.eps_duality_gap_abs = True, options.tolerance
        settings.eps_primal_inf = settings.eps_dual_inf = _INFEASIBILITY
        settings.max_iter = options.max_iterations or _MAX_ITERATIONS
        if options.max_iterations is not None:
            settings.max_iter_in = options.max_iterations
        set_native(settings, options, self.name)
        vectors = _vectors(v, bounded, form.sparse)
        with native:
            model.init(H=P, A=A, C=G, **vectors)
        return State(form, options, model, bounded)

    def update(self, state: State, vectors: Vectors) -> None:
        # Its results are those of the last call: only a usable state is kept.
        state.native.settings.initial_guess = proxqp.COLD_START_WITH_PREVIOUS_RESULT
        own = _vectors(vectors, state.places, state.form.sparse)
        with native:
            state.native.update(**own)

    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        with native:
            state.native.solve()
        result, form = state.native.results, state.form
        x, nu = np.array(result.x), np.array(result.y)
        lam, mu = np.split(np.array(result.z), [form.G.shape[0]])
        bounds = np.zeros(form.size)
        bounds[state.places] = mu
        raw = RawPoint.signed(x, nu, lam, bounds)
        return Ending(raw, int(result.info.iter), _CLAIMS.get(result.info.status))


def _vectors(v: Vectors, bounded: Array, rows: bool) -> dict[str, Array]:
    low, high = np.maximum(v.lb, -_INFINITY), np.minimum(v.ub, _INFINITY)
    free = np.full(len(v.h), -_INFINITY)
    if rows:
        inequalities = {
            "l": np.concatenate([free, low[bounded]]),
            "u": np.concatenate([v.h, high[bounded]]),
        }
    else:
        inequalities = {"l": free, "u": v.h}
        if len(bounded):
            inequalities |= {"l_box": low, "u_box": high}
    return {"g": v.q, "b": v.b, **inequalities}
