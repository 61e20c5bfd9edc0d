"""Market neutral: as much short as long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ....errors import ConfigError
from .base import Draft


@dataclass(frozen=True, eq=False)
class MarketNeutral:
    """1ᵀw = 0 in place of the budget; needs short positions (``min_weights`` or ``long_only:
    false``)."""

    limit: bool = True
    name: ClassVar[str] = "market_neutral"
    allows_short: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.limit is not True:
            raise ConfigError(
                f"market_neutral: expected true, got {self.limit!r}; leave it out for a budget."
            )

    def __str__(self) -> str:
        return "market_neutral: weights sum to 0"

    def apply(self, draft: Draft) -> None:
        draft.budget, draft.budget_words = torch.zeros_like(draft.budget), str(self)
