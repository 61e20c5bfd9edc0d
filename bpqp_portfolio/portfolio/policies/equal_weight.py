"""The same weight in each name of the day, which needs neither forecast nor risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...data.features.panel import DayBatch
from ...solvers.factor.problem import FactorSolution
from .base import MeanVariance, WarmStart, as_solution


@dataclass(frozen=True)
class EqualWeight:
    """One over the number of the day's names."""

    penalty: ClassVar[float] = 0.0

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution:
        inside = batch.mask.to(mu)
        w = inside / inside.sum(-1, keepdim=True).clamp_min(1)
        # Zero times the forecast: a gradient of zero rather than none.
        return as_solution(w + 0 * mu, mu, batch, problem)
