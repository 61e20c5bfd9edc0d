"""Tracking-error limit against the benchmark, a second-order cone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ....markets.rules import MARKET_RULES
from ..parts import Cone
from .base import MarketView, Number, Term, number, shown


@dataclass(frozen=True, eq=False)
class MaxTrackingError(Term):
    """√((w−w_b)ᵀΣ(w−w_b) · ``days_per_year``) ≤ ``limit``.

    Parameters
    ----------
    limit : largest standard deviation of the return over the benchmark's; in Python a tensor (T,)
        too.
    days_per_year : [days] trading days in a year; in a workflow those of its market.
    """

    limit: Number
    days_per_year: float = MARKET_RULES["us"].days_per_year
    name: ClassVar[str] = "max_tracking_error"
    unit: ClassVar[str] = "risk a year, fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"max_tracking_error": 0.03}
    relaxable: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("benchmark",)

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0, open_low=True)
        number(self.days_per_year, "days_per_year", low=0, open_low=True)

    def __str__(self) -> str:
        return f"max_tracking_error {shown(self.limit)} a year of {shown(self.days_per_year)} days"

    def parts(self, view: MarketView) -> Iterator[Cone]:
        active = view.risk(view.needed("benchmark", self.name))
        scale = self.days_per_year**0.5
        yield Cone(*self.head(), active, view.per_day(self.limit, self.name) / scale, scale)
