"""A program's point: weights, status and duals, as either form finds them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .program import MandateProgram


@dataclass
class Point:
    """Weights (T, n) of a batch with status (T,), and duals in units of return: those of the rows,
    trades and cones (T, ·), of lower and upper bounds (T, n), and of the budget (T,).

    A day whose limits of cones or trades are out of the multipliers' reach is ``INACCURATE``, and
    misses them.
    """

    w: Tensor
    status: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    rows: Tensor
    trades: Tensor
    cones: Tensor
    lower: Tensor
    upper: Tensor
    budget: Tensor

    @classmethod
    def bad(cls, program: MandateProgram) -> Point:
        """A point of every day of ``program`` without weights: its data are bad."""
        q = program.q.detach()
        none, names = q.new_full((len(q),), torch.nan), torch.full_like(q, torch.nan)
        zero = torch.zeros_like(none, dtype=torch.int64)
        rows, trades, cones = (
            q.new_full((len(q), len(parts)), torch.nan)
            for parts in (program.rows, program.trades, program.cones)
        )
        status = zero + SolveStatus.BAD_DATA.code
        return cls(
            names, status, none, zero, rows, trades, cones, names, names.clone(), none.clone()
        )

    def put(self, days: Tensor, other: Point) -> Point:
        """This point with ``days`` (d,) replaced by those of ``other``, gradients included."""
        values = {}
        for f in fields(self):
            own, new = getattr(self, f.name), getattr(other, f.name)
            values[f.name] = own.index_copy(0, days, new.to(own.dtype))
        return Point(**values)
