"""DAQP: a dual active-set method, on dense matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import daqp
import numpy as np

from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import Scaled, Vectors, keep, kept

_KNOWN = tuple(daqp.Model().settings)
_INFINITY = 1e30
_EQUALITY, _INACTIVE = 5, 0
_INFEASIBLE, _UNBOUNDED, _NOT_CONVEX = -1, -3, -5


@dataclass(frozen=True, eq=False)
class _State:
    scaled: Scaled
    options: SolverOptions
    native: Any


@dataclass(frozen=True)
class DAQPSolver:
    """D. Arnström, A. Bemporad and D. Axehill, A dual active-set solver for embedded quadratic
    programming using recursive LDLᵀ updates, 2022.

    Works on the dense problem in unit sizes. An entry keeps the factorisation
    and the active set.
    """

    name: str = "daqp"
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
            scaled = Scaled.of(problem, lift=False)
            state, flag = _set_up(problem, scaled, options)
        else:
            v = state.scaled.vectors(problem)
            low, high, _ = _limits(v)
            with native:
                flag = state.native.update(f=v.q, bupper=high, blower=low)
        x, info = None, {}
        if flag >= 0:
            with native:
                x, _, flag, info = state.native.solve()
        iterations = int(info.get("iterations", 0))
        scaled = state.scaled
        for failure, kind in (
            (_INFEASIBLE, SolveStatus.PRIMAL_INFEASIBLE),
            (_UNBOUNDED, SolveStatus.DUAL_INFEASIBLE),
        ):
            if flag == failure:
                return scaled.infeasible(problem, kind, iterations=iterations, solver=self.name)
        if flag == _NOT_CONVEX:
            return Solution.failed(
                problem, SolveStatus.BAD_DATA, iterations=iterations, solver=self.name
            )
        if x is None:  # its setup stops at equalities that contradict each other
            return scaled.gave_up(problem, iterations=iterations, solver=self.name)
        n, p = problem.n, problem.p
        bounds, nu, lam = np.split(np.asarray(info["lam"]), [n, n + p])
        # On an active bound it is there up to rounding.
        v = scaled.vectors(problem)
        x = np.where(bounds > 0.0, v.ub, np.where(bounds < 0.0, v.lb, x))
        solution = scaled.finalize(
            problem,
            x,
            nu,
            lam,
            np.maximum(-bounds, 0.0),
            np.maximum(bounds, 0.0),
            iterations=iterations,
            solver=self.name,
            options=options,
        )
        return keep(entry, problem, state, solution)


def _limits(v: Vectors) -> tuple[Array, Array, Array]:
    """Lower and upper limits and the kinds of the rows [I; A; G]."""
    low = np.concatenate([v.lb, v.b, np.full(len(v.h), -_INFINITY)])
    high = np.concatenate([v.ub, v.b, v.h])
    kinds = np.where(low == high, _EQUALITY, _INACTIVE).astype(np.int32)
    return np.maximum(low, -_INFINITY), np.minimum(high, _INFINITY), kinds


def _set_up(problem: QP, scaled: Scaled, options: SolverOptions) -> tuple[_State, int]:
    v = scaled.vectors(problem)
    low, high, kinds = _limits(v)
    model = daqp.Model()
    settings = {"primal_tol": options.tolerance, "dual_tol": options.tolerance, **options.native}
    if options.max_iterations is not None:
        settings.setdefault("iter_limit", options.max_iterations)
    try:
        model.settings = settings
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"daqp: the settings {options.native} are not accepted: {error}."
        ) from error
    P, rows = np.array(scaled.P), np.vstack([scaled.A, scaled.G])
    with native:
        flag, _ = model.setup(P, v.q, rows, high, low, kinds)
    return _State(scaled, options, model), int(flag)
