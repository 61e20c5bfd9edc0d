"""The typed parts of a program: bounds, rows, cones and costs, with sense, unit and label.

A term states itself as parts (:meth:`.terms.base.Term.parts`), and everything after it reads their
fields. A ``label`` is for people alone: no number depends on it. Every tensor of a part leads with
the days T.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Sense(enum.Enum):
    """On which side of its limit a constraint keeps its value."""

    LOWER = ">="
    UPPER = "<="
    EQUAL = "="


class Of(enum.Enum):
    """What a row is a sum over: weights, their sizes, or the sizes of trades."""

    WEIGHTS = "w"
    GROSS = "|w|"
    TRADES = "|w - previous|"


@dataclass(frozen=True, eq=False)
class Part:
    """``term`` is the registered name of the constraint or cost, ``unit`` that of its limit."""

    term: str
    label: str
    unit: str


@dataclass(frozen=True, eq=False)
class Row(Part):
    """aᵀv ≤, ≥ or = ``limit`` (T,) with ``matrix`` a (T, n), and v as ``of`` says.

    Rows of sizes and of trades have a ≥ 0 and an upper limit, or they were not convex.
    """

    matrix: Tensor
    limit: Tensor
    sense: Sense = Sense.UPPER
    of: Of = Of.WEIGHTS

    def value(self, w: Tensor, previous: Tensor) -> Tensor:
        """aᵀv (T,) at weights (T, n)."""
        v = {Of.WEIGHTS: w, Of.GROSS: w.abs(), Of.TRADES: (w - previous).abs()}[self.of]
        return (self.matrix * v).sum(-1)

    @property
    def size(self) -> Tensor:
        """What a weight of 1 can make of the row (T,), the unit in which it is judged; a trade of 1
        is bought and sold. 1 where there is no limit."""
        largest = torch.nn.functional.pad(self.matrix.detach().abs(), (0, 1)).amax(-1)
        largest = 2 * largest if self.of is Of.TRADES else largest
        return torch.where((largest > 0) & self.limit.isfinite(), largest, 1.0)


@dataclass(frozen=True, eq=False)
class Bound(Part):
    """lower ≤ w ≤ upper, name by name (T, n), either may be None.

    ``base``: in place of the bound of its side that holds without being said (0 and 1). A bound on
    both sides is |w − ``centre``| ≤ limit · ``rate`` with centre and rate (T, n), and is reported
    as the largest |w − centre| / rate.
    """

    lower: Tensor | None = None
    upper: Tensor | None = None
    base: bool = False
    centre: Tensor | None = None
    rate: Tensor | None = None

    @property
    def sense(self) -> Sense:
        """``LOWER`` for a bound from below alone; both sides have the sense of their distance."""
        return Sense.LOWER if self.upper is None else Sense.UPPER

    def measured(self, w: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, limit and the size of the limit (T,) at w, over the names ``inside`` (T, n).

        Where there is no such name the value is the limit.
        """
        one = torch.ones_like(w)
        if self.centre is not None and self.rate is not None and self.upper is not None:
            inside = inside & (self.rate > 0) & self.upper.isfinite()
            rate = torch.where(inside, self.rate, one)
            value, limit = (w - self.centre).abs() / rate, (self.upper - self.centre) / rate
            size = torch.where(inside, 1.0 / rate, 0.0).amax(-1)
        elif self.upper is not None:
            value, limit, size = w, self.upper, one[:, 0]
        else:
            assert self.lower is not None
            value, limit, size = -w, -self.lower, one[:, 0]
        value, limit = (_most(torch.where(inside, v, -torch.inf)) for v in (value, limit))
        limit = torch.where(limit.isinf(), torch.nan, limit)
        value = torch.where(value.isinf(), limit, value)
        sign = -1.0 if self.upper is None else 1.0
        return sign * value, sign * limit, size


@dataclass(frozen=True, eq=False)
class Form:
    """‖Lᵀ(w − c) − g‖² + Σ d (w − c)²: L ``loadings`` (T, n, r), d ``specific``, c ``centre``
    (T, n), g ``target`` (T, r); None for 0. With ``risk`` L and d are those of Σ."""

    loadings: Tensor | None = None
    specific: Tensor | None = None
    centre: Tensor | None = None
    target: Tensor | None = None
    risk: bool = False

    def away(self, w: Tensor) -> Tensor:
        """w − c."""
        return w if self.centre is None else w - self.centre

    def square(self, w: Tensor) -> Tensor:
        """The form's value (T,)."""
        e = self.away(w)
        total = torch.zeros_like(w[:, 0])
        if self.loadings is not None:
            x = (self.loadings * e.unsqueeze(-1)).sum(-2)
            x = x if self.target is None else x - self.target
            total = total + (x * x).sum(-1)
        if self.specific is not None:
            total = total + (self.specific * e * e).sum(-1)
        return total

    def norm(self, w: Tensor) -> Tensor:
        """The root of the value (T,), never quite 0, so that it has a slope."""
        return self.square(w).clamp_min(1e-300).sqrt()

    def slope(self, w: Tensor) -> Tensor:
        """Half of the value's gradient (T, n): (LLᵀ + diag d)(w − c) − Lg."""
        e = self.away(w)
        total = torch.zeros_like(e)
        if self.loadings is not None:
            x = (self.loadings * e.unsqueeze(-1)).sum(-2)
            x = x if self.target is None else x - self.target
            total = (self.loadings * x.unsqueeze(-2)).sum(-1)
        return total if self.specific is None else total + self.specific * e

    @property
    def size(self) -> Tensor:
        """The largest norm of a single name (T,)."""
        total: Tensor | float = 0.0
        if self.loadings is not None:
            total = self.loadings.square().sum(-1)
        if self.specific is not None:
            total = total + self.specific
        assert isinstance(total, Tensor)
        total = torch.nn.functional.pad(total.detach(), (0, 1)).amax(-1)
        return total.clamp_min(1e-300).sqrt()


@dataclass(frozen=True, eq=False)
class Cone(Part):
    """The root of ``form`` ≤ ``limit`` (T,), in the form's unit; ``scale`` of the limit's own units
    make one of the form's (√days for a limit a year)."""

    form: Form
    limit: Tensor
    scale: float = 1.0
    sense: Sense = Sense.UPPER


@dataclass(frozen=True, eq=False)
class Quadratic(Part):
    """A cost: ½ ``weight`` (T,) times ``form``."""

    form: Form
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Trading(Part):
    """A cost: Σ ``buy`` · (w − w⁰)₊ + Σ ``sell`` · (w⁰ − w)₊ over names, rates (T, n)."""

    buy: Tensor
    sell: Tensor


Constraint = Row | Bound | Cone


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with every tensor in it, and in its tuples and dataclasses, changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(mapped(one, change) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {f.name: mapped(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **own)
    return value


def _most(values: Tensor) -> Tensor:
    """Largest of each row (T,), minus infinity of an empty one."""
    return torch.nn.functional.pad(values, (0, 1), value=-torch.inf).amax(-1)
