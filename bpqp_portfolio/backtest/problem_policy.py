"""The training problem as what decides on a day: scores to weights, blind to what is held."""

from __future__ import annotations

import torch

from ..data.features.panel import DayBatch
from ..portfolio.mandate.mandate import MandateSolution, Market
from ..portfolio.mandate.parts import Sense
from ..portfolio.mandate.solution import ConstraintLabel
from ..portfolio.problem import PortfolioProblem

WEIGHT = "fraction of the account"


class ProblemPolicy:
    """Weights of a :class:`PortfolioProblem`, or of the policy that its ``decision`` names, in the
    form of a mandate's solution."""

    benchmarked = False

    def __init__(self, problem: PortfolioProblem) -> None:
        self.problem = problem

    @torch.no_grad()
    def solve(self, market: Market) -> MandateSolution:
        """Weights (T, n), with the budget and the largest weight as constraints.

        The shadow price of the largest weight is the sum over the names at it; policies that solve
        no problem have none (NaN).
        """
        cap = self.problem.config.max_weight
        batch = DayBatch.unlabelled(market.loadings, market.specific, market.mask)
        found = self.problem.solve_forecast(market.mu, batch)
        w, T = found.w, len(found.w)
        one = torch.ones(T, dtype=w.dtype)
        return MandateSolution(
            w=w,
            codes=found.codes,
            kkt_norm=found.kkt_norm,
            iterations=found.iterations,
            objective=self.problem.objective(w, market.mu, batch),
            constraints=(
                ConstraintLabel("budget", "budget = 1", Sense.EQUAL, WEIGHT),
                ConstraintLabel(
                    "max_weights", f"max_weights: weights <= {cap:g}", Sense.UPPER, WEIGHT
                ),
            ),
            value=torch.stack([w.sum(-1), w.amax(-1)], -1),
            limit=torch.stack([one, cap * one], -1),
            dual=torch.stack([found.nu, found.lam_ub.sum(-1)], -1),
            solver=(self.problem.config.solver,) * T,
            fallback=(None,) * T,
            reason=(None,) * T,
        )
