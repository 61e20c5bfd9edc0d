"""Clarabel: a primal-dual interior-point method, here on a QP's linear cones.

Newton steps with Mehrotra's correction towards the central path of the homogeneous embedding of
Px + q + rowsᵀz = 0, rows x + s = b, s ∈ {0} × R₊, sᵀz = 0, whose iterates also tend to a
certificate where there is no solution (P. J. Goulart and Y. Chen, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np

from ...problems.bounds import BoundPlaces
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import SolveStatus
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc, upper_triangle
from .base import Backend, Ending, State, set_native

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


@dataclass(frozen=True)
class ClarabelSolver(Backend):
    """P. J. Goulart and Y. Chen, Clarabel: an interior-point solver for conic programs, 2024.

    Works on the problem in unit sizes. A coordinate whose bounds are equal goes in as an equality,
    since an interior point needs an interior. An entry keeps the ordering of the factorisation,
    which every iteration does anew.
    """

    name: str = "clarabel"
    settings: tuple[str, ...] = SETTINGS

    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        settings = to_native_settings(options)
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
        return State(form, options, model, at)

    def update(self, state: State, vectors: Vectors) -> None:
        b = _right_side(vectors, state.places)
        with native:
            state.native.update(q=vectors.q, b=b)

    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        with native:
            result = state.native.solve()
        form, at = state.form, state.places
        sizes = [form.A.shape[0], len(at.fixed), form.G.shape[0], len(at.lower)]
        nu, on_fixed, lam, on_lower, on_upper = np.split(np.asarray(result.z), np.cumsum(sizes))
        bounds = at.duals(form.size, on_fixed, on_lower, on_upper)
        return Ending(
            RawPoint(np.asarray(result.x), nu, lam, *bounds),
            int(result.iterations),
            claimed(result.status),
            reusable=state.native.is_data_update_allowed(),
        )


def _right_side(v: Vectors, at: BoundPlaces) -> Array:
    return np.concatenate([v.b, v.lb[at.fixed], v.h, -v.lb[at.lower], v.ub[at.upper]])


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
    set_native(settings, options, "clarabel")
    return settings
