"""No short positions: w >= 0, whatever other bounds say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....errors import ConfigError
from .base import Draft


@dataclass(frozen=True, eq=False)
class LongOnly:
    """w ≥ 0 where ``limit`` is true; it is so without being said, unless ``min_weights`` is."""

    limit: bool = True
    name: ClassVar[str] = "long_only"

    def __post_init__(self) -> None:
        if not isinstance(self.limit, bool):
            raise ConfigError(f"long_only: expected true or false, got {self.limit!r}.")

    def __str__(self) -> str:
        return "long_only: weights >= 0" if self.limit else "long_only: off, weights >= -1"

    @property
    def allows_short(self) -> bool:
        """Whether a weight below zero is allowed."""
        return not self.limit

    def apply(self, draft: Draft) -> None:
        if self.limit:
            draft.lower = draft.lower.clamp_min(0.0)
        else:
            draft.lower, draft.lower_words = draft.lower - 1.0, str(self)
