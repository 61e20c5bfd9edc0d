"""Turnover limit around the drifted weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class MaxTurnover:
    """½‖w − w⁰‖₁ ≤ ``limit``, the one-way turnover as a fraction of the account.

    It does not apply to a market without ``previous``.
    """

    limit: Any
    name: ClassVar[str] = "max_turnover"

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"max_turnover {shown(self.limit)}"

    def apply(self, draft: Draft) -> None:
        if draft.market.previous is not None:
            draft.used.add("previous")
            draft.turnover, draft.turnover_words = draft.per_day(self.limit, self.name), str(self)
