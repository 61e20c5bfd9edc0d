"""What a decision lost against perfect foresight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .terms import DecisionLoss, LossTerms, decision_loss


@dataclass(frozen=True)
class Regret(DecisionLoss):
    """f_y(w*(ŷ)) − f_y(w*(y)) ≥ 0, in units of the score."""

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        regret = decision_loss(scores, batch, problem)
        return self.terms(regret, regret, scores, batch)
