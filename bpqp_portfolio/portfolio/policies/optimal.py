"""The portfolio problem itself, solved exactly and differentiated by its backward QP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...data.features.panel import DayBatch
from ...solvers.factor.problem import FactorSolution
from .base import MeanVariance, WarmStart


@dataclass(frozen=True)
class Optimal:
    """argmin −μᵀw + (γ/2) wᵀΣw over 1ᵀw = 1, 0 ≤ w ≤ max_weight."""

    penalty: ClassVar[float] = 0.0

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution:
        return problem.solve_exactly(mu, batch, warm_start)
