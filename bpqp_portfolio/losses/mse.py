"""Two-stage learning on the mean squared error."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .terms import LossTerms, score_error


@dataclass(frozen=True)
class MeanSquaredError:
    """E‖y − ŷ‖², blind to the decision; y in units of its day's standard deviation."""

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        prediction = score_error(scores, batch)
        return LossTerms(prediction, prediction, None)
