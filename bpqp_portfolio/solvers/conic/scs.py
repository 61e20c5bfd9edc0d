"""SCS on cone programs: operator splitting on the homogeneous embedding of the KKT conditions.

Douglas-Rachford steps alternate between a linear system with one factorisation and the projection
on the cones (B. O'Donoghue, SIAM J. Optim. 31, 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scs

from ...errors import ConfigError
from ...problems.socp import SOCP, SOCPSolution
from ...problems.solution import SolveStatus
from ..common.native import BackendError, native
from ..common.protocol import SolverOptions
from .base import ConeSolver
from .finalize import finalize
from .standard_form import ConicForm

_MAX_ITERATIONS = 20_000
_FAILURES = {
    scs.INFEASIBLE: SolveStatus.PRIMAL_INFEASIBLE,
    scs.INFEASIBLE_INACCURATE: SolveStatus.PRIMAL_INFEASIBLE,
    scs.UNBOUNDED: SolveStatus.DUAL_INFEASIBLE,
    scs.UNBOUNDED_INACCURATE: SolveStatus.DUAL_INFEASIBLE,
}
_SETTINGS = (
    "use_indirect",
    "verbose",
    "normalize",
    "max_iters",
    "scale",
    "adaptive_scale",
    "eps_abs",
    "eps_rel",
    "eps_infeas",
    "alpha",
    "rho_x",
    "acceleration_lookback",
    "acceleration_interval",
    "time_limit_secs",
)


@dataclass(frozen=True)
class ConicSCS(ConeSolver):
    """B. O'Donoghue, Operator splitting for a homogeneous embedding of the linear complementarity
    problem, 2021."""

    name: str = "scs"
    settings: tuple[str, ...] = _SETTINGS

    def cold(self, problem: SOCP, options: SolverOptions) -> SOCPSolution:
        """Solve one problem without an earlier solution.

        Raises
        ------
        ConfigError
            SCS does not accept a setting.
        """
        settings = {
            "verbose": False,
            "eps_abs": options.tolerance,
            "eps_rel": options.tolerance,
            "max_iters": options.max_iterations or _MAX_ITERATIONS,
            **options.native,
        }
        if not problem.qp.convex:
            return SOCPSolution.failed(
                problem, SolveStatus.BAD_DATA, iterations=0, solver=self.name
            )
        form = ConicForm.of(problem)
        data = {"P": form.P, "A": form.rows, "b": form.rhs, "c": form.q}
        cone = {"z": form.equalities, "l": form.inequalities, "q": list(form.cones)}
        try:
            with native:
                solver = scs.SCS(data, cone, **settings)
        except BackendError as error:
            if not options.native:
                raise
            raise ConfigError(f"scs: a setting is not accepted: {error}.") from error
        with native:
            result = solver.solve(warm_start=False)
        x, y, count = np.asarray(result["x"]), np.asarray(result["y"]), int(result["info"]["iter"])
        failure = _FAILURES.get(result["info"]["status_val"])
        if failure is not None:
            return form.infeasible(failure, x, y, count, self.name)
        return finalize(
            problem, form.point(x, y), iterations=count, solver=self.name, options=options
        )
