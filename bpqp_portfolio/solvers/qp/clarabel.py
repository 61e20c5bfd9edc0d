"""Clarabel: an interior-point method for conic programs, here on a QP's linear cones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np

from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import Scaled, Vectors, csc, keep, kept, upper_triangle

SETTINGS = tuple(k for k in dir(clarabel.DefaultSettings()) if not k.startswith("_"))
_Status = clarabel.SolverStatus
# Its status objects do not hash.
_CLAIMS = (
    (_Status.PrimalInfeasible, SolveStatus.PRIMAL_INFEASIBLE),
    (_Status.AlmostPrimalInfeasible, SolveStatus.PRIMAL_INFEASIBLE),
    (_Status.DualInfeasible, SolveStatus.DUAL_INFEASIBLE),
    (_Status.AlmostDualInfeasible, SolveStatus.DUAL_INFEASIBLE),
)


def claimed(status: Any) -> SolveStatus | None:
    """What Clarabel's ``status`` claims to have proved, None where it is not infeasibility."""
    return next((meaning for own, meaning in _CLAIMS if own == status), None)


@dataclass(frozen=True, eq=False)
class _State:
    """``fixed``, ``lower`` and ``upper`` number the coordinates with such bounds."""

    scaled: Scaled
    options: SolverOptions
    fixed: Array
    lower: Array
    upper: Array
    native: Any


@dataclass(frozen=True)
class ClarabelSolver:
    """P. J. Goulart and Y. Chen, Clarabel: an interior-point solver for conic programs, 2024.

    Works on the problem in unit sizes. A coordinate whose bounds are equal goes in as an equality,
    since an interior point needs an interior. An entry keeps the ordering of the factorisation,
    which every iteration does anew.
    """

    name: str = "clarabel"
    settings: tuple[str, ...] = SETTINGS

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
            v = state.scaled.vectors(problem)
            b = _right_side(v, state.fixed, state.lower, state.upper)
            with native:
                state.native.update(q=v.q, b=b)
        scaled = state.scaled
        with native:
            result = state.native.solve()
        fixed, lower, upper = state.fixed, state.lower, state.upper
        sizes = [scaled.A.shape[0], len(fixed), scaled.G.shape[0], len(lower)]
        nu, mu_fixed, lam, mu_lower, mu_upper = np.split(np.asarray(result.z), np.cumsum(sizes))
        x, iterations = np.asarray(result.x), int(result.iterations)
        claim = claimed(result.status)
        if claim is SolveStatus.PRIMAL_INFEASIBLE:
            return scaled.infeasible(
                problem,
                SolveStatus.PRIMAL_INFEASIBLE,
                duals=(nu, lam),
                iterations=iterations,
                solver=self.name,
            )
        if claim is SolveStatus.DUAL_INFEASIBLE:
            return scaled.infeasible(
                problem,
                SolveStatus.DUAL_INFEASIBLE,
                ray=x,
                iterations=iterations,
                solver=self.name,
            )
        lam_lb, lam_ub = np.zeros(scaled.size), np.zeros(scaled.size)
        lam_lb[lower], lam_ub[upper] = mu_lower, mu_upper
        lam_lb[fixed], lam_ub[fixed] = np.maximum(-mu_fixed, 0.0), np.maximum(mu_fixed, 0.0)
        solution = scaled.finalize(
            problem,
            x,
            nu,
            lam,
            lam_lb,
            lam_ub,
            iterations=iterations,
            solver=self.name,
            options=options,
        )
        updatable = entry is not None and state.native.is_data_update_allowed()
        return keep(entry, problem, state if updatable else None, solution)


def _right_side(v: Vectors, fixed: Array, lower: Array, upper: Array) -> Array:
    return np.concatenate([v.b, v.lb[fixed], v.h, -v.lb[lower], v.ub[upper]])


def _set_up(problem: QP, options: SolverOptions) -> _State:
    settings = to_native_settings(options)
    scaled = Scaled.of(problem)
    v = scaled.vectors(problem)
    equal = v.lb == v.ub
    fixed = np.flatnonzero(equal)
    lower = np.flatnonzero(np.isfinite(v.lb) & ~equal)
    upper = np.flatnonzero(np.isfinite(v.ub) & ~equal)
    equalities = scaled.A.shape[0] + len(fixed)
    inequalities = scaled.G.shape[0] + len(lower) + len(upper)
    cones = []
    if equalities:
        cones.append(clarabel.ZeroConeT(equalities))
    if inequalities:
        cones.append(clarabel.NonnegativeConeT(inequalities))
    rows = csc([scaled.A, (fixed, 1.0), scaled.G, (lower, -1.0), (upper, 1.0)], scaled.size)
    P, b = upper_triangle(scaled.P), _right_side(v, fixed, lower, upper)
    with native:
        model = clarabel.DefaultSolver(P, v.q, rows, b, cones, settings)
    return _State(scaled, options, fixed, lower, upper, model)


def to_native_settings(options: SolverOptions) -> clarabel.DefaultSettings:
    """``options`` as Clarabel takes them.

    Raises
    ------
    ConfigError
        A native setting's value is not accepted.
    """
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = options.tolerance
    if options.max_iterations is not None:
        settings.max_iter = options.max_iterations
    for key, value in options.native.items():
        try:
            setattr(settings, key, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"clarabel: {key} = {value!r} is not accepted: {error}.") from error
    return settings
