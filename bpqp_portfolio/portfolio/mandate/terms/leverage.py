"""Leverage limit: ||w||_1 bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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
        draft.leverage, draft.leverage_words = draft.per_day(self.limit, self.name), str(self)
