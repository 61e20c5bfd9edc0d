"""Smallest weights: w >= l, one number or by name; below zero it allows short positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .base import Draft, check_per_name, per_name, shown


@dataclass(frozen=True, eq=False)
class MinWeights:
    """w ≥ ``limit``, a fraction, in place of 0; as :class:`~.max_weights.MaxWeights` takes it."""

    limit: Any
    name: ClassVar[str] = "min_weights"

    def __post_init__(self) -> None:
        check_per_name(self.limit, self.name)

    def __str__(self) -> str:
        return f"min_weights: weights >= {shown(self.limit)}"

    @property
    def allows_short(self) -> bool:
        """Whether a weight below zero is allowed."""
        values = self.limit.values() if isinstance(self.limit, dict) else [self.limit]
        return any(bool(torch.as_tensor(v).lt(0).any()) for v in values)

    def apply(self, draft: Draft) -> None:
        draft.lower = per_name(self.limit, draft.market, 0.0)
        draft.lower_words = str(self)
