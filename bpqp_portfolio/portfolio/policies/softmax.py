"""The softmax of the scores: a network that decides without an optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...config import check_number
from ...data.features.panel import DayBatch
from ...solvers.factor.problem import FactorSolution
from .base import MeanVariance, WarmStart, as_solution


@dataclass(frozen=True)
class Softmax:
    """wᵢ = exp(sᵢ/temperature) / Σⱼ exp(sⱼ/temperature) of the day's normalised scores s.

    Sums to 1 and is positive, but knows neither risk nor ``max_weight``.

    Parameters
    ----------
    temperature : [normalised scores] divisor of the scores: above 1 nearer to equal weights, below
        1 to the best name.
    """

    temperature: float = 1.0
    penalty: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_number(self.temperature, "temperature", low=0, open_low=True)

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution:
        scores = mu / (problem.unit * self.temperature)
        w = torch.softmax(scores.masked_fill(~batch.mask, -torch.inf), -1)
        return as_solution(w, mu, batch, problem)
