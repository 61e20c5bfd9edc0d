"""The mean-variance utility of an account that pays for its trades."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..config import lookup
from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .account import BlockLoss
from .terms import RISKS


@dataclass(frozen=True)
class NetUtility(BlockLoss):
    """−[yᵀw − (γ/2) wᵀΣw − cost] of each day, in units of the score.

    Return, risk (with the problem's γ and Σ) and cost are daily and not annualised; a block's
    first day pays nothing (see :func:`~.account.trades`).

    Parameters
    ----------
    risk : ``model`` for (γ/2) wᵀΣw; ``realised`` for (γ/2)(yᵀw)², which is noisier and sees what
        the risk model got wrong: the loss for a learned risk.
    """

    risk: str = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup(RISKS, self.risk, "risk")

    def loss(self, w: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
        """Utility lost each day, (T,)."""
        return (RISKS[self.risk](problem, w, batch) + self.cost(w, batch, problem)) / problem.scale
