"""The solvers that choose a solver, by structure, size and what is installed.

Nothing is computed here: :func:`choose` and :func:`choose_cones` are rules that were measured, and
where the first choice does not settle a problem another one is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ..problems.convex import ConvexProgram, SmoothSolution
from ..problems.matrices import FactorMatrix, is_sparse
from ..problems.qp import QP
from ..problems.socp import SOCP, SOCPSolution
from ..problems.solution import Solution, SolveStatus
from .common.cache import CacheEntry, Entries
from .common.parallel import solve_here
from .common.protocol import DEFAULTS, SolverOptions, StackSolver
from .conic.ball import solve_ball
from .conic.base import ConeSolver
from .registry import available_solvers, get_solver

# Up to this many variables an active-set method needs the fewest operations.
_TINY = 30
_LAST = "clarabel"
# What :func:`choose` may name.
_QP_CHOICES = ("dense", "daqp", "piqp", _LAST)
# Up to so many variables and rows our own solver is asked as well: it finds active sets.
_SMALL = 2000
_UNSETTLED = (SolveStatus.INACCURATE, SolveStatus.ITERATION_LIMIT)
# Of cone programs, measured on robust linear programs and on balls of factor loadings, n = 10 to
# 500 with 5 to 400 rows: from about so many entries on, this package's own solver is the faster.
_LEAST = 8000
_FEW = 4
_LARGEST = 1000


def choose(problem: QP) -> str:
    """The name of the solver for ``problem``, the first of these rules that is met and installed.

    - dense data without bounds: our own dense solver, whose rows are few;
    - dense data, up to 30 variables: DAQP, also without bounds where P is diagonal;
    - bounds, sparse data or a factor model: PIQP, or Clarabel.

    ``benchmarks/auto_rule.py`` shows the times behind the rule.
    """
    installed = available_solvers("qp")
    factor = isinstance(problem.P, FactorMatrix) and problem.P.B.shape[1] > 0
    dense = not factor and not any(is_sparse(M) for M in (problem.P, problem.A, problem.G))
    tiny = problem.n <= _TINY and "daqp" in installed
    if dense and not problem.bounded and not (tiny and isinstance(problem.P, FactorMatrix)):
        return "dense"
    if dense and tiny:
        return "daqp"
    return "piqp" if "piqp" in installed else _LAST


@dataclass(frozen=True)
class AutoSolver(StackSolver):
    """Asks the solver that :func:`choose` names; where that fails our own, and then Clarabel.

    The Solution's ``solver`` is the one that answered.
    """

    name: str = "auto"

    @property
    def settings(self) -> Collection[str]:
        """Those of any solver that it may take; the one that it takes refuses the others'."""
        installed = set(_QP_CHOICES) & set(available_solvers("qp"))
        return {one for name in installed for one in get_solver(name).settings or ()}

    def solve_stack(
        self, problems: Sequence[QP], *, options: SolverOptions = DEFAULTS, entries: Entries = None
    ) -> list[Solution]:
        name = choose(problems[0])
        found = solve_here(get_solver(name), problems, options=options, entries=entries)
        # The other solvers do not have the first one's settings.
        options = replace(options, native={})
        small = len(problems[0].q) + problems[0].m <= _SMALL
        for other in ("dense", _LAST) if small else (_LAST,):
            again = [i for i, s in enumerate(found) if s.status in _UNSETTLED]
            if not again:
                break
            if other == name:
                continue
            more = solve_here(get_solver(other), [problems[i] for i in again], options=options)
            for i, solution in zip(again, more, strict=True):
                if not (solution.status.usable and found[i].kkt_norm <= solution.kkt_norm):
                    found[i] = solution
        return found


@dataclass(frozen=True)
class ConicAuto(ConeSolver):
    """By structure and size (:func:`choose_cones`), then the others where that did not settle it.

    The Solution's ``solver`` is the one whose point it is.
    """

    name: str = "auto"

    @property
    def settings(self) -> Collection[str]:
        """Those of Clarabel, which alone is asked where there are any."""
        return get_solver(_LAST, "cone").settings or ()

    def cold(self, problem: SOCP, options: SolverOptions) -> SOCPSolution:
        if not options.native:
            found = solve_ball(problem)
            if found is not None:
                return found
            if choose_cones(problem) == "interior":
                found = get_solver("interior", "cone").solve(problem, options=options)
                if found.status not in _UNSETTLED:
                    return found
        first = get_solver(_LAST, "cone").solve(problem, options=options)
        others = not options.native and "scs" in available_solvers("cone")
        if first.status not in _UNSETTLED or not others:
            return first
        second = get_solver("scs", "cone").solve(problem, options=options)
        if second.status not in _UNSETTLED:
            return second
        return first if first.kkt_norm <= second.kkt_norm else second


@dataclass(frozen=True)
class SmoothAuto:
    """Newton steps by QPs, ``sqp``, whose name the Solution has."""

    name: str = "auto"

    @property
    def settings(self) -> Collection[str] | None:
        """Those of ``sqp``."""
        return get_solver("sqp", "smooth").settings

    def solve(
        self,
        problem: ConvexProgram,
        *,
        options: SolverOptions = DEFAULTS,
        entry: CacheEntry | None = None,
    ) -> SmoothSolution:
        """See :class:`~.common.protocol.Solver`."""
        return get_solver("sqp", "smooth").solve(problem, options=options, entry=entry)


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
