"""Tracking-error penalty against the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class TrackingPenalty:
    """Adds ½ ``limit`` (w−w_b)ᵀΣ(w−w_b) to the objective; in 1/(return per day)."""

    limit: Any
    name: ClassVar[str] = "tracking_penalty"
    benchmarked: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"tracking_penalty {shown(self.limit)}"

    def apply(self, draft: Draft) -> None:
        draft.needed("benchmark", self.name)
        draft.penalty = draft.per_day(self.limit, self.name)
