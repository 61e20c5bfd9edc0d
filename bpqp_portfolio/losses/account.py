"""Consecutive days as one account: yesterday's weights drift into today's trades and costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..config import check_number
from ..data.features.panel import DayBatch
from ..errors import ConfigError
from ..portfolio.problem import PortfolioProblem
from .terms import DecisionLoss, LossTerms


def trades(w: Tensor, batch: DayBatch) -> tuple[Tensor, Tensor]:
    """Bought and sold on each day, two (T,), as fractions of the account.

    Before the trade of a day the account holds the weights (T, n) of the day before, grown by
    their returns and divided by their sum: wᵢ(1 + yᵢ) / Σⱼ wⱼ(1 + yⱼ). Names are matched by
    ``batch.names``: one that left the universe is sold wholly, one that came is bought from zero,
    and an unknown return counts as zero. Zero for the first day, and for a day whose day before is
    not in the batch: what was held then is unknown (and entering from cash costs the same for
    any purchase). Differentiable in the weights of both days.
    """
    T = len(w)
    codes, column = torch.unique(batch.names[batch.mask], return_inverse=True)
    place = batch.mask.nonzero()[:, 0], column

    def by_name(values: Tensor) -> Tensor:
        return values.new_zeros(T, len(codes)).index_put(place, values[batch.mask])

    grown = by_name(w * (1 + batch.returns))[:-1]
    change = by_name(w)[1:] - grown / grown.sum(-1, keepdim=True)
    follows = (batch.days.diff() == 1).unsqueeze(-1)
    change = torch.where(follows, change, 0.0)
    first = w.new_zeros(1)
    return (torch.cat([first, change.relu().sum(-1)]), torch.cat([first, (-change).relu().sum(-1)]))


@dataclass(frozen=True)
class BlockLoss(DecisionLoss):
    """A loss of consecutive days with trading costs inside.

    The costs are those of the problem, which has them from the mandate. The batch is the block:
    set the trainer's ``batch_days`` to its length. Where the problem pays ``trading_costs`` its
    days are decided in order, or in ``sweeps`` (see
    :meth:`~bpqp_portfolio.portfolio.problem.PortfolioProblem.rollout`).

    Parameters
    ----------
    sweeps : [sweeps] passes over the block, in each of which its days are decided all at once, from
        what the pass before held; null decides them one after the other, exactly and more slowly.
        Only where the problem pays ``trading_costs``.
    """

    sweeps: int | None = None
    least_days: ClassVar[int] = 2
    pays_costs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweeps is not None:
            check_number(self.sweeps, "sweeps", low=1, integer=True)

    def cost(self, w: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
        """Cost of each day's trades, (T,), as a fraction of the account."""
        bought, sold = trades(w, batch)
        return problem.costs.buy * bought + problem.costs.sell * sold

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        if len(batch.days) < self.least_days:
            raise ConfigError(
                f"a loss over blocks of consecutive days got {len(batch.days)} of them: set "
                "trainer.batch_days to the length of a block, such as 40."
            )
        w = problem.rollout(scores, batch, self.sweeps)
        regret = problem.regret(w.detach(), batch) / problem.scale
        return self.terms(self.loss(w, batch, problem), regret, scores, batch)

    def loss(self, w: Tensor, batch: DayBatch, problem: PortfolioProblem) -> Tensor:
        """What a block loss implements: values (T,) of the weights (T, n)."""
        raise NotImplementedError
