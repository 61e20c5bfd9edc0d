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
from ..common.standard_form import RawPoint, StandardForm, Vectors, keep, kept

_KNOWN = tuple(daqp.Model().settings)
_INFINITY = 1e30
_EQUALITY, _INACTIVE = 5, 0
_CLAIMS = {-1: SolveStatus.PRIMAL_INFEASIBLE, -3: SolveStatus.DUAL_INFEASIBLE}
_NOT_CONVEX = -5


@dataclass(frozen=True, eq=False)
class _State:
    form: StandardForm
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
            form = StandardForm.of(problem, lift=False)
            state, flag = _set_up(problem, form, options)
        else:
            v = state.form.vectors(problem)
            low, high, _ = _limits(v)
            with native:
                flag = state.native.update(f=v.q, bupper=high, blower=low)
        x, info = None, {}
        if flag >= 0:
            with native:
                x, _, flag, info = state.native.solve()
        iterations = int(info.get("iterations", 0))
        form = state.form
        if flag == _NOT_CONVEX:
            return Solution.failed(
                problem, SolveStatus.BAD_DATA, iterations=iterations, solver=self.name
            )
        claim, raw = _CLAIMS.get(flag), None
        if claim is None and x is not None:  # setup stops at equalities that contradict each other
            n, p = problem.n, problem.p
            bounds, nu, lam = np.split(np.asarray(info["lam"]), [n, n + p])
            # On an active bound it is there up to rounding.
            v = form.vectors(problem)
            x = np.where(bounds > 0.0, v.ub, np.where(bounds < 0.0, v.lb, x))
            raw = RawPoint.signed(x, nu, lam, bounds)
        solution = form.finalize(
            problem,
            raw,
            claim=claim,
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


def _set_up(problem: QP, form: StandardForm, options: SolverOptions) -> tuple[_State, int]:
    v = form.vectors(problem)
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
    P, rows = np.array(form.P), np.vstack([form.A, form.G])
    with native:
        flag, _ = model.setup(P, v.q, rows, high, low, kinds)
    return _State(form, options, model), int(flag)
