"""Turnover limit around the drifted weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Of, Row
from .base import MarketView, Number, Term, number


@dataclass(frozen=True, eq=False)
class MaxTurnover(Term):
    """½‖w − w⁰‖₁ ≤ ``limit``, the one-way turnover.

    It does not apply to a market without ``previous``.

    Parameters
    ----------
    limit : largest turnover of a day; in Python a tensor (T,) too.
    """

    limit: Number
    name: ClassVar[str] = "max_turnover"
    unit: ClassVar[str] = "one-way turnover, fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"max_turnover": 0.1}
    relaxable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def parts(self, view: MarketView) -> Iterator[Row]:
        if view.previous is not None:
            limit = view.per_day(self.limit, self.name)
            yield Row(*self.head(), view.zero + 0.5, limit, of=Of.TRADES)
