"""The automatic choice of a solver for cone programs."""

from __future__ import annotations

from dataclasses import dataclass

from ..problems.matrices import FactorMatrix, is_sparse
from ..problems.socp import SOCP, SOCPSolution
from ..problems.solution import SolveStatus
from .common.protocol import SolverOptions
from .conic.ball import solve_ball
from .registry import available_cone_solvers, get_cone_solver

_SETTLED = (
    SolveStatus.SOLVED,
    SolveStatus.PRIMAL_INFEASIBLE,
    SolveStatus.DUAL_INFEASIBLE,
    SolveStatus.BAD_DATA,
)
# Measured on robust linear programs and on balls of factor loadings, n = 10 to 500 with 5 to 400
# rows: from about so many entries on, this package's own solver is the faster one.
_LEAST = 8000
_FEW = 4
_LARGEST = 1000


@dataclass(frozen=True)
class ConicAuto:
    """By structure and size (:func:`choose_cones`), then the others where eps was not reached.

    The Solution's ``solver`` is the one whose point it is.
    """

    name: str = "auto"

    def solve(
        self,
        problem: SOCP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
    ) -> SOCPSolution:
        """Solve one problem; see :class:`~.conic.standard_form.ConeSolver`."""
        if not options.native:
            found = solve_ball(problem)
            if found is not None:
                return found
            if choose_cones(problem) == "interior":
                found = get_cone_solver("interior").solve(problem, options=options)
                if found.status in _SETTLED:
                    return found
        first = get_cone_solver("clarabel").solve(problem, options=options)
        if first.status in _SETTLED or options.native or "scs" not in available_cone_solvers():
            return first
        second = get_cone_solver("scs").solve(problem, options=options)
        if second.status in _SETTLED:
            return second
        return first if first.kkt_norm <= second.kkt_norm else second


def choose_cones(problem: SOCP) -> str:
    """ "interior" or "clarabel": which is tried first for ``problem``.

    The interior-point method of this package where there are at most 4 different norms, no matrix
    is sparse, n is at most 1000 and the dense rows (of A, G, F, c and P or its factor) have at
    least 8000 entries; otherwise Clarabel, which uses sparsity and is compiled. A program that
    :func:`~bpqp_portfolio.solvers.conic.ball.solve_ball` solves never gets here.
    """
    qp = problem.qp
    matrices = [qp.P, qp.A, qp.G, *(g.F for g in problem.groups)]
    if len(problem.groups) > _FEW or problem.n > _LARGEST or any(map(is_sparse, matrices)):
        return "clarabel"
    rows = qp.p + qp.m + (qp.P.B.shape[1] if isinstance(qp.P, FactorMatrix) else qp.n)
    for group in problem.groups:
        rows += (len(group.d) if group.headed else 0) + (0 if group.F is None else group.r)
    return "interior" if rows * problem.n >= _LEAST else "clarabel"
