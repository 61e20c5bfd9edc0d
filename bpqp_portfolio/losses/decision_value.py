"""What a decision was worth, without hindsight."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..config import lookup
from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .terms import RISKS, DecisionLoss, LossTerms


@dataclass(frozen=True)
class DecisionValue(DecisionLoss):
    """f_y(w*(ŷ)), the risk term less the realised return, in units of the score.

    Its gradient is that of the regret, which differs by a constant of the day; its value may have
    either sign and needs no portfolio of perfect foresight.

    Parameters
    ----------
    risk : ``model`` for the risk term (γ/2) wᵀΣw; ``realised`` for (γ/2) r² of the day's return r,
        which is noisier and sees what the risk model got wrong: the loss for a learned risk.
    """

    risk: str = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup(RISKS, self.risk, "risk")

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        w = problem.solve(scores, batch).w
        value = RISKS[self.risk](problem, w, batch) / problem.scale
        regret = problem.regret(w.detach(), batch) / problem.scale
        return self.terms(value, regret, scores, batch)
