"""What a mandate answers: weights, and each constraint's value, limit and dual on each day."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .multipliers import Point
from .qp_form import LEVERAGE, TRACKING, TURNOVER, Setup

# A limit L counts as kept within this times |L| and what a weight of 1 can make of it.
KEPT = 1e-8


@dataclass(frozen=True)
class MandateSolution:
    """Weights of a batch, and what bound on each day.

    ``w`` (T, n); ``status`` (T,) codes of :class:`SolveStatus`, of the solve that was
    wanted, whatever stands in for it; ``kkt_norm``, ``iterations``, ``objective`` (T,), the last in
    units of return and minimised; ``labels`` the c constraints in words; ``value``, ``limit`` and
    ``dual`` (T, c): the dual is what a unit of the limit is worth, in units of return, and above
    zero where the constraint binds; of a day that relaxed some constraints they are those of the
    relaxed problem, and NaN of any other way out. ``solver`` is ``structured``, or ``cones`` on a
    day whose multipliers were not found and that went to cone programs. ``fallback`` and ``reason``
    say for each day which way out was taken and why, None on a day that was solved.
    """

    w: Tensor
    status: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    objective: Tensor
    labels: tuple[str, ...]
    value: Tensor
    limit: Tensor
    dual: Tensor
    solver: tuple[str, ...]
    fallback: tuple[str | None, ...]
    reason: tuple[str | None, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How often each way out was taken."""
        used = [one for one in self.fallback if one]
        return {name: used.count(name) for name in sorted(set(used))}


@dataclass(frozen=True)
class Activity:
    """Every constraint in words, the budget first; ``terms`` they belong to, and which are floors
    (c,); ``value``, ``limit``, ``dual`` and ``unit`` (T, c), the last being what a weight of 1 can
    make of it."""

    words: tuple[str, ...]
    terms: tuple[str, ...]
    floors: tuple[bool, ...]
    value: Tensor
    limit: Tensor
    dual: Tensor
    unit: Tensor

    @property
    def missed(self) -> Tensor:
        """Which constraints the day's point does not keep, (T, c) bool."""
        over = self.value - self.limit
        floors = torch.tensor(self.floors, device=over.device)
        over = torch.where(floors, -over, over)
        over[:, 0] = over[:, 0].abs()
        return over > KEPT * (self.unit + self.limit.abs())


def unusable(setup: Setup, point: Point) -> Tensor:
    """Days (T,) without weights, or whose weights miss a limit that is not soft.

    A point that is not exact will do where it keeps the limits.
    """
    table = activity(setup, point)
    hard = [term not in setup.soft for term in table.terms]
    broken = (table.missed & torch.tensor(hard, device=table.value.device)).any(-1)
    inaccurate = SolveStatus.INACCURATE.code
    failed = (point.status > inaccurate) | ~torch.isfinite(point.w.detach()).all(-1)
    return failed | ((point.status == inaccurate) & broken)


def activity(setup: Setup, point: Point) -> Activity:
    """What every constraint comes to at a point."""
    d, w = setup.draft, point.w.detach()
    lowest, low = (_least(torch.where(setup.mask, v, torch.inf)) for v in (w, d.lower))
    highest, high = (-_least(torch.where(setup.mask, -v, torch.inf)) for v in (w, d.upper))
    one = torch.ones_like(d.budget)
    columns: list[tuple[str, str, bool, Tensor, Tensor, Tensor, Tensor]] = [
        (d.budget_words, "budget", False, w.sum(-1), d.budget, point.budget, one),
        (d.lower_words, "lower", True, lowest, low, point.lower.sum(-1), one),
        (d.upper_words, "upper", False, highest, high, point.upper.sum(-1), one),
    ]
    for i, row in enumerate(d.rows):
        value = (row.matrix * w).sum(-1)
        unit = setup.units[:, i]
        columns.append((row.words, row.term, row.floor, value, row.limit, point.rows[:, i], unit))
    if d.leverage is not None:
        gross, dual = w.abs().sum(-1), point.rows[:, -1]
        columns.append((d.leverage_words, LEVERAGE, False, gross, d.leverage, dual, one))
    if d.turnover is not None:
        moved = 0.5 * (w - setup.previous).abs().sum(-1)
        columns.append((d.turnover_words, TURNOVER, False, moved, d.turnover, point.turnover, one))
    if d.tracking is not None:
        year = d.tracking_unit
        error, limit = setup.distance(w, setup.bench) * year, d.tracking * year
        unit = setup.risk_unit * year
        columns.append((d.tracking_words, TRACKING, False, error, limit, point.tracking, unit))
    words, terms, floors, *parts = zip(*columns, strict=True)
    value, limit, dual, unit = (torch.stack([p.detach() for p in part], -1) for part in parts)
    return Activity(words, terms, floors, value, limit, dual, unit)


def _least(values: Tensor) -> Tensor:
    """Least of each row (T,), infinity of an empty one."""
    return torch.nn.functional.pad(values, (0, 1), value=torch.inf).amin(-1)
