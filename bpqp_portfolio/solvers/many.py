"""Solving many problems of equal sizes: together where a solver can, and on several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

from ..problems.qp import QP
from ..problems.solution import Solution
from .handle import Slot
from .protocol import Solver, SolverOptions

T = TypeVar("T")

# A chunk's stacked arrays stay below this many float64 entries.
_ENTRIES = 1 << 24
# Below this many entries in all, a second thread costs more than it brings.
_WORTH = 1 << 17


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def in_chunks(work: Callable[[slice], T], items: int, entries: int) -> list[T]:
    """``work`` on consecutive slices of ``items``, on as many threads as torch may use.

    ``entries`` is the size of one item's arrays. Within a thread BLAS uses one.
    """
    threads = min(torch.get_num_threads(), items)
    if threads == 1 or items * entries < _WORTH:
        threads = 1
    size = max(1, min(-(-items // threads), _ENTRIES // max(entries, 1)))
    slices = [slice(i, min(i + size, items)) for i in range(0, items, size)]
    if threads == 1 or len(slices) == 1:
        return [work(part) for part in slices]
    with _controller().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, slices))


def solve_many(
    solver: Solver,
    problems: Sequence[QP],
    *,
    options: SolverOptions,
    slots: Sequence[Slot] | None = None,
) -> list[Solution]:
    """Solutions of ``problems``, which have equal sizes; a solver's own ``solve_many`` is used."""
    if not problems:
        return []
    together: Any = getattr(solver, "solve_many", None)

    def work(part: slice) -> list[Solution]:
        own = slots[part] if slots else None
        if together is not None:
            return together(problems[part], options=options, slots=own)
        return [
            solver.solve(problem, options=options, slot=own[i] if own else None)
            for i, problem in enumerate(problems[part])
        ]

    first = problems[0]
    entries = first.n * (first.n + first.p + first.m)
    return [s for part in in_chunks(work, len(problems), entries) for s in part]
