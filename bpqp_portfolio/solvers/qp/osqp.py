"""OSQP: operator splitting (ADMM) on the sparse QP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import osqp

from ...config import check_number
from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.native import BackendError, native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, csc, keep, kept, upper_triangle

_MAX_ITERATIONS = 20_000
# It measures against the data's size of z, an unpolished point's status against that of the point.
_SHARE = 0.1
# Adapting ρ helps mostly but may cycle for ever, at its default tolerance of 5 also on problems of
# two variables; a fixed ρ always converges. On the form problem 1 is a good one.
_ADAPTIVE_ITERATIONS = 4_000
_ADAPTIVE_TOLERANCE = 20.0
_RHO = 1.0
# Its default of 1e-4 calls some solvable problems unbounded.
_INFEASIBILITY = 1e-6
_Status, _Error = osqp.SolverStatus, osqp.SolverError
_CLAIMS = {
    _Status.OSQP_PRIMAL_INFEASIBLE: SolveStatus.PRIMAL_INFEASIBLE,
    _Status.OSQP_PRIMAL_INFEASIBLE_INACCURATE: SolveStatus.PRIMAL_INFEASIBLE,
    _Status.OSQP_DUAL_INFEASIBLE: SolveStatus.DUAL_INFEASIBLE,
    _Status.OSQP_DUAL_INFEASIBLE_INACCURATE: SolveStatus.DUAL_INFEASIBLE,
}
_UNFINISHED = (
    _Status.OSQP_MAX_ITER_REACHED,
    _Status.OSQP_SOLVED_INACCURATE,
    _Status.OSQP_PRIMAL_INFEASIBLE_INACCURATE,
    _Status.OSQP_DUAL_INFEASIBLE_INACCURATE,
)
_KNOWN = tuple(k for k in dir(osqp.OSQP().ext.OSQPSettings) if not k.startswith("_"))


@dataclass(frozen=True, eq=False)
class _State:
    form: StandardForm
    options: SolverOptions
    bounded: Array
    native: Any
    limit: int


@dataclass(frozen=True)
class OSQPSolver:
    """B. Stellato et al., OSQP: an operator splitting solver for quadratic programs, 2020.

    Works on the problem in unit sizes, so the tolerance is relative. OSQP's own polishing is left
    off: 1.1 prints to the terminal when nothing is active. An entry keeps the factorisation and
    starts from the last solution.
    """

    name: str = "osqp"
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
            try:
                state = _set_up(problem, options)
            except BackendError as error:
                why = _code(error)
                if why == _Error.OSQP_NONCVX_ERROR:
                    return Solution.failed(
                        problem, SolveStatus.BAD_DATA, iterations=0, solver=self.name
                    )
                if why == _Error.OSQP_SETTINGS_VALIDATION_ERROR:
                    raise ConfigError(f"osqp: one of {options.native} is not accepted.") from error
                if why is not None:
                    raise BackendError(f"OSQPException: {why.name}") from error
                raise
        else:
            v = state.form.vectors(problem)
            low, high = _limits(v, state.bounded)
            with native:
                state.native.update(q=v.q, l=low, u=high)
        last = state.form.initial_point(problem, entry)
        if last is not None:
            y = np.concatenate([last.nu, last.lam, (last.lam_ub - last.lam_lb)[state.bounded]])
            with native:
                state.native.warm_start(last.x, y)
        form, model = state.form, state.native
        with native:
            result = model.solve(raise_error=False)
        iterations, keeping = int(result.info.iter), state
        if result.info.status_val in _UNFINISHED and iterations < state.limit:
            with native:
                model.update_settings(
                    rho=options.native.get("rho", _RHO),
                    adaptive_rho=False,
                    max_iter=state.limit - iterations,
                )
                result = model.solve(raise_error=False)
            iterations += int(result.info.iter)
            keeping = None  # its settings are no longer those of a first attempt
        status = result.info.status_val
        p, m = form.A.shape[0], form.G.shape[0]
        if status == _Status.OSQP_NON_CVX:
            return Solution.failed(
                problem, SolveStatus.BAD_DATA, iterations=iterations, solver=self.name
            )
        claim, x, y = _CLAIMS.get(status), result.x, result.y
        if claim is not None:
            x, y = result.dual_inf_cert, result.prim_inf_cert
        nu, lam, mu = np.split(np.asarray(y), [p, p + m])
        bound_duals = np.zeros(form.size)
        bound_duals[state.bounded] = mu
        solution = form.finalize(
            problem,
            RawPoint.signed(np.asarray(x), nu, lam, bound_duals),
            claim=claim,
            iterations=iterations,
            solver=self.name,
            options=options,
        )
        return keep(entry, problem, keeping, solution)


def _limits(v: Any, bounded: Array) -> tuple[Array, Array]:
    low = np.concatenate([v.b, np.full(len(v.h), -np.inf), v.lb[bounded]])
    return low, np.concatenate([v.b, v.h, v.ub[bounded]])


def _code(error: BackendError) -> Any:
    """OSQP's own code of an error, or None."""
    cause = error.__cause__
    if not isinstance(cause, osqp.OSQPException) or not cause.args:
        return None
    return next((code for code in _Error if code == cause.args[0]), None)


def _set_up(problem: QP, options: SolverOptions) -> _State:
    limit = options.native.get("max_iter", options.max_iterations or _MAX_ITERATIONS)
    check_number(limit, "osqp: max_iter", low=1, integer=True)
    eps = options.tolerance if options.polish else _SHARE * options.tolerance
    settings = {
        "rho": _RHO,
        "adaptive_rho_tolerance": _ADAPTIVE_TOLERANCE,
        "eps_abs": eps,
        "eps_rel": eps,
        "eps_prim_inf": _INFEASIBILITY,
        "eps_dual_inf": _INFEASIBILITY,
        "verbose": False,
        **options.native,
        "max_iter": min(limit, _ADAPTIVE_ITERATIONS),
    }
    model = osqp.OSQP()
    for key, value in options.native.items():
        try:
            setattr(model.ext.OSQPSettings(), key, value)
        except TypeError as error:
            raise ConfigError(f"osqp: {key} = {value!r} is not accepted: {error}.") from error
    form = StandardForm.of(problem)
    v = form.vectors(problem)
    bounded = np.flatnonzero(np.isfinite(v.lb) | np.isfinite(v.ub))
    low, high = _limits(v, bounded)
    rows = csc([form.A, form.G, (bounded, 1.0)], form.size)
    upper = upper_triangle(form.P)
    with native:
        model.setup(P=upper, q=v.q, A=rows, l=low, u=high, **settings)
    return _State(form, options, bounded, model, limit)
