"""Proportional costs of trading around the drifted weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Draft, number, per_name, shown


@dataclass(frozen=True, eq=False)
class LinearCost:
    """Adds buy Σ(w−w⁰)₊ + sell Σ(w⁰−w)₊: ``buy``, ``sell`` as fractions of the value traded.

    It does not apply to a market without ``previous``.
    """

    buy: Any = 0.0005
    sell: Any = 0.0015
    name: ClassVar[str] = "linear_cost"

    def __post_init__(self) -> None:
        number(self.buy, "buy", low=0)
        number(self.sell, "sell", low=0)

    def __str__(self) -> str:
        return f"linear_cost: buy {shown(self.buy)}, sell {shown(self.sell)}"

    def apply(self, draft: Draft) -> None:
        if draft.market.previous is not None:
            draft.used.add("previous")
            draft.buy = per_name(self.buy, draft.market, 0.0)
            draft.sell = per_name(self.sell, draft.market, 0.0)
