"""Calls of other packages' solvers, whose exceptions are the status of one problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from ...errors import BPQPError
from ...problems.solution import Solution, SolveStatus
from .protocol import SolverOptions


class BackendError(Exception):
    """What a solver's package raised, its kind and words."""


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
            raise BackendError(words(error)) from error


native = _Native()
# Of numbers, not of code: other exceptions are faults of this package, and are not caught.
_NUMERICAL = (BackendError, ArithmeticError, np.linalg.LinAlgError)


def words(error: BaseException) -> str:
    """An exception's kind and text."""
    return str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Guarded:
    """``inner``, with what its package raises on a problem as that problem's status and message.

    ``failed`` makes a Solution without a point. The registry gives every solver out like this.
    """

    inner: Any
    failed: Callable[..., Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.inner.name)

    def solve(self, problem: Any, **how: Any) -> Any:
        """The inner solver's answer; see :class:`~.protocol.Solver`."""
        try:
            return _settled(problem, self.inner.solve(problem, **how))
        except _NUMERICAL as error:
            entry = how.get("entry")
            if entry is not None:
                entry.state = None
            status = SolveStatus.ITERATION_LIMIT
            blank = self.failed(problem, status, iterations=0, solver=self.name)
            return replace(blank, message=words(error))

    @property
    def solve_many(self) -> Callable[..., list[Solution]] | None:
        """The inner solver's way of solving many together, one by one where that raises."""
        together = getattr(self.inner, "solve_many", None)
        return None if together is None else partial(self._together, together)

    def _together(
        self,
        together: Callable[..., list[Solution]],
        problems: Sequence[Any],
        *,
        options: SolverOptions,
        entries: Sequence[Any] | None = None,
    ) -> list[Solution]:
        try:
            found = together(problems, options=options, entries=entries)
            return [_settled(*pair) for pair in zip(problems, found, strict=True)]
        except _NUMERICAL:
            own = [None] * len(problems) if entries is None else entries
            pairs = zip(problems, own, strict=True)
            return [self.solve(problem, options=options, entry=entry) for problem, entry in pairs]


def _settled(problem: Any, solution: Any) -> Any:
    """``solution`` with multipliers of exactly zero where there is no limit."""
    rows = getattr(problem, "qp", problem).unlimited
    if rows is None:
        return solution
    return replace(solution, lam=np.where(rows & np.isfinite(solution.lam), 0.0, solution.lam))
