"""Tracking-error limit against the benchmark, a second-order cone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ....markets.trading_year import USUAL
from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class MaxTrackingError:
    """√((w−w_b)ᵀΣ(w−w_b) · ``days_per_year``) ≤ ``limit``, as a fraction a year."""

    limit: Any
    days_per_year: float = USUAL
    name: ClassVar[str] = "max_tracking_error"
    benchmarked: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0, open_low=True)
        number(self.days_per_year, "days_per_year", low=0, open_low=True)

    def __str__(self) -> str:
        return f"max_tracking_error {shown(self.limit)} a year of {shown(self.days_per_year)} days"

    def apply(self, draft: Draft) -> None:
        draft.needed("benchmark", self.name)
        draft.tracking_unit = self.days_per_year**0.5
        draft.tracking = draft.per_day(self.limit, self.name) / draft.tracking_unit
        draft.tracking_words = str(self)
