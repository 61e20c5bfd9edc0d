"""Days that the search for multipliers left: weights by cone programs, or why there are none."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .conic_form import ConeProgramForm
from .infeasibility import conflict
from .multipliers import Point
from .qp_form import Setup
from .solution import KEPT, unusable


def conic_fallback(
    setup: Setup, point: Point, failed: Tensor, gamma: Tensor, kappa: Tensor | None
) -> tuple[Point, Tensor, dict[int, str]]:
    """``point`` with the ``failed`` days (T,) by cone programs, one by one.

    A day is infeasible where no weights keep every limit L to within 1e-8 (1 + |L|), by the least
    violation that there is, and not because a method found none. Where the limits meet at a point,
    they are loosened by that much.

    Returns
    -------
    The point; the days (T,) that have weights now; and of those that are infeasible, by number,
    which limits contradict each other.
    """
    infeasible, bad = SolveStatus.PRIMAL_INFEASIBLE.code, SolveStatus.BAD_DATA.code
    unproved = failed & (point.status <= infeasible)
    status = point.status.masked_fill(unproved, SolveStatus.ITERATION_LIMIT.code)
    found: list[tuple[int, Point]] = []
    told: dict[int, str] = {}
    for day in torch.nonzero(failed & (status != bad)).flatten().tolist():
        index = torch.tensor([day], device=status.device)
        fixed, own = ConeProgramForm(setup.days(index)), setup.days(index, keep=True)
        words = conflict(fixed, KEPT)
        for loose in () if words else (0.0, KEPT):
            weight = None if kappa is None else kappa[index]
            one = ConeProgramForm(own).optimum(gamma[index], weight, loose)
            if not bool(unusable(own, one)):
                found.append((day, one))
                break
        else:
            words = words or conflict(fixed, KEPT / 100)
            if words:
                status[day], told[day] = infeasible, words
    point = replace(point, status=status)
    again = torch.zeros_like(failed)
    for day, one in found:
        index = torch.tensor([day], device=status.device)
        again[index] = True
        point = point.put(index, one)
    return point, again, told
