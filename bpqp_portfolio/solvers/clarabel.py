"""Clarabel: an interior-point method for conic programs, here on a QP's linear cones."""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np
from scipy import sparse

from ..config import check_keys
from ..errors import ConfigError
from ..problems.qp import QP, Scaling
from ..problems.solution import Solution, SolveStatus
from .finish import failed, finish
from .handle import Slot
from .protocol import SolverOptions

_Status = clarabel.SolverStatus
# Its status objects do not hash.
_FAILURES = (
    (_Status.PrimalInfeasible, SolveStatus.PRIMAL_INFEASIBLE),
    (_Status.AlmostPrimalInfeasible, SolveStatus.PRIMAL_INFEASIBLE),
    (_Status.DualInfeasible, SolveStatus.DUAL_INFEASIBLE),
    (_Status.AlmostDualInfeasible, SolveStatus.DUAL_INFEASIBLE),
)


@dataclass(frozen=True)
class ClarabelSolver:
    """P. J. Goulart and Y. Chen, Clarabel: an interior-point solver for conic programs, 2024.

    Works on the problem with objective and rows scaled to 1. A coordinate whose bounds are equal
    goes in as an equality, since an interior point needs an interior.
    """

    name: str = "clarabel"

    def solve(
        self,
        problem: QP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
        slot: Slot | None = None,
    ) -> Solution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.protocol.Solver`."""
        n, p, m = problem.n, problem.p, problem.m
        units = Scaling.of(problem)
        equal = problem.lb == problem.ub
        fixed = np.flatnonzero(equal)
        lower = np.flatnonzero(np.isfinite(problem.lb) & ~equal)
        upper = np.flatnonzero(np.isfinite(problem.ub) & ~equal)
        eye = sparse.eye_array(n, format="csr")
        rows = sparse.vstack(
            [
                sparse.csr_array(problem.A / units.rows_A[:, None]),
                eye[fixed],
                sparse.csr_array(problem.G / units.rows_G[:, None]),
                -eye[lower],
                eye[upper],
            ],
            format="csc",
        )
        rhs = np.concatenate(
            [
                problem.b / units.rows_A,
                problem.lb[fixed],
                problem.h / units.rows_G,
                -problem.lb[lower],
                problem.ub[upper],
            ]
        )
        equalities, inequalities = p + len(fixed), m + len(lower) + len(upper)
        cones = []
        if equalities:
            cones.append(clarabel.ZeroConeT(equalities))
        if inequalities:
            cones.append(clarabel.NonnegativeConeT(inequalities))
        P = sparse.triu(sparse.csc_array(problem.P / units.objective), format="csc")
        result = clarabel.DefaultSolver(
            sparse.csc_matrix(P),
            problem.q / units.objective,
            sparse.csc_matrix(rows),
            rhs,
            cones,
            _settings(options),
        ).solve()
        for status, meaning in _FAILURES:
            if result.status == status:
                return failed(problem, meaning, iterations=int(result.iterations), solver=self.name)
        duals = np.asarray(result.z) * units.objective
        sizes = [p, len(fixed), m, len(lower)]
        nu, mu_fixed, lam, mu_lower, mu_upper = np.split(duals, np.cumsum(sizes))
        lam_lb, lam_ub = np.zeros(n), np.zeros(n)
        lam_lb[lower], lam_ub[upper] = mu_lower, mu_upper
        lam_lb[fixed], lam_ub[fixed] = np.maximum(-mu_fixed, 0.0), np.maximum(mu_fixed, 0.0)
        return finish(
            problem,
            np.asarray(result.x),
            nu / units.rows_A,
            lam / units.rows_G,
            lam_lb,
            lam_ub,
            iterations=int(result.iterations),
            solver=self.name,
            options=options,
        )


def _settings(options: SolverOptions) -> clarabel.DefaultSettings:
    settings = clarabel.DefaultSettings()
    check_keys(options.native, [k for k in dir(settings) if not k.startswith("_")], "clarabel")
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = options.eps
    if options.max_iterations is not None:
        settings.max_iter = options.max_iterations
    for key, value in options.native.items():
        try:
            setattr(settings, key, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"clarabel: {key} = {value!r} is not accepted: {error}.") from error
    return settings
