"""Days with rows or costs on a pool of names first: most of the others stay at zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .structured_active import pick
from .structured_batch import Batch, Box, kkt_norm, times, transposed
from .structured_newton import Points

# Names in the first pool besides those held before, rounds, and how much smaller it has to be.
_POOL, _ROUNDS, _WORTH = 48, 4, 0.6


def pooled(
    batch: Batch,
    points: Points,
    days: Tensor,
    names: int,
    tolerance: float,
    solve: Callable[[Batch, Points, Tensor], object],
) -> Tensor:
    """Solve ``days`` with names that may leave zero; the days that are left.

    The first ``names`` (n) of the batch's N are names, the others slacks, which all take part.
    What the pool's solution means for the others decides whether a day is solved, or which names
    join. Needs lower bounds of zero and d > 0.
    """
    b, T = batch.take(days), len(days)
    gradient = _entry(b, b.q, names)
    inside = torch.zeros(T, names, dtype=torch.bool, device=b.q.device)
    add = _POOL
    for _ in range(_ROUNDS):
        held = inside.sum(-1) if inside.any() else (gradient == -torch.inf).sum(-1)
        width = int(held.amax()) + add
        if width > _WORTH * names:
            break
        score = gradient.masked_fill(inside, -torch.inf)
        place = score.topk(width, largest=False, sorted=False).indices
        inside = torch.zeros_like(inside).scatter(-1, place, True)
        slack = torch.arange(names, b.q.shape[-1], device=b.q.device).expand(len(days), -1)
        place = torch.cat([place, slack], -1)
        part = _part(b, place)
        there = Points(
            w=torch.zeros_like(part.q),
            theta=b.q.new_zeros(len(days), b.columns.shape[-1]),
            norm=b.q.new_full((len(days),), torch.nan),
            iterations=torch.zeros(len(days), dtype=torch.int64, device=b.q.device),
            infeasible=torch.zeros(len(days), dtype=torch.bool, device=b.q.device),
        )
        solve(part, there, torch.arange(len(days), device=b.q.device))
        points.iterations[days] += there.iterations
        w = torch.zeros_like(b.q).scatter(-1, place, there.w)
        theta = there.theta.clone()
        theta[:, : b.factors] = transposed(b.columns[..., : b.factors], w)
        norm = kkt_norm(b, w, theta[:, b.factors :])
        solved = (norm <= tolerance) & ~there.infeasible
        points.put(days[solved], w[solved], theta[solved], norm[solved])
        rest = torch.nonzero(~solved & (there.norm <= tolerance)).squeeze(-1)
        if not len(rest):
            break
        value = b.q + times(b.columns, theta)
        gradient = _entry(b, value, names)[rest]
        days, b, inside = days[rest], b.take(rest), inside[rest]
        add = max(8, int(((gradient < 0) & ~inside).sum(-1).amax()))
    return torch.nonzero(~(points.norm <= tolerance) & ~points.infeasible).squeeze(-1)


def _entry(b: Batch, gradient: Tensor, names: int) -> Tensor:
    """What the objective gains by a name's first step up (T, n), −∞ where it was held before."""
    gradient = gradient[:, :names]
    fixed = (b.box.upper <= b.box.lower)[:, :names]
    if b.box.cost is not None and b.box.reference is not None:
        held = (b.box.reference > b.box.lower)[:, :names]
        gradient = (gradient + b.box.cost[:, :names]).masked_fill(held, -torch.inf)
    return gradient.masked_fill(fixed, torch.inf)


def _part(b: Batch, place: Tensor) -> Batch:
    """The batch with names at ``place`` only, the others at zero."""
    box = b.box
    names = [None if v is None else v.gather(-1, place) for v in (box.cost, box.reference)]
    return Batch(
        q=b.q.gather(-1, place),
        columns=pick(b.columns, place),
        d=b.d.gather(-1, place),
        box=Box(box.lower.gather(-1, place), box.upper.gather(-1, place), *names),
        target=b.target,
        weight_unit=b.weight_unit,
        gradient_unit=b.gradient_unit,
        row_unit=b.row_unit,
        factors=b.factors,
    )
