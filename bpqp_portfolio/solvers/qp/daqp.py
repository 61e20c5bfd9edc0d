"""DAQP: a dual active-set method, on dense matrices.

With P = RᵀR the dual of a strictly convex QP is the least-distance problem
min ½‖Mᵀλ‖² + dᵀλ, λ ≥ 0; rows join and leave one by one, and an LDLᵀ factorisation of the working
set follows them. Where P is singular proximal-point steps go around that.
"""

from __future__ import annotations

from dataclasses import dataclass

import daqp
import numpy as np

from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import SolveStatus
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors
from .base import Backend, Ending, State

_KNOWN = tuple(daqp.Model().settings)
_INFINITY = 1e30
_EQUALITY, _INACTIVE = 5, 0
_CLAIMS = {
    -1: SolveStatus.PRIMAL_INFEASIBLE,
    -3: SolveStatus.DUAL_INFEASIBLE,
    -5: SolveStatus.BAD_DATA,
}


@dataclass(frozen=True)
class DAQPSolver(Backend):
    """D. Arnström, A. Bemporad and D. Axehill, A dual active-set solver for embedded quadratic
    programming using recursive LDLᵀ updates, 2022.

    Works on the dense problem in unit sizes. An entry keeps the factorisation
    and the active set.
    """

    name: str = "daqp"
    settings: tuple[str, ...] = _KNOWN

    @property
    def lifts(self) -> bool:
        """It takes dense matrices."""
        return False

    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        """See :class:`.base.Backend`.

        Raises
        ------
        ConfigError
            DAQP does not accept a setting.
        """
        model, eps = daqp.Model(), options.tolerance
        settings = {"primal_tol": eps, "dual_tol": eps, **options.native}
        if options.max_iterations is not None:
            settings.setdefault("iter_limit", options.max_iterations)
        try:
            model.settings = settings
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"daqp: the settings {options.native} are not accepted: {error}."
            ) from error
        v = form.vectors(problem)
        low, high, kinds = _limits(v)
        P, rows = np.array(form.P), np.vstack([form.A, form.G])
        with native:
            flag, _ = model.setup(P, v.q, rows, high, low, kinds)
        return State(form, options, model, int(flag))

    def update(self, state: State, vectors: Vectors) -> None:
        low, high, _ = _limits(vectors)
        with native:
            state.places = state.native.update(f=vectors.q, bupper=high, blower=low)

    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        """See :class:`.base.Backend`; ``state.places`` is the flag of the last set-up or update."""
        x, flag, info = None, state.places, {}
        if flag >= 0:
            with native:
                x, _, flag, info = state.native.solve()
        iterations, claim = int(info.get("iterations", 0)), _CLAIMS.get(flag)
        # Its set-up stops at equalities that contradict each other.
        if claim is not None or x is None:
            return Ending(None, iterations, claim)
        n, p = problem.n, problem.p
        bounds, nu, lam = np.split(np.asarray(info["lam"]), [n, n + p])
        # On an active bound it is there up to rounding.
        v = state.form.vectors(problem)
        x = np.where(bounds > 0.0, v.ub, np.where(bounds < 0.0, v.lb, x))
        return Ending(RawPoint.signed(x, nu, lam, bounds), iterations)


def _limits(v: Vectors) -> tuple[Array, Array, Array]:
    """Lower and upper limits and the kinds of the rows [I; A; G]."""
    low = np.concatenate([v.lb, v.b, np.full(len(v.h), -_INFINITY)])
    high = np.concatenate([v.ub, v.b, v.h])
    kinds = np.where(low == high, _EQUALITY, _INACTIVE).astype(np.int32)
    return np.maximum(low, -_INFINITY), np.minimum(high, _INFINITY), kinds
