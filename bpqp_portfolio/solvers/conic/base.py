"""What all solvers of cone programs do first: continue from the last solution on its active set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from ...problems.socp import SOCP, ConePoint, SOCPSolution
from ..common.cache import CacheEntry
from ..common.protocol import DEFAULTS, SolverOptions
from .finalize import finalize

_EXACT = 1e-12


class ConeSolver(ABC):
    """A forward solver of cone programs; a subclass has a name, settings and ``cold``.

    With an entry Newton's method first continues from the last solution on its active set; its
    point is taken where it reaches a KKT norm of 1e-12, whichever solver found the last one.
    """

    name: str

    @property
    def settings(self) -> Collection[str] | None:
        """Names of the native settings; none of its own."""
        return ()

    def solve(
        self, problem: SOCP, *, options: SolverOptions = DEFAULTS, entry: CacheEntry | None = None
    ) -> SOCPSolution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.common.protocol.Solver`."""
        found = _continued(problem, options, entry)
        if found is None:
            found = self.cold(problem, options)
        if entry is not None and found.status.usable:
            entry.solution = found
        return found

    @abstractmethod
    def cold(self, problem: SOCP, options: SolverOptions) -> SOCPSolution:
        """The primal-dual point of ``problem``, from nothing."""


def _continued(
    problem: SOCP, options: SolverOptions, entry: CacheEntry | None
) -> SOCPSolution | None:
    """The point on the active set of the entry's solution, None where that is not exact."""
    last = entry.solution if entry is not None else None
    if not (isinstance(last, SOCPSolution) and options.polish and last.fits(problem)):
        return None
    point = ConePoint.of(problem, last)
    found = finalize(problem, point, iterations=0, solver=last.solver, options=options)
    return found if found.kkt_norm <= _EXACT else None
