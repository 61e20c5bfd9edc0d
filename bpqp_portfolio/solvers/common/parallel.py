"""Solving many problems of equal sizes: together where a solver can, and on several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus
from .cache import CacheEntry, Entries
from .finalize import status_of
from .protocol import Solver, SolverOptions

T = TypeVar("T")
Program = TypeVar("Program")
Answer = TypeVar("Answer", bound=Solution)

# A chunk's stacked arrays stay below this many float64 entries.
_ENTRIES = 1 << 24
# Below this many entries in all, a second thread costs more than it brings.
_WORTH = 1 << 17
# An item of fewer entries is solved as fast by one BLAS thread, and much faster on a busy machine.
_LARGE = 1 << 19
# Below this BLAS takes one thread anyway.
_SMALL = 1 << 11
# Share of the tolerance that is asked for where a point did not lead to the active set.
MORE = 1e-4


@cache
def _blas() -> list[Any]:
    """The BLAS libraries of this process."""
    return ThreadpoolController().select(user_api="blas").lib_controllers


class _SingleBlas:
    """One BLAS thread while any caller is inside; the last to leave restores the old number.

    That number belongs to the process: callers that each restored what they found would leave it
    at 1 when they overlap.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._numbers: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._numbers = [library.num_threads for library in _blas()]
                for library in _blas():
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for library, number in zip(_blas(), self._numbers, strict=True):
                    library.set_num_threads(number)


_SINGLE_BLAS = _SingleBlas()


def blas_for(entries: int) -> AbstractContextManager[None]:
    """One BLAS thread for work on an item of so many entries, unless it is large or tiny."""
    return _SINGLE_BLAS if _SMALL < entries < _LARGE else nullcontext()


def in_chunks(
    work: Callable[[slice], T], items: int, entries: int, *, light: bool = False
) -> list[T]:
    """``work`` on consecutive slices of ``items``, on as many threads as torch may use.

    ``entries`` is the size of one item's arrays; ``light`` work on them is mostly Python's, whose
    lock lets one thread run at a time. Within a thread BLAS uses one.
    """
    threads = min(torch.get_num_threads(), items)
    if items * entries < _WORTH or (light and entries < _LARGE):
        threads = 1
    size = max(1, min(-(-items // threads), _ENTRIES // max(entries, 1)))
    slices = [slice(i, min(i + size, items)) for i in range(0, items, size)]
    if threads == 1 or len(slices) == 1:
        with blas_for(entries):
            return [work(part) for part in slices]
    with _SINGLE_BLAS, ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, slices))


def solve_one(
    solver: Any, problem: Any, options: SolverOptions, entry: CacheEntry | None = None
) -> Any:
    """The solution of one problem of any kind, as the ``solver`` takes it.

    Where its active set is not certain it is that of a more accurate point.
    """
    solution = solver.solve(problem, options=options, entry=entry)
    limited = options.native or options.max_iterations is not None
    if solution.status is not SolveStatus.INACCURATE or not options.polish or limited:
        return solution
    again = solver.solve(problem, options=replace(options, tolerance=MORE * options.tolerance))
    if not again.status.usable or not again.kkt_norm < solution.kkt_norm:
        return solution
    return replace(again, status=status_of(problem, again.kkt_norm, options))


def solve_here(
    solver: Any, problems: Sequence[Any], *, options: SolverOptions, entries: Entries = None
) -> list[Any]:
    """Solutions of ``problems`` on this thread; a solver's own ``solve_stack`` is used."""
    together: Any = getattr(solver, "solve_stack", None)
    if together is not None:
        return together(problems, options=options, entries=entries)
    every = [None] * len(problems) if entries is None else entries
    pairs = zip(problems, every, strict=True)
    return [solve_one(solver, problem, options, entry) for problem, entry in pairs]


def solve_parallel(
    solver: Solver[Program, Answer],
    problems: Sequence[Program],
    *,
    options: SolverOptions,
    entries: Entries = None,
) -> list[Answer]:
    """Solutions of QPs or cone programs of equal sizes, on as many threads as torch may use.

    Parameters
    ----------
    entries : a :class:`~.cache.CacheEntry` for each problem, or None to keep nothing.
    """
    if not problems:
        return []

    def work(part: slice) -> list[Answer]:
        own = entries[part] if entries else None
        return solve_here(solver, problems[part], options=options, entries=own)

    first: Any = problems[0]
    light = (
        isinstance(first, QP)
        and solver.name in ("auto", "dense")
        and not first.bounded
        and isinstance(first.P, Array)
    )
    found = in_chunks(work, len(problems), first.kkt_entries, light=light)
    return [solution for part in found for solution in part]
