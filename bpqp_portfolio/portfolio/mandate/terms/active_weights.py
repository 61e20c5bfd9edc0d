"""Weights near the benchmark's: |w - w_b| bounded name by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .base import Draft, check_per_name, per_name, shown


@dataclass(frozen=True, eq=False)
class ActiveWeights:
    """|wᵢ − w_bᵢ| ≤ ``limit``, a fraction: a number, a tensor, or code → number."""

    limit: Any
    name: ClassVar[str] = "active_weights"
    benchmarked: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_per_name(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"active_weights: within {shown(self.limit)} of the benchmark"

    def apply(self, draft: Draft) -> None:
        base = draft.needed("benchmark", self.name)
        reach = per_name(self.limit, draft.market, 1.0)
        draft.lower = torch.maximum(draft.lower, base - reach)
        draft.upper = torch.minimum(draft.upper, base + reach)
        draft.lower_words = f"{draft.lower_words}; {self}"
        draft.upper_words = f"{draft.upper_words}; {self}"
