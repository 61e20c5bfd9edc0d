"""Quadratic (impact) cost around the drifted weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Draft, check_per_name, per_name, shown


@dataclass(frozen=True, eq=False)
class QuadraticCost:
    """Adds Σ κᵢ(wᵢ−w⁰ᵢ)²: ``limit`` κ, the return that a trade of the whole account would cost.

    It does not apply to a market without ``previous``.
    """

    limit: Any
    name: ClassVar[str] = "quadratic_cost"

    def __post_init__(self) -> None:
        check_per_name(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"quadratic_cost {shown(self.limit)}"

    def apply(self, draft: Draft) -> None:
        if draft.market.previous is not None:
            draft.used.add("previous")
            draft.impact = per_name(self.limit, draft.market, 0.0)
