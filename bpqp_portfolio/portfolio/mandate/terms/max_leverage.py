"""Leverage limit: ||w||_1 bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Of, Row
from .base import MarketView, Number, Term, number


@dataclass(frozen=True, eq=False)
class MaxLeverage(Term):
    """‖w‖₁ ≤ ``limit``.

    Parameters
    ----------
    limit : largest sum of the weights' sizes; in Python a tensor (T,) too.
    """

    limit: Number
    name: ClassVar[str] = "max_leverage"
    unit: ClassVar[str] = "gross weight, fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"max_leverage": 1.4, "min_weights": -0.3}
    relaxable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def parts(self, view: MarketView) -> Iterator[Row]:
        limit = view.per_day(self.limit, self.name)
        yield Row(*self.head(), view.zero + 1.0, limit, of=Of.GROSS)
