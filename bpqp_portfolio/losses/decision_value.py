"""What a decision was worth, without hindsight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..data.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .terms import DecisionLoss, LossTerms


@dataclass(frozen=True)
class DecisionValue(DecisionLoss):
    """f_y(w*(ŷ)), the realised risk term less the realised return, in units of the score.

    Its gradient is that of the regret, which differs by a constant of the day; its value may have
    either sign and needs no portfolio of perfect foresight.
    """

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        w = problem.solve(scores, batch).w
        value = problem.value(w, batch) / problem.scale
        regret = problem.regret(w.detach(), batch) / problem.scale
        return self.terms(value, regret, scores, batch)
