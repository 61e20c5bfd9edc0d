"""The solver that chooses a solver, by structure, size and what is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..problems.matrices import FactorMatrix, is_sparse
from ..problems.qp import QP
from ..problems.solution import Solution, SolveStatus
from .common.cache import CacheEntry
from .common.parallel import solve_here
from .common.protocol import SolverOptions

# Up to this many variables an active-set method needs the fewest operations.
_TINY = 30
_LAST = "clarabel"
# Up to so many variables and rows our own solver is asked as well: it finds active sets.
_SMALL = 2000
_UNSETTLED = (SolveStatus.INACCURATE, SolveStatus.ITERATION_LIMIT)


def choose(problem: QP) -> str:
    """The name of the solver for ``problem``, the first of these rules that is met and installed.

    - dense data without bounds: our own dense solver, whose rows are few;
    - dense data, up to 30 variables: DAQP, also without bounds where P is diagonal;
    - bounds, sparse data or a factor model: PIQP, or Clarabel.

    ``benchmarks/auto_rule.py`` shows the times behind the rule.
    """
    from .registry import available_solvers

    installed = available_solvers()
    factor = isinstance(problem.P, FactorMatrix) and problem.P.B.shape[1] > 0
    dense = not factor and not any(is_sparse(M) for M in (problem.P, problem.A, problem.G))
    tiny = problem.n <= _TINY and "daqp" in installed
    if dense and not problem.bounded and not (tiny and isinstance(problem.P, FactorMatrix)):
        return "dense"
    if dense and tiny:
        return "daqp"
    return "piqp" if "piqp" in installed else _LAST


@dataclass(frozen=True)
class AutoSolver:
    """Asks the solver that :func:`choose` names; where that fails our own, and then Clarabel.

    The Solution's ``solver`` is the one that answered.
    """

    name: str = "auto"

    def solve(
        self,
        problem: QP,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
        entry: CacheEntry | None = None,
    ) -> Solution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.common.protocol.Solver`."""
        return self.solve_many(
            [problem], options=options, entries=None if entry is None else [entry]
        )[0]

    def solve_many(
        self,
        problems: Sequence[QP],
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
        entries: Sequence[CacheEntry] | None = None,
    ) -> list[Solution]:
        """Solve problems of equal sizes and structure."""
        from .registry import get_solver

        name = choose(problems[0])
        found = solve_here(get_solver(name), problems, options=options, entries=entries)
        # Settings by another solver's names mean nothing here.
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
