"""SPO+: a convex bound on the regret whose gradient needs no derivative of the solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.features.panel import DayBatch
from ..layers.second_order import first_order
from ..portfolio.problem import PortfolioProblem
from .terms import KAPPA, DecisionLoss, LossTerms


@dataclass(frozen=True)
class SPOPlus(DecisionLoss):
    """f_m(w*(y)) − f_m(w*(m)) at m = 2ŷ − y, in units of the score.

    With f_μ(w) = −μᵀw + (γ/2) wᵀΣw and Σ fixed, the regret of the forecast ŷ is, for any α,

        f_y(w*(ŷ)) − f_y(w*(y)) ≤ max_w [f_y(w) − α f_ŷ(w)] + α f_ŷ(w*(ŷ)) − f_y(w*(y)).

    At α = 2 the bracket is −f_m(w), so that the maximum is one more portfolio problem; and
    f_ŷ(w*(ŷ)) ≤ f_ŷ(w*(y)) makes the bound convex in ŷ. What results is the regret of the
    portfolio of perfect foresight in a problem with the returns m. It is never below the regret
    of ŷ, zero for ŷ = y, and its gradient in ŷ is 2 (w*(m) − w*(y)). Convex in the scores too,
    unless they are standardised.

    References
    ----------
    Elmachtoub and Grigas, Smart "Predict, then Optimize", Management Science 68 (2022), for linear
    objectives; the same steps hold with a risk term that does not depend on the forecast.
    """

    # The bound is one of the problem with the batch's own covariance.
    learns: ClassVar[frozenset[str]] = frozenset({KAPPA})

    def __call__(self, scores: Tensor, batch: DayBatch, problem: PortfolioProblem) -> LossTerms:
        forecast = problem.forecast(scores, batch.mask)
        m = 2 * forecast - batch.returns
        with torch.no_grad():
            perfect = problem.hindsight(batch).w
            best = problem.solve_exactly(m, batch).w
            regret = problem.regret(problem.solve_forecast(forecast, batch).w, batch)
        loss = problem.objective(perfect, m, batch) - problem.objective(best, m, batch)
        loss = first_order(loss, "spo_plus", "since its optimum is held fixed")
        return self.terms(loss / problem.scale, regret / problem.scale, scores, batch)
