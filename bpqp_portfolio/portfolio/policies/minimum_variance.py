"""The portfolio of least risk, which needs no forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...data.features.panel import DayBatch
from ...solvers.factor.problem import FactorSolution
from .base import MeanVariance, WarmStart


@dataclass(frozen=True)
class MinimumVariance:
    """argmin wᵀΣw over 1ᵀw = 1, 0 ≤ w ≤ max_weight: the problem with an expected return of 0."""

    penalty: ClassVar[float] = 0.0

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution:
        return problem.solve_exactly(0 * mu, batch, warm_start)
