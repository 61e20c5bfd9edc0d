"""What every constraint of a program comes to at its point: value, limit and dual."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .parts import Bound, Row, Sense
from .point import Point
from .program import MandateProgram
from .solution import ConstraintLabel

# A limit L counts as kept within this times |L| and what a weight of 1 can make of it.
KEPT = 1e-8


@dataclass(frozen=True)
class ConstraintTable:
    """The c constraints, the budget first, with ``value``, ``limit`` and ``dual`` (T, c) in the
    limits' own units, and ``size`` (T, c), what a weight of 1 can make of each."""

    constraints: tuple[ConstraintLabel, ...]
    value: Tensor
    limit: Tensor
    dual: Tensor
    size: Tensor

    @property
    def missed(self) -> Tensor:
        """Which constraints the day's point does not keep, (T, c) bool."""
        over = self.value - self.limit
        sign = {Sense.LOWER: -1.0, Sense.UPPER: 1.0, Sense.EQUAL: 1.0}
        over = over * over.new_tensor([sign[one.sense] for one in self.constraints])
        equal = [one.sense is Sense.EQUAL for one in self.constraints]
        over[:, equal] = over[:, equal].abs()
        return over > KEPT * (self.size + self.limit.abs())


def constraint_table(program: MandateProgram, point: Point) -> ConstraintTable:
    """Every constraint's value, limit, dual and size at a point."""
    w = point.w.detach()
    given = {
        id(part): dual
        for parts, duals in (
            (program.rows, point.rows),
            (program.trades, point.trades),
            (program.cones, point.cones),
        )
        for part, dual in zip(parts, duals.unbind(-1), strict=True)
    }
    given |= _bound_duals(program, point)
    columns = []
    for one in program.constraints:
        if isinstance(one, Bound):
            stuck = program.stuck_lower if one.upper is None else program.stuck_upper
            stuck = stuck if one.lower is None or one.upper is None else stuck | program.stuck_lower
            value, limit, size = one.measured(w, program.mask & ~stuck)
        elif isinstance(one, Row):
            value, limit, size = one.value(w, program.previous), one.limit, one.size
        else:
            value, limit = one.form.norm(w) * one.scale, one.limit * one.scale
            size = one.form.size * one.scale
        dual = point.budget if one is program.budget else given[id(one)]
        columns.append((value, limit, dual, size))
    value, limit, dual, size = (
        torch.stack([one.detach() for one in column], -1) for column in zip(*columns, strict=True)
    )
    labels = tuple(
        ConstraintLabel(one.term, one.label, one.sense, one.unit) for one in program.constraints
    )
    return ConstraintTable(labels, value, limit, dual, size)


def _bound_duals(program: MandateProgram, point: Point) -> dict[int, Tensor]:
    """Duals (T,) of the limits of bounds, by their id: of a name at its bound, those of the first
    bound that says where it is, times what a unit of the limit moves it; a bound that the market
    sets is nobody's limit."""
    out = {id(one): torch.zeros_like(point.budget) for one in program.bounds}
    sides = (
        ("lower", point.lower, program.lower, program.stuck_lower),
        ("upper", point.upper, program.upper, program.stuck_upper),
    )
    for side, duals, tight, stuck in sides:
        left = program.mask & ~stuck
        for one in program.bounds:
            bound = getattr(one, side)
            if bound is not None:
                own = left & (bound == tight)
                rate = 1.0 if one.rate is None else one.rate
                out[id(one)] = out[id(one)] + torch.where(own, duals * rate, 0.0).sum(-1)
                left = left & ~own
    bad = ~torch.isfinite(point.w.detach()).all(-1)
    return {key: dual.masked_fill(bad, torch.nan) for key, dual in out.items()}
