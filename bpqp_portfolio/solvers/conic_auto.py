"""The automatic choice of a solver for cone programs."""

from __future__ import annotations

from dataclasses import dataclass

from ..problems.socp import SOCP, SOCPSolution
from ..problems.solution import SolveStatus
from .conic_clarabel import ConicClarabel
from .protocol import SolverOptions
from .registry import available_cone_solvers, get_cone_solver

_SETTLED = (
    SolveStatus.SOLVED,
    SolveStatus.PRIMAL_INFEASIBLE,
    SolveStatus.DUAL_INFEASIBLE,
)


@dataclass(frozen=True)
class ConicAuto:
    """Clarabel, and SCS where that is installed and Clarabel did not reach eps.

    The Solution's ``solver`` is the one whose point it is.
    """

    name: str = "auto"

    def solve(
        self,
        problem: SOCP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
    ) -> SOCPSolution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.cones.ConeSolver`."""
        first = ConicClarabel().solve(problem, options=options)
        if first.status in _SETTLED or options.native or "scs" not in available_cone_solvers():
            return first
        second = get_cone_solver("scs").solve(problem, options=options)
        if second.status in _SETTLED:
            return second
        return second if second.kkt_norm < first.kkt_norm else first
