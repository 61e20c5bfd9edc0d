"""What all solvers of smooth programs do: find a point, then have it polished and judged."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ...problems.convex import ConvexProgram, SmoothSolution
from ..common.cache import CacheEntry
from ..common.protocol import DEFAULTS, SolverOptions
from .finalize import RawPoint, finalize


class SmoothSolver(ABC):
    """A forward solver of smooth programs; a subclass has a name, settings and ``find``.

    Nothing is kept in an entry: what a program's functions do is not known.
    """

    name: str
    settings: tuple[str, ...] = ()
    # Whether the point is the caller's, and is to be kept as it is.
    given = False

    def solve(
        self,
        problem: ConvexProgram,
        *,
        options: SolverOptions = DEFAULTS,
        entry: CacheEntry | None = None,
    ) -> SmoothSolution:
        """Solve one program; see :class:`~bpqp_portfolio.solvers.common.protocol.Solver`.

        Raises
        ------
        UndefinedError
            f, its gradient or a constraint is not finite at the program's initial point.
        """
        if not self.given:
            problem.refuse_undefined(problem.initial_point)
        raw = self.find(problem, options)
        return finalize(problem, raw, solver=self.name, options=options, given=self.given)

    @abstractmethod
    def find(self, program: ConvexProgram, options: SolverOptions) -> RawPoint:
        """The point that the method stops at, from the program's initial point."""
