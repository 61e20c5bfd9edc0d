"""Why a day of a mandate was not solved, in the constraints' own words."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .conic_form import BUDGET, LOWER, STUCK, UPPER, ConeProgramForm
from .qp_form import Setup
from .solution import KEPT

# Duals below this share of the largest have no part in a conflict.
_NOISE = 1e-6
# Less than this, of a limit's unit and in its last figure, is rounding.
_ZERO = 1e-6


def reason(setup: Setup, status: Tensor, day: int, broken: Sequence[str], told: str) -> str:
    """Why ``day`` was not solved, in the constraints' words.

    ``told`` is its :func:`conflict`, or empty; ``broken`` are the constraints its point misses.
    """
    d, ending = setup.draft, SolveStatus.from_code(status[day])
    inside = setup.mask[day]
    if not bool(inside.any()):
        return "no name in the problem"
    crossed = (d.lower[day] > d.upper[day]) & inside
    if bool(crossed.any()):
        names = setup.draft.market.names
        first = int(torch.nonzero(crossed)[0])
        who = first if names is None else names[first]
        return f"{d.lower_words} cannot meet {d.upper_words} for name {who}"
    if ending is SolveStatus.BAD_DATA:
        return "bad data in bounds"
    return told or ending.label + (f", missing {' and '.join(broken)}" if broken else "")


def conflict(draft: ConeProgramForm, told: float) -> str:
    """Which limits contradict each other where the single day of ``draft`` has no weights that
    keep every limit L to within ``told`` (u + |L|), u what a weight of 1 can make of it; empty
    where it has.

    Those that are named cannot be met together, and each is needed for that (a deletion filter:
    J. W. Chinneck, Feasibility and Infeasibility in Optimization, 2008, section 6.1).
    """
    words = draft.words()

    def met(parts: Collection[str | int]) -> bool:
        found = draft.violation(parts, exact=told < KEPT)
        return found is None or found.value <= told

    every = draft.violation(words, exact=True)
    if every is None or every.value <= told:
        return ""
    largest = max(every.duals.values())
    parts = [p for p in words if every.duals.get(p, 0.0) > _NOISE * largest]
    if met(parts):
        parts = list(words)
    # What is told last is the first to be left out.
    for part in reversed(parts[:]):
        rest = [p for p in parts if p != part]
        if not met(rest):
            parts = rest
    first, *others = (words[part] for part in parts)
    text = f"{first} cannot meet {' and '.join(others)}" if others else f"{first} cannot be met"
    return text + _remedy(draft, parts)


def _remedy(draft: ConeProgramForm, parts: Sequence[str | int]) -> str:
    """The value of the first limit that would do, in words."""
    goal = parts[0]
    if goal in (LOWER, UPPER, STUCK, BUDGET):
        return ""
    floor = draft.is_floor(goal)
    rest = [part for part in draft.words() if part != goal]
    for others, which in ((rest, "meets all else"), (parts[1:], "does")):
        value = draft.least(goal, others)
        if value is not None:
            word = "most" if floor else "least"
            return f" (the {word} that {which} is {_rounded(value, draft.unit(goal), not floor):g})"
    return ""


def _rounded(value: float, size: float, up: bool) -> float:
    """``value``, in units of ``size``, with four figures, on the side that is enough."""
    if abs(value) < _ZERO * size:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
    steps = value / unit
    return (math.ceil(steps - _ZERO) if up else math.floor(steps + _ZERO)) * unit
