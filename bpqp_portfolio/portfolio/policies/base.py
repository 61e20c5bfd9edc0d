"""What decides: from expected returns to weights, differentiably; and steps that several share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ...data.features.panel import DayBatch
from ...problems.solution import SolveStatus
from ...solvers.factor.problem import FactorSolution
from .simplex import project

# An earlier solution of the same days.
WarmStart = FactorSolution | None


class Limits(Protocol):
    """The settings of a problem that policies read."""

    @property
    def risk_aversion(self) -> float:
        """γ > 0, in 1/(return per day)."""

    @property
    def max_weight(self) -> float:
        """Largest weight of a name, in (0, 1]."""


class MeanVariance(Protocol):
    """What policies know of the problem, :class:`~..problem.PortfolioProblem`.

    ``unit`` is the daily return that a normalised score of 1 stands for.
    """

    unit: float | Tensor

    @property
    def config(self) -> Limits:
        """Its limits and risk aversion."""

    def solve_exactly(
        self, mu: Tensor, batch: DayBatch, warm_start: WarmStart = None
    ) -> FactorSolution:
        """The minimum of −μᵀw + (γ/2) wᵀΣw over 1ᵀw = 1, 0 ≤ w ≤ max_weight."""
        ...


class Policy(Protocol):
    """Expected daily returns ``mu`` (T, n) in, weights w (T, n) of each day out.

    Differentiable in ``mu``; a day's weights depend on that day alone, sum to 1 and are zero
    outside of ``batch.mask``. ``warm_start`` may change the time, not the answer. ``penalty`` is
    what the decision's value pays for Σ (how far a weight is outside of its limits)², as a daily
    return; zero where weights are never outside, or where that is nobody's concern.
    """

    penalty: float

    def __call__(
        self, mu: Tensor, batch: DayBatch, problem: MeanVariance, warm_start: WarmStart = None
    ) -> FactorSolution: ...


def risk_gradient(w: Tensor, batch: DayBatch, gamma: float) -> Tensor:
    """γΣw (T, n)."""
    exposure = w.unsqueeze(-2) @ batch.loadings.to(w)
    return gamma * ((exposure @ batch.loadings.to(w).mT).squeeze(-2) + batch.specific * w)


def curvature_bound(batch: DayBatch, gamma: float) -> Tensor:
    """A number (T, 1) no smaller than the largest eigenvalue of γΣ: γ(‖BᵀB‖_F + max d)."""
    loadings = batch.loadings.detach().double()
    common = (loadings.mT @ loadings).square().sum((-2, -1)).sqrt()
    largest = torch.where(batch.mask, batch.specific.detach().double(), 0.0).amax(-1)
    return gamma * (common + largest).unsqueeze(-1)


def as_solution(
    w: Tensor, mu: Tensor, batch: DayBatch, problem: MeanVariance, iterations: int = 0
) -> FactorSolution:
    """Weights that no optimiser vouches for as a solution without duals (NaN).

    ``kkt_norm`` is the largest entry of w − P(w − ∇f(w)/L), the step that a projected gradient
    would take from w: zero at the portfolio problem's optimum, in units of weight.
    """
    gamma, cap = problem.config.risk_aversion, problem.config.max_weight
    with torch.no_grad():
        slope = risk_gradient(w, batch, gamma) - mu
        step = w - slope / curvature_bound(batch, gamma)
        norm = (project(step, batch.mask, cap) - w).abs().amax(-1)
    T, nothing = len(w), w.detach().new_zeros(len(w), 0)
    unknown = torch.full_like(w.detach(), torch.nan)
    return FactorSolution(
        w=w,
        nu=unknown[:, 0],
        x=(w.detach().unsqueeze(-2) @ batch.loadings.detach().to(w)).squeeze(-2),
        free=batch.mask & (w > 0) & (w < cap),
        kkt_norm=norm,
        iterations=torch.full((T,), iterations, device=w.device),
        codes=torch.where(
            w.detach().isfinite().all(-1), SolveStatus.SOLVED.code, SolveStatus.BAD_DATA.code
        ),
        nu_rows=nothing,
        lam=nothing,
        lam_lb=unknown,
        lam_ub=unknown,
        solver="none",
    )
