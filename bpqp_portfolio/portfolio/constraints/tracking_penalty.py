"""Tracking-error penalty against the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class TrackingPenalty:
    """Adds ½ ``limit`` (w−w_b)ᵀΣ(w−w_b) to the objective; in 1/(return per day)."""

    limit: Any
    name: ClassVar[str] = "tracking_penalty"

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"tracking_penalty {shown(self.limit)}"

    def apply(self, draft: Draft) -> None:
        draft.market.needed("benchmark", self.name)
        value = torch.as_tensor(self.limit, dtype=torch.float64, device=draft.budget.device)
        draft.penalty = value.expand(draft.budget.shape)
