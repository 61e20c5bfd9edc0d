"""The invested part: 1'w = budget, the rest is cash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class Budget:
    """1ᵀw = ``limit``, a number or a tensor (T,); the rest of the account is cash."""

    limit: Any = 1.0
    name: ClassVar[str] = "budget"

    def __post_init__(self) -> None:
        number(self.limit, self.name)

    def __str__(self) -> str:
        return f"budget: weights sum to {shown(self.limit)}"

    @property
    def allows_leverage(self) -> bool:
        """Whether more than the account is invested."""
        return bool((torch.as_tensor(self.limit) > 1).any())

    def apply(self, draft: Draft) -> None:
        draft.budget, draft.budget_words = draft.per_day(self.limit, self.name), str(self)
