"""The mean-variance utility of an account that pays for its trades."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..data.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .blocks import BlockLoss


@dataclass(frozen=True)
class NetUtility(BlockLoss):
    """−[yᵀw − (γ/2) wᵀΣw − cost] of each day, in units of the score.

    Return, risk (with the problem's γ and Σ) and cost are daily and not annualised; a block's
    first day pays nothing (see :func:`~.blocks.trades`).
    """

    def loss(self, w: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
        """Utility lost each day, (T,)."""
        return (problem.value(w, batch) + self.cost(w, batch)) / problem.scale
