"""HiGHS: the dual revised simplex method for P = 0, an active-set method for a convex QP.

Both go from one set of active rows to the next, and end at a vertex, or at the exact point of a
working set with multipliers of the right sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from scipy import sparse

from ...errors import ConfigError
from ...problems.matrices import Array, largest
from ...problems.qp import QP
from ...problems.solution import SolveStatus
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc, upper_triangle
from .base import NOT_CONVEX, Backend, Ending, State

_KNOWN = tuple(k for k in dir(highspy.HighsOptions()) if not k.startswith("_"))
_TIGHTEST = 1e-10
_SHIFT = 1e-7
# Without limits its QP solver may cycle without end, also on problems of a few variables.
_SIMPLEX_ITERATIONS, _QP_ITERATIONS, _SECONDS = 100_000, 20_000, 60.0
_Status = highspy.HighsModelStatus
_CLAIMS = {
    _Status.kInfeasible: SolveStatus.PRIMAL_INFEASIBLE,
    _Status.kUnbounded: SolveStatus.DUAL_INFEASIBLE,
}


@dataclass(frozen=True)
class HiGHSSolver(Backend):
    """Q. Huangfu and J. A. J. Hall, Parallelizing the dual revised simplex method, 2018.

    Works on the sparse problem in unit sizes, for at most 60 seconds. An entry keeps the model; a
    linear program then starts from its last basis.
    """

    name: str = "highs"
    settings: tuple[str, ...] = _KNOWN

    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        v, n = form.vectors(problem), form.size
        rows = csc([form.A, form.G], n)
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = n, rows.shape[0]
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = v.q, v.lb, v.ub
        lp.row_lower_, lp.row_upper_ = _limits(v)
        lp.a_matrix_.start_, lp.a_matrix_.index_ = rows.indptr, rows.indices
        lp.a_matrix_.value_ = rows.data
        model = highspy.HighsModel()
        model.lp_ = lp
        if largest(form.P) > 0.0:
            P = sparse.csc_matrix(upper_triangle(form.P).T)
            hessian = model.hessian_
            hessian.dim_, hessian.format_ = n, highspy.HessianFormat.kTriangular
            hessian.start_, hessian.index_, hessian.value_ = P.indptr, P.indices, P.data
        # highspy.Highs registers callbacks, and prints a banner before that can be turned off.
        solver = highspy._Highs()  # type: ignore[attr-defined]
        _configure(solver, options)
        with native:
            refused = solver.passModel(model) == highspy.HighsStatus.kError
        return State(form, options, None if refused else solver)

    def update(self, state: State, vectors: Vectors) -> None:
        model, columns = state.native, np.arange(state.form.size, dtype=np.int32)
        low, high = _limits(vectors)
        rows = np.arange(len(low), dtype=np.int32)
        with native:
            model.changeColsCost(len(columns), columns, vectors.q)
            model.changeColsBounds(len(columns), columns, vectors.lb, vectors.ub)
            model.changeRowsBounds(len(rows), rows, low, high)

    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        model, p = state.native, state.form.A.shape[0]
        if model is None:  # its own check of the Hessian
            return NOT_CONVEX
        with native:
            model.run()
            if model.getModelStatus() == _Status.kSolveError:
                # Its QP solver needs the shift where P is singular; polishing takes it out again.
                model.setOptionValue("qp_regularization_value", _SHIFT)
                model.run()
            status, info, found = model.getModelStatus(), model.getInfo(), model.getSolution()
        if status == _Status.kNotset:  # it refuses a Hessian with a negative diagonal
            return NOT_CONVEX
        iterations = max(info.simplex_iteration_count, 0) + max(info.qp_iteration_count, 0)
        claim = _CLAIMS.get(status)
        # There is no point where it meets an unbounded QP.
        if claim is not None or not found.value_valid:
            return Ending(None, iterations, claim)
        rows, bounds = -np.asarray(found.row_dual), -np.asarray(found.col_dual)
        x = np.asarray(found.col_value)
        return Ending(RawPoint.signed(x, rows[:p], rows[p:], bounds), iterations)


def _limits(v: Vectors) -> tuple[Array, Array]:
    return np.concatenate([v.b, np.full(len(v.h), -np.inf)]), np.concatenate([v.b, v.h])


def _configure(solver: Any, options: SolverOptions) -> None:
    tolerance = max(options.tolerance, _TIGHTEST)
    settings = {
        "output_flag": False,
        "primal_feasibility_tolerance": tolerance,
        "dual_feasibility_tolerance": tolerance,
        "qp_regularization_value": 0.0,
    }
    settings["time_limit"] = _SECONDS
    settings["simplex_iteration_limit"] = options.max_iterations or _SIMPLEX_ITERATIONS
    settings["qp_iteration_limit"] = options.max_iterations or _QP_ITERATIONS
    for key, value in {**settings, **options.native}.items():
        if solver.setOptionValue(key, value) != highspy.HighsStatus.kOk:
            raise ConfigError(f"highs: {key} = {value!r} is not accepted.")
