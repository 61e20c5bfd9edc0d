"""Why a day of a mandate was not solved, by the constraints' labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .conic_form import ConicForm, Limit
from .constraint_table import KEPT
from .parts import Cone, Row, Sense
from .program import MandateProgram
from .solve import Solved

# Duals below this share of the largest have no part in a contradiction.
_NOISE = 1e-6
# Less than this, of a limit's size and in its last figure, is rounding.
_ZERO = 1e-6


def reason(program: MandateProgram, solved: Solved, day: int, broken: Sequence[str]) -> str:
    """Why ``day`` was not solved; ``broken`` are the labels of the constraints its point misses."""
    status = SolveStatus.from_code(solved.point.status[day])
    crossed = (program.lower[day] > program.upper[day]) & program.mask[day]
    if bool(crossed.any()):
        name = int(torch.nonzero(crossed)[0])
        low, high = _at(program, "lower", day, name), _at(program, "upper", day, name)
        who = name if program.names is None else program.names[name]
        return f"{low} cannot meet {high} for name {who}"
    if day in solved.contradiction:
        index = torch.tensor([day], device=program.q.device)
        return contradiction(ConicForm(program.days(index)), solved.contradiction[day])
    return status.label + (f", missing {' and '.join(broken)}" if broken else "")


def contradiction(form: ConicForm, tolerance: float) -> str:
    """Which limits contradict each other on the single day of ``form``, which has no weights that
    keep every limit L to within ``tolerance`` (u + |L|), u what a weight of 1 can make of it.

    Those that are named cannot be met together, and each is needed for that (a deletion filter:
    J. W. Chinneck, Feasibility and Infeasibility in Optimization, 2008, section 6.1).
    """

    def met(limits: Sequence[Limit]) -> bool:
        found = form.violation(limits, exact=tolerance < KEPT)
        return found is None or found.value <= tolerance

    # Step 1: those with a share in the least violation, where they are enough.
    every = form.limits
    found = form.violation(every, exact=True)
    assert found is not None
    largest = max(found.shares)
    limits = [
        one for one, share in zip(every, found.shares, strict=True) if share > _NOISE * largest
    ]
    if met(limits):
        limits = every
    # Step 2: leave out what is not needed; what is named last is the first to be left out.
    for one in reversed(limits[:]):
        rest = [other for other in limits if other is not one]
        if not met(rest):
            limits = rest
    first, *others = (one.label for one in limits)
    text = f"{first} cannot meet {' and '.join(others)}" if others else f"{first} cannot be met"
    return text + _remedy(form, limits)


def _at(program: MandateProgram, side: str, day: int, name: int) -> str:
    """The label of the bound that says where one name's ``side`` is."""
    tight = getattr(program, side)[day, name]
    for one in program.bounds:
        bound: Tensor | None = getattr(one, side)
        if bound is not None and bool(bound[day, name] == tight):
            return one.label
    return "names that cannot trade"


def _remedy(form: ConicForm, limits: Sequence[Limit]) -> str:
    """The value of the first limit that would do, for people."""
    goal = limits[0]
    if not isinstance(goal, Row | Cone) or goal.sense is Sense.EQUAL:
        return ""
    floor = goal.sense is Sense.LOWER
    rest = [one for one in form.limits if one is not goal]
    for others, which in ((rest, "meets all else"), (limits[1:], "does")):
        value = form.within_reach(goal, others)
        if value is not None:
            size = goal.size if isinstance(goal, Row) else goal.form.size * goal.scale
            word = "most" if floor else "least"
            return f" (the {word} that {which} is {_rounded(value, float(size), not floor):g})"
    return ""


def _rounded(value: float, size: float, up: bool) -> float:
    """``value``, in units of ``size``, with four figures, on the side that is enough."""
    if abs(value) < _ZERO * size:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
    steps = value / unit
    return (math.ceil(steps - _ZERO) if up else math.floor(steps + _ZERO)) * unit
