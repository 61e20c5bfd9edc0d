"""OSQP: operator splitting (ADMM) on the sparse QP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import osqp
from scipy import sparse

from ..config import check_keys
from ..problems.qp import QP, Scaling
from ..problems.solution import Solution, SolveStatus
from .finish import failed, finish
from .handle import Slot
from .protocol import SolverOptions

_MAX_ITERATIONS = 20_000
# Adapting ρ helps mostly but may cycle for ever, at its default tolerance of 5 also on problems of
# two variables; a fixed ρ always converges. On the scaled problem 1 is a good one.
_ADAPTIVE_ITERATIONS = 4_000
_ADAPTIVE_TOLERANCE = 20.0
_RHO = 1.0
# Its default of 1e-4 calls some solvable problems unbounded.
_INFEASIBILITY = 1e-6
_Status = osqp.SolverStatus
_FAILURES = {
    _Status.OSQP_PRIMAL_INFEASIBLE: SolveStatus.PRIMAL_INFEASIBLE,
    _Status.OSQP_PRIMAL_INFEASIBLE_INACCURATE: SolveStatus.PRIMAL_INFEASIBLE,
    _Status.OSQP_DUAL_INFEASIBLE: SolveStatus.DUAL_INFEASIBLE,
    _Status.OSQP_DUAL_INFEASIBLE_INACCURATE: SolveStatus.DUAL_INFEASIBLE,
    _Status.OSQP_NON_CVX: SolveStatus.BAD_DATA,
}


@dataclass(frozen=True)
class OSQPSolver:
    """B. Stellato et al., OSQP: an operator splitting solver for quadratic programs, 2020.

    Works on the problem with objective and rows scaled to 1, so ``eps`` is relative. OSQP's own
    polishing is left off (1.1 prints to the terminal when nothing is active); ``finish`` polishes.
    """

    name: str = "osqp"

    def solve(
        self,
        problem: QP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
        slot: Slot | None = None,
    ) -> Solution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.protocol.Solver`."""
        units = Scaling.of(problem)
        bounded = np.flatnonzero(np.isfinite(problem.lb) | np.isfinite(problem.ub))
        eye = sparse.eye_array(problem.n, format="csr")[bounded]
        rows = sparse.vstack(
            [
                sparse.csr_array(problem.A / units.rows_A[:, None]),
                sparse.csr_array(problem.G / units.rows_G[:, None]),
                eye,
            ],
            format="csc",
        )
        b, h = problem.b / units.rows_A, problem.h / units.rows_G
        low = np.concatenate([b, np.full(problem.m, -np.inf), problem.lb[bounded]])
        high = np.concatenate([b, h, problem.ub[bounded]])
        limit = options.max_iterations or options.native.get("max_iter", _MAX_ITERATIONS)
        settings = {
            "rho": _RHO,
            "adaptive_rho_tolerance": _ADAPTIVE_TOLERANCE,
            "eps_abs": options.eps,
            "eps_rel": options.eps,
            "eps_prim_inf": _INFEASIBILITY,
            "eps_dual_inf": _INFEASIBILITY,
            "verbose": False,
            **options.native,
            "max_iter": min(limit, _ADAPTIVE_ITERATIONS),
        }
        known = [k for k in dir(osqp.OSQP().ext.OSQPSettings) if not k.startswith("_")]
        check_keys(settings, known, "osqp")
        solver = osqp.OSQP()
        P = sparse.triu(sparse.csc_array(problem.P / units.objective), format="csc")
        try:
            solver.setup(
                P=sparse.csc_matrix(P),
                q=problem.q / units.objective,
                A=sparse.csc_matrix(rows),
                l=low,
                u=high,
                **settings,
            )
        except osqp.OSQPException as error:
            if error.args and error.args[0] == osqp.SolverError.OSQP_NONCVX_ERROR:
                return failed(problem, SolveStatus.BAD_DATA, iterations=0, solver=self.name)
            raise
        result = solver.solve(raise_error=False)
        iterations = int(result.info.iter)
        if result.info.status_val == _Status.OSQP_MAX_ITER_REACHED and iterations < limit:
            solver.update_settings(
                rho=settings["rho"], adaptive_rho=False, max_iter=limit - iterations
            )
            result = solver.solve(raise_error=False)
            iterations += int(result.info.iter)
        if result.info.status_val in _FAILURES:
            status = _FAILURES[result.info.status_val]
            return failed(problem, status, iterations=iterations, solver=self.name)
        nu, lam, mu = np.split(np.asarray(result.y), [problem.p, problem.p + problem.m])
        bound_duals = np.zeros(problem.n)
        bound_duals[bounded] = mu * units.objective
        return finish(
            problem,
            np.asarray(result.x),
            nu * units.objective / units.rows_A,
            lam * units.objective / units.rows_G,
            np.maximum(-bound_duals, 0.0),
            np.maximum(bound_duals, 0.0),
            iterations=iterations,
            solver=self.name,
            options=options,
        )
