"""Calls of other packages' solvers, whose exceptions are the status of one problem."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from ...errors import BPQPError
from ...problems.solution import Solution, SolveStatus
from .cache import CacheEntry, Entries
from .protocol import DEFAULTS, SolverOptions, check_settings


class BackendError(Exception):
    """What a solver's package raised, its kind and text."""


class _Native:
    """``with native:`` around calls of a package's code, and of nothing else.

    What it raises, a panic of compiled code included, comes out as :class:`BackendError`; errors of
    the caller, which are this package's own, as they are.
    """

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, BPQPError | BackendError):
            return
        # A panic of Rust code derives from BaseException alone.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise BackendError(label(error)) from error


native = _Native()
# Of numbers, not of code: other exceptions are faults of this package, and are not caught.
NUMERICAL = (BackendError, ArithmeticError, np.linalg.LinAlgError)


def label(error: BaseException) -> str:
    """An exception's kind and text."""
    return str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Guarded:
    """``inner``, with what its package raises on a problem as that problem's status and message.

    ``answer`` is the class of its Solutions, ``caught`` the exceptions that become a status. Every
    solver from the registry is wrapped so. Native settings that ``inner`` does not have are
    refused here.
    """

    inner: Any
    answer: type[Solution] = Solution
    caught: tuple[type[Exception], ...] = NUMERICAL
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.inner.name)

    @property
    def settings(self) -> Collection[str] | None:
        """Those of the inner solver."""
        return self.inner.settings

    def solve(
        self, problem: Any, *, options: SolverOptions = DEFAULTS, entry: CacheEntry | None = None
    ) -> Any:
        """The inner solver's answer; see :class:`~.protocol.Solver`."""
        check_settings(self.inner, options)
        try:
            return _settled(problem, self.inner.solve(problem, options=options, entry=entry))
        except self.caught as error:
            if entry is not None:
                entry.state = None
            status = SolveStatus.ITERATION_LIMIT
            blank = self.answer.failed(problem, status, iterations=0, solver=self.name)
            return replace(blank, message=label(error))

    @property
    def solve_stack(self) -> Callable[..., list[Solution]] | None:
        """The inner solver's method for a stack of problems; one by one where that raises."""
        together = getattr(self.inner, "solve_stack", None)
        return None if together is None else partial(self._together, together)

    def _together(
        self,
        together: Callable[..., list[Solution]],
        problems: Sequence[Any],
        *,
        options: SolverOptions,
        entries: Entries = None,
    ) -> list[Solution]:
        check_settings(self.inner, options)
        try:
            found = together(problems, options=options, entries=entries)
            return [_settled(*pair) for pair in zip(problems, found, strict=True)]
        except self.caught:
            own = [None] * len(problems) if entries is None else entries
            pairs = zip(problems, own, strict=True)
            return [self.solve(problem, options=options, entry=entry) for problem, entry in pairs]


def _settled(problem: Any, solution: Any) -> Any:
    """``solution`` with multipliers of exactly zero where there is no limit."""
    rows = getattr(getattr(problem, "qp", problem), "unlimited", None)
    if rows is None:
        return solution
    return replace(solution, lam=np.where(rows & np.isfinite(solution.lam), 0.0, solution.lam))
