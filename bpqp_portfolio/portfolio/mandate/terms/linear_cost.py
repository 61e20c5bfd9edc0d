"""Proportional costs of trading around the drifted weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Trading
from .base import ByName, MarketView, Term, number, shown


@dataclass(frozen=True, eq=False)
class LinearCost(Term):
    """Adds buy Σ(w−w⁰)₊ + sell Σ(w⁰−w)₊.

    It does not apply to a market without ``previous``.

    Parameters
    ----------
    buy : [fraction of the value traded] rate of what is bought; by name as code → number.
    sell : [fraction of the value traded] rate of what is sold; by name as code → number.
    """

    buy: ByName
    sell: ByName
    name: ClassVar[str] = "linear_cost"
    unit: ClassVar[str] = "return for a unit of weight traded"
    example: ClassVar[Mapping[str, Any]] = {"linear_cost": {"buy": 0.0005, "sell": 0.0015}}
    is_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number(self.buy, "buy", low=0)
        number(self.sell, "sell", low=0)

    def __str__(self) -> str:
        return f"linear_cost: buy {shown(self.buy)}, sell {shown(self.sell)}"

    def parts(self, view: MarketView) -> Iterator[Trading]:
        if view.previous is not None:
            yield Trading(*self.head(), view.per_name(self.buy, 0.0), view.per_name(self.sell, 0.0))
