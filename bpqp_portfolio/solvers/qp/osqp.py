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
from ..common.standard_form import Scaled, csc, keep, kept, upper_triangle

_MAX_ITERATIONS = 20_000
# It measures against the data's size of z, an unpolished point's status against that of the point.
_SHARE = 0.1
# Adapting ρ helps mostly but may cycle for ever, at its default tolerance of 5 also on problems of
# two variables; a fixed ρ always converges. On the scaled problem 1 is a good one.
_ADAPTIVE_ITERATIONS = 4_000
_ADAPTIVE_TOLERANCE = 20.0
_RHO = 1.0
# Its default of 1e-4 calls some solvable problems unbounded.
_INFEASIBILITY = 1e-6
_Status, _Error = osqp.SolverStatus, osqp.SolverError
_PRIMAL = (_Status.OSQP_PRIMAL_INFEASIBLE, _Status.OSQP_PRIMAL_INFEASIBLE_INACCURATE)
_DUAL = (_Status.OSQP_DUAL_INFEASIBLE, _Status.OSQP_DUAL_INFEASIBLE_INACCURATE)
_UNFINISHED = (
    _Status.OSQP_MAX_ITER_REACHED,
    _Status.OSQP_SOLVED_INACCURATE,
    _Status.OSQP_PRIMAL_INFEASIBLE_INACCURATE,
    _Status.OSQP_DUAL_INFEASIBLE_INACCURATE,
)
_KNOWN = tuple(k for k in dir(osqp.OSQP().ext.OSQPSettings) if not k.startswith("_"))


@dataclass(frozen=True, eq=False)
class _State:
    scaled: Scaled
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
            v = state.scaled.vectors(problem)
            low, high = _limits(v, state.bounded)
            with native:
                state.native.update(q=v.q, l=low, u=high)
        start = state.scaled.start(problem, entry)
        if start is not None:
            x, nu, lam, lam_lb, lam_ub = start
            y = np.concatenate([nu, lam, (lam_ub - lam_lb)[state.bounded]])
            with native:
                state.native.warm_start(x, y)
        scaled, model = state.scaled, state.native
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
        p, m = scaled.A.shape[0], scaled.G.shape[0]
        if status in _PRIMAL:
            nu, lam, _ = np.split(np.asarray(result.prim_inf_cert), [p, p + m])
            return scaled.infeasible(
                problem,
                SolveStatus.PRIMAL_INFEASIBLE,
                duals=(nu, lam),
                iterations=iterations,
                solver=self.name,
            )
        if status in _DUAL:
            return scaled.infeasible(
                problem,
                SolveStatus.DUAL_INFEASIBLE,
                ray=np.asarray(result.dual_inf_cert),
                iterations=iterations,
                solver=self.name,
            )
        if status == _Status.OSQP_NON_CVX:
            return Solution.failed(
                problem, SolveStatus.BAD_DATA, iterations=iterations, solver=self.name
            )
        nu, lam, mu = np.split(np.asarray(result.y), [p, p + m])
        bound_duals = np.zeros(scaled.size)
        bound_duals[state.bounded] = mu
        solution = scaled.finalize(
            problem,
            np.asarray(result.x),
            nu,
            lam,
            np.maximum(-bound_duals, 0.0),
            np.maximum(bound_duals, 0.0),
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
    scaled = Scaled.of(problem)
    v = scaled.vectors(problem)
    bounded = np.flatnonzero(np.isfinite(v.lb) | np.isfinite(v.ub))
    low, high = _limits(v, bounded)
    rows = csc([scaled.A, scaled.G, (bounded, 1.0)], scaled.size)
    upper = upper_triangle(scaled.P)
    with native:
        model.setup(P=upper, q=v.q, A=rows, l=low, u=high, **settings)
    return _State(scaled, options, bounded, model, limit)
