"""What an account holds before its trade: yesterday's weights, grown by their returns."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.features.panel import DayBatch


def held_after(w: Tensor, batch: DayBatch, day: int) -> Tensor | None:
    """Weights (n,) held before the trade of ``day + 1``, in that day's names.

    wᵢ(1 + yᵢ) / Σⱼ wⱼ(1 + yⱼ) of the weights ``w`` (n,) of ``day``, over all its names, so that the
    sum falls short of 1 by what is held of names that left the universe. None where the batch's
    next day is not the next of the calendar. Differentiable in ``w``.
    """
    if int(batch.days[day + 1] - batch.days[day]) != 1:
        return None
    inside = batch.mask[day]
    grown = (w * (1 + batch.returns[day]))[inside]
    book = grown.new_zeros(int(batch.names.max()) + 1)
    book = book.index_put((batch.names[day][inside],), grown / grown.sum())
    next_ = batch.mask[day + 1]
    return torch.where(next_, book[batch.names[day + 1].clamp_min(0)], 0.0)


def held(w: Tensor, batch: DayBatch) -> Tensor:
    """Weights (T, n) held before each day's trade; NaN on a day whose day before is unknown."""
    unknown = torch.full_like(w[0], torch.nan)
    rows = [unknown]
    for day in range(len(w) - 1):
        before = held_after(w[day], batch, day)
        rows.append(unknown if before is None else before)
    return torch.stack(rows)
