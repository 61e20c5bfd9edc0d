"""Two-stage learning on an error that large labels do not dominate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..config import check_number
from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .prediction import huber_error
from .terms import LossTerms, score_error


@dataclass(frozen=True)
class Huber:
    """Mean of e²/2 where |e| ≤ δ and δ(|e| − δ/2) beyond, e = ŷ − y (Huber 1964).

    Parameters
    ----------
    delta : [standard deviations of the label] error δ beyond which the loss is linear.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.delta, "delta", low=0, open_low=True)

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        total = huber_error(scores, batch.label, batch.known, self.delta)
        return LossTerms(total, score_error(scores, batch), None)
