"""The Sharpe ratio of an account that pays for its trades."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..config import lookup
from ..data.features.panel import DayBatch
from ..portfolio.problem import PortfolioProblem
from .account import BlockLoss

BENCHMARKS = {"none": False, "universe": True}
# Of a day's return; keeps the ratio finite where the returns of a block do not vary.
LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class NetSharpe(BlockLoss):
    """−√N · mean(r) / std(r) of the block, the same value for each of its days.

    N is the problem's ``days_per_year``, those of its market. r = yᵀw − cost is the daily net
    return as a fraction, less what a decision pays for weights outside of its limits; with
    ``benchmark: universe`` it is the excess over equal weights in the day's universe, held without
    cost. No risk-free rate; std has the divisor T − 1. The first day pays nothing (see
    :func:`~.account.trades`).

    Parameters
    ----------
    benchmark : what the return is in excess of: ``none``, or ``universe`` for equal weights.
    """

    benchmark: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup(BENCHMARKS, self.benchmark, "benchmark")

    def loss(self, w: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
        """Minus the annualised net Sharpe ratio, (T,)."""
        net = (batch.returns * w).sum(-1) - self.cost(w, batch, problem) - problem.penalty(w)
        if BENCHMARKS[self.benchmark]:
            net = net - batch.returns.sum(-1) / batch.mask.sum(-1)
        deviation = net.var().clamp_min(LEAST_DEVIATION**2).sqrt()
        return (-math.sqrt(problem.days_per_year) * net.mean() / deviation).expand(len(w))
