"""PIQP: a proximal interior-point method, on dense or sparse matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import piqp

from ...errors import ConfigError
from ...problems.matrices import Array
from ...problems.qp import QP, split_by_sign
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.native import native
from ..common.protocol import SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors, csc, keep, kept

_KNOWN = tuple(k for k in dir(piqp.DenseSolver().settings) if not k.startswith("_"))
_CLAIMS = {
    piqp.PIQP_PRIMAL_INFEASIBLE: SolveStatus.PRIMAL_INFEASIBLE,
    piqp.PIQP_DUAL_INFEASIBLE: SolveStatus.DUAL_INFEASIBLE,
}
# Its default of 1e-4 calls some solvable problems infeasible.
_INFEASIBILITY = 1e-6


@dataclass(frozen=True, eq=False)
class _State:
    """``fixed`` numbers the coordinates whose bounds are equal."""

    form: StandardForm
    options: SolverOptions
    fixed: Array
    native: Any


@dataclass(frozen=True)
class PIQPSolver:
    """R. Schwan, Y. Jiang, D. Kuhn and C. N. Jones, PIQP: a proximal interior-point quadratic
    programming solver, 2023.

    Works on the problem in unit sizes, dense or, where a matrix is sparse or P is lifted, sparse. A
    coordinate whose bounds are equal goes in as an equality. P is checked to be convex, since a
    stationary point would do. An entry keeps the solver object: setup, memory and the sparse
    ordering.
    """

    name: str = "piqp"
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
            vectors = _vectors(state.form.vectors(problem), state.fixed)
            with native:
                state.native.update(**vectors)
        form, model, fixed = state.form, state.native, state.fixed
        with native:
            status = model.solve()
        result = model.result
        nu, mu = np.split(np.asarray(result.y), [form.A.shape[0]])
        x, lam = np.asarray(result.x), np.asarray(result.z_u)
        lam_lb, lam_ub = np.array(result.z_bl), np.array(result.z_bu)
        lam_lb[fixed], lam_ub[fixed] = split_by_sign(mu)
        solution = form.finalize(
            problem,
            RawPoint(x, nu, lam, lam_lb, lam_ub),
            claim=_CLAIMS.get(status),
            iterations=int(result.info.iter),
            solver=self.name,
            options=options,
        )
        return keep(entry, problem, state, solution)


def _vectors(v: Vectors, fixed: Array) -> dict[str, Array]:
    lb, ub = v.lb.copy(), v.ub.copy()
    lb[fixed], ub[fixed] = -np.inf, np.inf
    return {"c": v.q, "b": np.concatenate([v.b, v.lb[fixed]]), "h_u": v.h, "x_l": lb, "x_u": ub}


def _set_up(problem: QP, options: SolverOptions) -> _State:
    form = StandardForm.of(problem)
    fixed = np.flatnonzero(problem.lb == problem.ub)
    P, A, G = form.P, form.A, form.G
    if form.sparse:
        model = piqp.SparseSolver()
        P, G = csc([P], form.size), csc([G], form.size)
        A = csc([A, (fixed, 1.0)], form.size)
    else:
        model = piqp.DenseSolver()
        P = P.T  # symmetric, and then in the order of its library
        A = np.vstack([A, np.eye(form.size)[fixed]]) if len(fixed) else A
    _configure(model.settings, options)
    vectors = _vectors(form.vectors(problem), fixed)
    with native:
        model.setup(P=P, A=A, G=G, **vectors)
    return _State(form, options, fixed, model)


def _configure(settings: Any, options: SolverOptions) -> None:
    settings.eps_abs = settings.eps_duality_gap_abs = options.tolerance
    settings.eps_rel = settings.eps_duality_gap_rel = options.tolerance
    settings.eps_primal_inf = settings.eps_dual_inf = _INFEASIBILITY
    if options.max_iterations is not None:
        settings.max_iter = options.max_iterations
    for key, value in options.native.items():
        try:
            setattr(settings, key, value)
        except TypeError:
            raise ConfigError(
                f"piqp: {key} = {value!r} is not accepted; its default is "
                f"{getattr(settings, key)!r}."
            ) from None
