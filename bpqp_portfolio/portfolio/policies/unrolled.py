"""The portfolio problem by a fixed number of gradient steps, differentiated step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...config import check_number
from ...data.features.panel import DayBatch
from ...solvers.factor.problem import FactorSolution
from .base import MeanVariance, WarmStart, as_solution, curvature_bound, risk_gradient
from .simplex import project


@dataclass(frozen=True)
class Unrolled:
    """Accelerated projected gradient from equal weights, in steps of length 1/L.

    Each step is v − (γΣv − μ)/L, projected on 1ᵀw = 1, 0 ≤ w ≤ max_weight, with v beyond the last
    w by the part k/(k + 3) of its last move. Always feasible; nearer to the optimum with more
    steps. Autograd keeps every step, and what it returns is the gradient of the last iterate.

    Parameters
    ----------
    steps : [steps] number of gradient steps.

    References
    ----------
    Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, SIAM J. Imaging Sciences
    2 (2009).
    """

    steps: int = 100
    penalty: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_number(self.steps, "steps", low=1, integer=True)

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution:
        gamma, cap = problem.config.risk_aversion, problem.config.max_weight
        length = 1 / curvature_bound(batch, gamma)
        inside = batch.mask.to(mu)
        w = v = inside / inside.sum(-1, keepdim=True).clamp_min(1)
        for k in range(int(self.steps)):
            moved = project(v - length * (risk_gradient(v, batch, gamma) - mu), batch.mask, cap)
            v = moved + k / (k + 3) * (moved - w)
            w = moved
        return as_solution(w, mu, batch, problem, int(self.steps))
