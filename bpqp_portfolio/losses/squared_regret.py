"""The loss of the paper: squared regret and mean squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..config import check_number
from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .terms import KAPPA, RISK, LossTerms, decision_loss, score_error


@dataclass(frozen=True)
class SquaredRegret:
    """β · regret² + E‖y − ŷ‖², the loss of arXiv:2411.19285; regret in units of the score.

    Parameters
    ----------
    beta : [no unit] β, weight of the squared regret; 0.1 in the paper.
    """

    beta: float = 0.1
    learns: ClassVar[frozenset[str]] = frozenset({RISK, KAPPA})

    def __post_init__(self) -> None:
        check_number(self.beta, "beta", low=0)

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        prediction = score_error(scores, batch)
        regret = decision_loss(scores, batch, problem)
        return LossTerms(self.beta * regret.square() + prediction, prediction, regret)
