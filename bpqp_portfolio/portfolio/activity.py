"""What a mandate answers: weights, and each constraint's value, limit and dual on each day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..solvers.structured import INACCURATE
from .draft_qp import Setup
from .multipliers import Point

# A limit L counts as kept within this times |L| and what a weight of 1 can make of it.
KEPT = 1e-8


@dataclass(frozen=True)
class MandateSolution:
    """Weights of a batch, and what bound on each day.

    ``w`` (T, n); ``status`` (T,) codes of :data:`~.layer.STATUS_NAMES`, of the solve that was
    wanted, whatever stands in for it; ``kkt_norm``, ``iterations``, ``objective`` (T,), the last in
    units of return and minimised; ``labels`` the c constraints in words; ``value``, ``limit`` and
    ``dual`` (T, c): the dual is what a unit of the limit is worth, in units of return, and above
    zero where the constraint binds. ``solver`` is ``structured``, or ``cones`` on a day whose
    multipliers were not found and that went to cone programs. ``fallback`` and ``reason`` say for
    each day which way out was taken and why, None on a day that was solved.
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


def missed(setup: Setup, words: Sequence[str], value: Tensor, limit: Tensor) -> Tensor:
    """Which constraints of :func:`activity` the day's point does not keep, (T, c) bool."""
    over = value - limit
    floor = torch.tensor([i == 1 or ">=" in one for i, one in enumerate(words)])
    over = torch.where(floor, -over, over)
    over[:, 0] = over[:, 0].abs()
    one = torch.ones_like(setup.q[:, :1])
    parts = [one, one, one, setup.units]
    if setup.draft.turnover is not None:
        parts.append(one)
    if setup.draft.tracking is not None:
        parts.append(setup.draft.tracking_unit * setup.risk_unit.unsqueeze(-1))
    return over > KEPT * (torch.cat(parts, -1) + limit.abs())


def unusable(setup: Setup, point: Point) -> Tensor:
    """Days (T,) without weights, or whose weights miss a limit that is not soft.

    A point that is not exact will do where it keeps the limits.
    """
    words, value, limit, _ = activity(setup, point)
    hard = torch.tensor([not setup.is_soft(one) for one in words], device=value.device)
    broken = (missed(setup, words, value, limit) & hard).any(-1)
    failed = (point.status > INACCURATE) | ~torch.isfinite(point.w.detach()).all(-1)
    return failed | ((point.status == INACCURATE) & broken)


def activity(setup: Setup, point: Point) -> tuple[tuple[str, ...], Tensor, Tensor, Tensor]:
    """Words, and value, limit and dual (T, c) of every constraint."""
    d, w = setup.draft, point.w.detach()
    total = w.sum(-1)
    columns: list[tuple[str, Tensor, Tensor, Tensor]] = [
        (d.budget_words, total, d.budget, point.budget)
    ]
    far = torch.where(setup.mask, w, torch.inf).amin(-1), torch.where(setup.mask, w, -1e9).amax(-1)
    low = torch.where(setup.mask, d.lower, torch.inf).amin(-1)
    high = torch.where(setup.mask, d.upper, -torch.inf).amax(-1)
    columns.append((d.lower_words, far[0], low, point.lower.sum(-1)))
    columns.append((d.upper_words, far[1], high, point.upper.sum(-1)))
    used = setup.used(w)
    for i, words in enumerate(setup.words):
        sign = -1.0 if ">=" in words else 1.0
        columns.append((words, sign * used[:, i], sign * setup.h[:, i], point.rows[:, i]))
    if d.turnover is not None:
        moved = 0.5 * (w - setup.previous).abs().sum(-1)
        columns.append((d.turnover_words, moved, d.turnover, point.turnover))
    if d.tracking is not None:
        unit = d.tracking_unit
        error = setup.distance(w, setup.bench)
        columns.append((d.tracking_words, error * unit, d.tracking * unit, point.tracking))
    parts = list(zip(*columns, strict=True))[1:]
    value, limit, dual = (torch.stack([p.detach() for p in part], -1) for part in parts)
    return tuple(words for words, *_ in columns), value, limit, dual
