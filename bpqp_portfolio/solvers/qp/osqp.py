"""OSQP: operator splitting (ADMM) on the sparse QP min ½ xᵀPx + qᵀx, l ≤ Ax ≤ u.

Each iteration solves the quasidefinite system [P + σI Aᵀ; A −I/ρ] with one factorisation, projects
Ax on [l, u] and moves the duals by ρ times the gap. The rate depends on ρ, which is adapted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import osqp

from ...config import check_number
from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import SolveStatus
from ..common.native import BackendError, native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc, upper_triangle
from .base import NOT_CONVEX, Backend, Ending, State, set_native

_MAX_ITERATIONS = 20_000
# It measures against the data's size of z, an unpolished point's status against that of the point.
_SHARE = 0.1
# Adapting ρ mostly helps but may cycle without end, at its default tolerance of 5 even on problems
# of two variables; a fixed ρ always converges. On the scaled problem 1 is a good one.
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


@dataclass(frozen=True)
class OSQPSolver(Backend):
    """B. Stellato et al., OSQP: an operator splitting solver for quadratic programs, 2020.

    Works on the problem in unit sizes, so the tolerance is relative. OSQP's own polishing is left
    off: 1.1 prints to the terminal when nothing is active. An entry keeps the factorisation and
    starts from the last solution.
    """

    name: str = "osqp"
    settings: tuple[str, ...] = _KNOWN

    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        """See :class:`.base.Backend`.

        Raises
        ------
        ConfigError
            OSQP does not accept a setting.
        BackendError
            OSQP did not accept the problem.
        """
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
            "max_iter": min(_limit(options), _ADAPTIVE_ITERATIONS),
        }
        model = osqp.OSQP()
        set_native(model.ext.OSQPSettings(), options, self.name)
        v = form.vectors(problem)
        bounded = np.flatnonzero(np.isfinite(v.lb) | np.isfinite(v.ub))
        low, high = _limits(v, bounded)
        rows = csc([form.A, form.G, (bounded, 1.0)], form.size)
        upper = upper_triangle(form.P)
        try:
            with native:
                model.setup(P=upper, q=v.q, A=rows, l=low, u=high, **settings)
        except BackendError as error:
            why = _code(error)
            if why == _Error.OSQP_NONCVX_ERROR:
                return State(form, options, None)
            if why == _Error.OSQP_SETTINGS_VALIDATION_ERROR:
                raise ConfigError(f"osqp: one of {options.native} is not accepted.") from error
            if why is not None:
                raise BackendError(f"OSQPException: {why.name}") from error
            raise
        return State(form, options, model, bounded)

    def update(self, state: State, vectors: Vectors) -> None:
        low, high = _limits(vectors, state.places)
        with native:
            state.native.update(q=vectors.q, l=low, u=high)

    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        form, model, bounded, options = state.form, state.native, state.places, state.options
        if model is None:
            return NOT_CONVEX
        if initial is not None:
            on_bounds = (initial.lam_ub - initial.lam_lb)[bounded]
            y = np.concatenate([initial.nu, initial.lam, on_bounds])
            with native:
                model.warm_start(initial.x, y)
        # Step 1: with an adaptive ρ, and where that does not end, with a fixed one.
        with native:
            result = model.solve(raise_error=False)
        iterations, limit = int(result.info.iter), _limit(options)
        again = result.info.status_val in _UNFINISHED and iterations < limit
        if again:
            with native:
                model.update_settings(
                    rho=options.native.get("rho", _RHO),
                    adaptive_rho=False,
                    max_iter=limit - iterations,
                )
                result = model.solve(raise_error=False)
            iterations += int(result.info.iter)
        # Step 2: its point, or its certificate.
        status, p, m = result.info.status_val, form.A.shape[0], form.G.shape[0]
        if status == _Status.OSQP_NON_CVX:
            return replace(NOT_CONVEX, iterations=iterations)
        claim, x, y = _CLAIMS.get(status), result.x, result.y
        if claim is not None:
            x, y = result.dual_inf_cert, result.prim_inf_cert
        nu, lam, mu = np.split(np.asarray(y), [p, p + m])
        bounds = np.zeros(form.size)
        bounds[bounded] = mu
        raw = RawPoint.signed(np.asarray(x), nu, lam, bounds)
        # After a second attempt the settings are no longer those of a first one.
        return Ending(raw, iterations, claim, reusable=not again)


def _limit(options: SolverOptions) -> int:
    """The most iterations of both attempts together."""
    limit = options.native.get("max_iter", options.max_iterations or _MAX_ITERATIONS)
    check_number(limit, "osqp: max_iter", low=1, integer=True)
    return limit


def _limits(v: Vectors, bounded: Array) -> tuple[Array, Array]:
    low = np.concatenate([v.b, np.full(len(v.h), -np.inf), v.lb[bounded]])
    return low, np.concatenate([v.b, v.h, v.ub[bounded]])


def _code(error: BackendError) -> Any:
    """OSQP's own code of an error, or None."""
    cause = error.__cause__
    if not isinstance(cause, osqp.OSQPException) or not cause.args:
        return None
    return next((code for code in _Error if code == cause.args[0]), None)
