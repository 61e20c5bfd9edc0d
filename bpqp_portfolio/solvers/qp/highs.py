"""HiGHS: the simplex method for P = 0, an active-set method for a convex QP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from scipy import sparse

from ...errors import ConfigError
from ...problems.matrices import Array, largest
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc, keep, kept, upper_triangle

_KNOWN = tuple(k for k in dir(highspy.HighsOptions()) if not k.startswith("_"))
_TIGHTEST = 1e-10
_SHIFT = 1e-7
# Without limits its QP solver may cycle for ever, also on problems of a few variables.
_SIMPLEX_ITERATIONS, _QP_ITERATIONS, _SECONDS = 100_000, 20_000, 60.0
_Status = highspy.HighsModelStatus
_CLAIMS = {
    _Status.kInfeasible: SolveStatus.PRIMAL_INFEASIBLE,
    _Status.kUnbounded: SolveStatus.DUAL_INFEASIBLE,
}


@dataclass(frozen=True, eq=False)
class _State:
    form: StandardForm
    options: SolverOptions
    native: Any


@dataclass(frozen=True)
class HiGHSSolver:
    """Q. Huangfu and J. A. J. Hall, Parallelizing the dual revised simplex method, 2018.

    Works on the sparse problem in unit sizes, for at most 60 seconds. An entry keeps the model; a
    linear program then starts from its last basis.
    """

    name: str = "highs"
    settings: tuple[str, ...] = _KNOWN

    def solve(
        self,
        problem: QP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
        entry: CacheEntry | None = None,
    ) -> Solution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.common.protocol.Solver`."""
        state = kept(entry, problem, options)
        if state is None:
            state = _set_up(problem, options)
        else:
            _update(state, problem)
        form, model = state.form, state.native
        if model is None:  # its own check of the Hessian
            return Solution.failed(problem, SolveStatus.BAD_DATA, iterations=0, solver=self.name)
        with native:
            model.run()
            if model.getModelStatus() == _Status.kSolveError:
                # Its QP solver needs the shift where P is singular; polishing takes it out again.
                model.setOptionValue("qp_regularization_value", _SHIFT)
                model.run()
            status, info, found = model.getModelStatus(), model.getInfo(), model.getSolution()
        if status == _Status.kNotset:  # it refuses a Hessian with a negative diagonal
            return Solution.failed(problem, SolveStatus.BAD_DATA, iterations=0, solver=self.name)
        iterations = max(info.simplex_iteration_count, 0) + max(info.qp_iteration_count, 0)
        p = form.A.shape[0]
        claim, raw = _CLAIMS.get(status), None
        if claim is None and found.value_valid:  # it is not where its QP is unbounded
            rows, bounds = -np.asarray(found.row_dual), -np.asarray(found.col_dual)
            raw = RawPoint.signed(np.asarray(found.col_value), rows[:p], rows[p:], bounds)
        solution = form.finalize(
            problem,
            raw,
            claim=claim,
            iterations=iterations,
            solver=self.name,
            options=options,
        )
        return keep(entry, problem, state, solution)


def _limits(v: Vectors) -> tuple[Array, Array]:
    return np.concatenate([v.b, np.full(len(v.h), -np.inf)]), np.concatenate([v.b, v.h])


def _set_up(problem: QP, options: SolverOptions) -> _State:
    form = StandardForm.of(problem)
    v = form.vectors(problem)
    n = form.size
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
    # highspy.Highs registers callbacks, and prints a banner before it can be told not to.
    solver = highspy._Highs()  # type: ignore[attr-defined]
    _configure(solver, options)
    with native:
        refused = solver.passModel(model) == highspy.HighsStatus.kError
    return _State(form, options, None if refused else solver)


def _update(state: _State, problem: QP) -> None:
    v = state.form.vectors(problem)
    model, columns = state.native, np.arange(state.form.size, dtype=np.int32)
    low, high = _limits(v)
    rows = np.arange(len(low), dtype=np.int32)
    with native:
        model.changeColsCost(len(columns), columns, v.q)
        model.changeColsBounds(len(columns), columns, v.lb, v.ub)
        model.changeRowsBounds(len(rows), rows, low, high)


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
