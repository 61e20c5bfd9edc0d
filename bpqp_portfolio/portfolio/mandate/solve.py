"""A program's point on each day: by its multipliers, and by cone programs where those fail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .conic_form import ConicForm
from .constraint_table import KEPT, ConstraintTable, constraint_table
from .point import Point
from .program import MandateProgram
from .search import structured


@dataclass(frozen=True)
class Solved:
    """``point`` of every day, and the ``table`` of what its constraints come to there; ``failed``
    (T,) bool, days without weights; ``by_cones``, days that cone programs solved;
    ``contradiction``, infeasible day → by how much more than this, relative to their sizes, its
    limits are missed at the least."""

    point: Point
    table: ConstraintTable
    failed: Tensor
    by_cones: Tensor
    contradiction: dict[int, float]


def solve(program: MandateProgram, bad: Collection[int], *, cones: bool = True) -> Solved:
    """Solve every day of ``program`` but those with ``bad`` data, which are nothing to the others.

    With ``cones`` a day that the search for multipliers left goes to cone programs.
    """
    point = _structured(program, bad)
    table = constraint_table(program, point)
    failed = unusable(program, point, table)
    if not (cones and bool(failed.any())):
        return Solved(point, table, failed, torch.zeros_like(failed), {})
    return _by_cones(program, point, failed, bad)


def unusable(program: MandateProgram, point: Point, table: ConstraintTable) -> Tensor:
    """Days (T,) without weights, or whose weights miss a limit that is not soft.

    A point that is not exact will do where it keeps the limits.
    """
    hard = [one.term not in program.soft for one in table.constraints]
    broken = (table.missed & torch.tensor(hard, device=table.value.device)).any(-1)
    inaccurate = SolveStatus.INACCURATE.code
    failed = (point.status > inaccurate) | ~torch.isfinite(point.w.detach()).all(-1)
    return failed | ((point.status == inaccurate) & broken)


def _structured(program: MandateProgram, bad: Collection[int]) -> Point:
    if not bad and len(program.q):
        return structured(program)
    point = Point.bad(program)
    good = [day for day in range(len(program.q)) if day not in bad]
    if good:
        days = torch.tensor(good, device=program.q.device)
        point = point.put(days, structured(program.days(days, keep=True)))
    return point


def _by_cones(
    program: MandateProgram, point: Point, failed: Tensor, bad: Collection[int]
) -> Solved:
    """The ``failed`` days (T,) by cone programs, one by one, but for those with ``bad`` data.

    A day is infeasible where no weights keep every limit L to within 1e-8 (1 + |L|), by the least
    violation that there is, and not because a method found none. Where the limits meet at a point,
    they are loosened by that much.
    """
    infeasible, limit = SolveStatus.PRIMAL_INFEASIBLE.code, SolveStatus.ITERATION_LIMIT.code
    status = torch.where(failed & (point.status <= infeasible), limit, point.status)
    found: list[tuple[Tensor, Point]] = []
    contradiction: dict[int, float] = {}
    by_cones = torch.zeros_like(failed)
    # Bounds that cross need no program to be found infeasible.
    crossed = ((program.lower > program.upper) & program.mask).any(-1)
    for day in torch.nonzero(failed).flatten().tolist():
        if day in bad:
            continue
        if bool(crossed[day]):
            status[day] = infeasible
            continue
        index = torch.tensor([day], device=status.device)
        own = program.days(index, keep=True)
        conic = ConicForm(program.days(index))
        most = conic.violation(conic.limits, exact=True)
        at_most = 0.0 if most is None else most.value
        one = None if at_most > KEPT else _cone_point(own)
        if one is not None:
            found.append((index, one))
            by_cones[day] = True
        elif at_most > KEPT / 100:
            status[day] = infeasible
            contradiction[day] = KEPT if at_most > KEPT else KEPT / 100
    point = replace(point, status=status)
    for index, one in found:
        point = point.put(index, one)
    table = constraint_table(program, point)
    return Solved(point, table, failed & ~by_cones, by_cones, contradiction)


def _cone_point(program: MandateProgram) -> Point | None:
    """The point of a single day, with limits as they stand or loosened to what counts as kept."""
    for loose in (0.0, KEPT):
        point = ConicForm(program).optimum(loose)
        if not bool(unusable(program, point, constraint_table(program, point))):
            return point
    return None
