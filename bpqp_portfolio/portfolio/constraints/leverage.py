"""Leverage limit: ||w||_1 bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class MaxLeverage:
    """‖w‖₁ ≤ ``limit``, in units of the account."""

    limit: Any
    name: ClassVar[str] = "max_leverage"

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"max_leverage {shown(self.limit)}"

    def apply(self, draft: Draft) -> None:
        limit = torch.as_tensor(self.limit, dtype=torch.float64, device=draft.budget.device)
        draft.leverage, draft.leverage_words = limit.expand(draft.budget.shape), str(self)
