"""DC3: the network proposes weights, which are completed to the budget and corrected to limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import check_number
from ...data.features.panel import DayBatch
from ...problems.solution import SolveStatus
from ...solvers.factor.problem import FactorSolution
from .base import MeanVariance, WarmStart, as_solution

Map = Callable[[Tensor], Tensor]


def correct(
    y: Tensor, excess: Map, rows: Map, transposed: Map, along: Map, steps: int, tolerance: float
) -> Tensor:
    """Points (T, n) moved towards Gy ≤ h by gradient steps on ‖relu(Gy − h)‖², along Ay = b.

    A step goes along NNᵀGᵀrelu(Gy − h), where the columns of N say how the completed variables
    follow the others, and as far as lowers the violation of the rows that are violated most, which
    takes the place of a constant rate. A day within ``tolerance`` stays. Differentiable.

    Parameters
    ----------
    excess : y → relu(Gy − h), (T, m); rows : d → Gd; transposed : r → Gᵀr; along : g → NNᵀg.
    """
    for _ in range(steps):
        r = excess(y)
        unmet = (r > tolerance).any(-1, keepdim=True)
        if not bool(unmet.any()):
            break
        d = -along(transposed(r))
        moved = torch.where(r > 0, rows(d), 0.0)
        bend = moved.square().sum(-1, keepdim=True)
        go = unmet & (bend > 0)
        length = -(r * moved).sum(-1, keepdim=True) / torch.where(go, bend, 1.0)
        y = y + torch.where(go, length, 0.0) * d
    return y


@dataclass(frozen=True)
class DC3:
    """Weights proposed by the scores, complete by construction, within limits by correction.

    The normalised score s of a name proposes cap · σ(s + c), between 0 and cap = max_weight and
    1/n at s = 0; the day's last name gets what is left of the budget. Steps of :func:`correct`
    bring all within 0 ≤ w ≤ cap; a day on which they do not is inaccurate.

    Parameters
    ----------
    corrections : [steps] largest number of corrections.
    tolerance : [fraction of the account] distance by which a weight may be outside.
    penalty : [return per day] what the squared distance that is still outside costs, in value and
        regret.

    References
    ----------
    Donti, Rolnick and Kolter, DC3: A learning method for optimization with hard constraints, ICLR
    2021.
    """

    corrections: int = 100
    tolerance: float = 1e-6
    penalty: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.corrections, "corrections", low=0, integer=True)
        check_number(self.tolerance, "tolerance", low=0, open_low=True)
        check_number(self.penalty, "penalty", low=0)

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution:
        mask, cap = batch.mask, problem.config.max_weight
        column = torch.arange(mask.shape[1], device=mask.device)
        last = mask & (column == torch.where(mask, column, -1).amax(-1, keepdim=True))
        partial = mask & ~last
        equal = (1 / (cap * mask.sum(-1, keepdim=True).clamp_min(1))).clamp(1e-9, 1 - 1e-9)
        proposed = cap * torch.sigmoid(mu / problem.unit + equal.logit().to(mu))
        z = torch.where(partial, proposed, 0.0)
        w = torch.where(last, 1 - z.sum(-1, keepdim=True), z)

        def along(g: Tensor) -> Tensor:
            free = torch.where(partial, g - torch.where(last, g, 0.0).sum(-1, keepdim=True), 0.0)
            return torch.where(last, -free.sum(-1, keepdim=True), free)

        n = mask.shape[1]
        w = correct(
            w,
            excess=lambda w: torch.cat([(-w).relu(), (w - cap).relu() * mask], -1),
            rows=lambda d: torch.cat([-d, d], -1),
            transposed=lambda r: r[:, n:] - r[:, :n],
            along=along,
            steps=int(self.corrections),
            tolerance=self.tolerance,
        )
        solution = as_solution(w, mu, batch, problem, int(self.corrections))
        outside = torch.maximum(-w, w - cap).detach().masked_fill(~mask, -1).amax(-1)
        solution.codes.masked_fill_(outside > self.tolerance, SolveStatus.INACCURATE.code)
        return solution
