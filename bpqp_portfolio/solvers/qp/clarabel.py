"""Clarabel: an interior-point method for conic programs, here on a QP's linear cones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np

from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP, BoundPlaces
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc, keep, kept, upper_triangle

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
    form: StandardForm
    options: SolverOptions
    places: BoundPlaces
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
            v = state.form.vectors(problem)
            b = _right_side(v, state.places)
            with native:
                state.native.update(q=v.q, b=b)
        form = state.form
        with native:
            result = state.native.solve()
        places = state.places
        sizes = [form.A.shape[0], len(places.fixed), form.G.shape[0], len(places.lower)]
        nu, mu_fixed, lam, mu_lower, mu_upper = np.split(np.asarray(result.z), np.cumsum(sizes))
        bound_duals = places.duals(form.size, mu_fixed, mu_lower, mu_upper)
        solution = form.finalize(
            problem,
            RawPoint(np.asarray(result.x), nu, lam, *bound_duals),
            claim=claimed(result.status),
            iterations=int(result.iterations),
            solver=self.name,
            options=options,
        )
        updatable = entry is not None and state.native.is_data_update_allowed()
        return keep(entry, problem, state if updatable else None, solution)


def _right_side(v: Vectors, at: BoundPlaces) -> Array:
    return np.concatenate([v.b, v.lb[at.fixed], v.h, -v.lb[at.lower], v.ub[at.upper]])


def _set_up(problem: QP, options: SolverOptions) -> _State:
    settings = to_native_settings(options)
    form = StandardForm.of(problem)
    v = form.vectors(problem)
    at = BoundPlaces.of(v.lb, v.ub)
    equalities = form.A.shape[0] + len(at.fixed)
    inequalities = form.G.shape[0] + len(at.lower) + len(at.upper)
    cones = []
    if equalities:
        cones.append(clarabel.ZeroConeT(equalities))
    if inequalities:
        cones.append(clarabel.NonnegativeConeT(inequalities))
    rows = [form.A, (at.fixed, 1.0), form.G, (at.lower, -1.0), (at.upper, 1.0)]
    P, b = upper_triangle(form.P), _right_side(v, at)
    with native:
        model = clarabel.DefaultSolver(P, v.q, csc(rows, form.size), b, cones, settings)
    return _State(form, options, at, model)


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
