"""QP solvers that call a package: set up or update it, run it, and judge the point it ends at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from ..common.cache import CacheEntry
from ..common.protocol import DEFAULTS, SolverOptions
from ..common.standard_form import RawPoint, StandardForm, Vectors


@dataclass(eq=False)
class State:
    """A package's solver object ``native`` and the problem as it was set up.

    ``places`` says which coordinates' bounds it has, as the solver numbers them.
    """

    form: StandardForm
    options: SolverOptions
    native: Any
    places: Any = None


@dataclass(frozen=True, eq=False)
class Ending:
    """How a run of a package ended: a point, or None, and what it claims to have proved.

    ``claim`` is a status of infeasibility, BAD_DATA for a P that is not positive semidefinite, or
    None. ``reusable`` tells whether the state serves another problem with the same matrices.
    """

    raw: RawPoint | None
    iterations: int = 0
    claim: SolveStatus | None = None
    reusable: bool = True


NOT_CONVEX = Ending(None, claim=SolveStatus.BAD_DATA)


class Backend(ABC):
    """A forward solver of QPs by another package; a subclass has a name, settings and three steps.

    An entry keeps the solver object, whose vectors are updated while the matrices stay the same.
    """

    name: str
    settings: tuple[str, ...]

    def solve(
        self, problem: QP, *, options: SolverOptions = DEFAULTS, entry: CacheEntry | None = None
    ) -> Solution:
        """Solve one problem; see :class:`~bpqp_portfolio.solvers.common.protocol.Solver`."""
        # Step 1: a solver object with the problem's matrices and vectors.
        state = _kept(entry, problem, options)
        if state is None:
            state = self.set_up(StandardForm.of(problem, lift=self.lifts), problem, options)
        else:
            self.update(state, state.form.vectors(problem))
        # Step 2: run it.
        initial = state.form.initial_point(problem, entry)
        ending = self.run(state, problem, initial)
        how: dict[str, Any] = {"iterations": ending.iterations, "solver": self.name}
        if ending.claim is SolveStatus.BAD_DATA:
            return Solution.failed(problem, ending.claim, **how)
        # Step 3: its point polished and judged, or its claim proved.
        solution = state.form.finalize(
            problem, ending.raw, claim=ending.claim, options=options, **how
        )
        if entry is not None:
            reusable = ending.reusable and solution.status.usable
            entry.keep(problem, state if reusable else None, solution)
        return solution

    @property
    def lifts(self) -> bool:
        """Whether the solver takes sparse matrices, and so a lifted P."""
        return True

    @abstractmethod
    def set_up(self, form: StandardForm, problem: QP, options: SolverOptions) -> State:
        """A solver object for ``problem``, whose standard form is ``form``."""

    @abstractmethod
    def update(self, state: State, vectors: Vectors) -> None:
        """Give the solver object other ``vectors``."""

    @abstractmethod
    def run(self, state: State, problem: QP, initial: RawPoint | None) -> Ending:
        """Run the solver object, from ``initial`` where it can use that."""


def _kept(entry: CacheEntry | None, problem: QP, options: SolverOptions) -> State | None:
    """The state that ``entry`` keeps, if it serves ``problem`` under ``options``; else None."""
    if entry is None or not entry.reusable(problem):
        return None
    state = entry.state
    return state if state.options == options and state.form.fits(problem) else None


def set_native(settings: Any, options: SolverOptions, name: str) -> None:
    """Set the native settings of ``options`` as attributes of ``settings``.

    Raises
    ------
    ConfigError
        A value is not accepted; its default is given.
    """
    for key, value in options.native.items():
        try:
            setattr(settings, key, value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{name}: {key} = {value!r} is not accepted; its default is "
                f"{getattr(settings, key)!r}."
            ) from error
