"""The invested part: 1'w = budget, the rest is cash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..parts import Row, Sense
from .base import MarketView, Number, Term, number, shown


@dataclass(frozen=True, eq=False)
class Budget(Term):
    """1ᵀw = ``limit``; the rest of the account is cash.

    Parameters
    ----------
    limit : sum of the weights; in Python a tensor (T,) too.
    """

    limit: Number = 1.0
    name: ClassVar[str] = "budget"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"budget": 0.9}
    sets_budget: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number(self.limit, self.name)

    def __str__(self) -> str:
        return f"budget: weights sum to {shown(self.limit)}"

    @property
    def allows_leverage(self) -> bool:
        return bool((torch.as_tensor(self.limit) > 1).any())

    def parts(self, view: MarketView) -> Iterator[Row]:
        limit = view.per_day(self.limit, self.name)
        yield Row(*self.head(), view.zero + 1.0, limit, Sense.EQUAL)
