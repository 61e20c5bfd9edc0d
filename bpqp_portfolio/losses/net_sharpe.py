"""The Sharpe ratio of an account that pays for its trades."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..config import check_number, lookup
from ..data.features.panel import DayBatch
from ..markets.trading_year import USUAL
from ..portfolio.problem import PortfolioProblem
from .account import BlockLoss

BENCHMARKS = {"none": False, "universe": True}
# Of a day's return; keeps the ratio finite where the returns of a block do not vary.
LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class NetSharpe(BlockLoss):
    """−√days_per_year · mean(r) / std(r) of the block, the same value for each of its days.

    r = yᵀw − cost is the daily net return as a fraction, less what a decision pays for weights
    outside of its limits; with ``benchmark: universe`` it is the excess over equal weights in the
    day's universe, held without cost. No risk-free rate; std has the divisor T − 1. The first day
    pays nothing (see :func:`~.account.trades`).
    """

    benchmark: str = "none"
    days_per_year: float = USUAL

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup(BENCHMARKS, self.benchmark, "benchmark")
        check_number(self.days_per_year, "days_per_year", low=1)

    def loss(self, w: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
        """Minus the annualised net Sharpe ratio, (T,)."""
        net = (batch.returns * w).sum(-1) - self.cost(w, batch) - problem.penalty(w)
        if BENCHMARKS[self.benchmark]:
            net = net - batch.returns.sum(-1) / batch.mask.sum(-1)
        deviation = net.var().clamp_min(LEAST_DEVIATION**2).sqrt()
        return (-math.sqrt(self.days_per_year) * net.mean() / deviation).expand(len(w))
