"""What a forward solver is: one method from a QP and options to a Solution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...config import check_number
from ...problems.qp import QP
from ...problems.solution import Solution
from .cache import CacheEntry


@dataclass(frozen=True)
class SolverOptions:
    """What every solver understands, and what one passes through.

    Parameters
    ----------
    eps : scaled KKT norm (see :func:`~bpqp_portfolio.problems.kkt_residuals`) to reach, > 0.
    max_iterations : None for the solver's own choice.
    polish : solve once more, directly, on the active set that the solver found.
    native : further settings by the solver's own names; they win over eps and max_iterations.
    """

    eps: float = 1e-8
    max_iterations: int | None = None
    polish: bool = True
    native: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number(self.eps, "eps", low=0, open_low=True)
        if self.max_iterations is not None:
            check_number(self.max_iterations, "max_iterations", low=1, integer=True)


class Solver(Protocol):
    """A forward solver for one QP.

    Laws that every implementation keeps, and the tests hold for all that are registered:

    - A failed solve is a :class:`~bpqp_portfolio.problems.SolveStatus`, not an exception. Raised
      are only errors of the caller: an unknown native setting is a
      :class:`~bpqp_portfolio.errors.ConfigError`. What a package raises is a status as well:
      its calls stand under ``with native:`` (:mod:`bpqp_portfolio.solvers.common.native`).
    - The status is judged by the KKT norm of the returned point, not by the solver's claim;
      :func:`~bpqp_portfolio.solvers.common.finalize.finish` does that, so end with it.
    - Duals have the signs of :class:`~bpqp_portfolio.problems.Solution`; bounds are bounds, and
      their duals come back as such.
    - A solver object holds no state between calls and may be used by several threads. What may be
      kept for the next call goes into the ``entry`` of the caller; without one nothing is kept, and
      with one the answer is the same, only sooner.
    """

    name: str

    def solve(
        self, problem: QP, *, options: SolverOptions = ..., entry: CacheEntry | None = None
    ) -> Solution:
        """The primal-dual point of ``problem``."""
        ...
