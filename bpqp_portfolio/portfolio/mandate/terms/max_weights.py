"""Largest weights: w <= u, one number or by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .base import Draft, check_per_name, per_name, shown


@dataclass(frozen=True, eq=False)
class MaxWeights:
    """w ≤ ``limit``, a fraction: a number, a tensor (n,) or (T, n), or code → number
    (with ``default`` for the rest)."""

    limit: Any
    name: ClassVar[str] = "max_weights"

    def __post_init__(self) -> None:
        check_per_name(self.limit, self.name)

    def __str__(self) -> str:
        return f"max_weights: weights <= {shown(self.limit)}"

    def apply(self, draft: Draft) -> None:
        draft.upper = torch.minimum(draft.upper, per_name(self.limit, draft.market, 1.0))
        draft.upper_words = str(self)
