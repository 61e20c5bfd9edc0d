"""What a forward solver is: one method from a program and options to a Solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ...config import check_keys, check_number
from ...problems.qp import QP
from ...problems.solution import Solution
from .cache import CacheEntry, Entries

Program = TypeVar("Program", contravariant=True)
Answer = TypeVar("Answer", bound=Solution, covariant=True)


@dataclass(frozen=True)
class SolverOptions:
    """What every solver understands, and what one passes through.

    Parameters
    ----------
    tolerance : scaled KKT norm (see :func:`~bpqp_portfolio.problems.kkt_residuals`) to reach, > 0.
    max_iterations : ≥ 1, or None for the solver's own choice.
    polish : solve once more, directly, on the active set that the solver found.
    native : further settings by the solver's own names; they win over tolerance and
        max_iterations.

    Raises
    ------
    ConfigError
        A tolerance or limit out of its range.
    """

    tolerance: float = 1e-8
    max_iterations: int | None = None
    polish: bool = True
    native: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number(self.tolerance, "tolerance", low=0, open_low=True)
        if self.max_iterations is not None:
            check_number(self.max_iterations, "max_iterations", low=1, integer=True)


DEFAULTS = SolverOptions()


class Solver(Protocol[Program, Answer]):
    """A forward solver for one program of its kind.

    ======= ================================= ==================================
    kind    program                           answer
    ======= ================================= ==================================
    qp      ``problems.qp.QP``                ``problems.solution.Solution``
    cone    ``problems.socp.SOCP``            ``problems.socp.SOCPSolution``
    smooth  ``problems.convex.ConvexProgram`` ``problems.convex.SmoothSolution``
    ======= ================================= ==================================

    Laws that every implementation keeps, and the tests hold for all that are registered:

    - A failed solve is a :class:`~bpqp_portfolio.problems.SolveStatus`, not an exception. Raised
      are only errors of the caller: an unknown native setting, one that is not in ``settings``, is
      a :class:`~bpqp_portfolio.errors.ConfigError`. What a package raises is a status as well:
      its calls stand under ``with native:`` (:mod:`bpqp_portfolio.solvers.common.native`).
    - The status is judged by the KKT norm of the returned point, not by the solver's claim; each
      kind has a function ``finalize`` that does so, to end with (for a QP
      :func:`~bpqp_portfolio.solvers.common.finalize.finalize`).
    - Duals have the signs of :class:`~bpqp_portfolio.problems.Solution`; bounds are bounds, and
      their duals come back as such.
    - A solver object holds no state between calls and may be used by several threads. What may be
      kept for the next call goes into the ``entry`` of the caller; without one nothing is kept, and
      with one the answer is the same, only sooner.

    A solver may also have ``solve_stack(programs, *, options, entries=None)``, which solves
    programs of equal sizes together.
    """

    name: str

    @property
    def settings(self) -> Collection[str] | None:
        """Names of the native settings; None where another solver is to check them."""
        ...

    def solve(
        self, problem: Program, *, options: SolverOptions = ..., entry: CacheEntry | None = None
    ) -> Answer:
        """The primal-dual point of ``problem``."""
        ...


class StackSolver(ABC):
    """A forward solver of QPs that works on several of equal sizes together."""

    def solve(
        self, problem: QP, *, options: SolverOptions = DEFAULTS, entry: CacheEntry | None = None
    ) -> Solution:
        """Solve one problem; see :class:`Solver`."""
        entries = None if entry is None else [entry]
        return self.solve_stack([problem], options=options, entries=entries)[0]

    @abstractmethod
    def solve_stack(
        self, problems: Sequence[QP], *, options: SolverOptions = DEFAULTS, entries: Entries = None
    ) -> list[Solution]:
        """Solve problems of equal sizes together."""


def check_settings(solver: Solver[Any, Any], options: SolverOptions) -> None:
    """Refuse native settings that ``solver`` does not have.

    Raises
    ------
    ConfigError
        An unknown setting; the nearest name is given.
    """
    if options.native and solver.settings is not None:
        check_keys(options.native, solver.settings, solver.name)
