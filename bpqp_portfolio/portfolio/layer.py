"""The portfolio layer: expected returns and a factor-model covariance in, optimal weights out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import check_number
from ..errors import ProblemError, SolverError
from ..layers.factor import factor_qp
from ..solvers.structured import INFEASIBLE, SOLVED, FactorSolution

STATUS_NAMES = {0: "solved", 1: "inaccurate", 2: "primal infeasible"}


class PortfolioLayer(nn.Module):
    """Long-only mean-variance weights of a batch of days.

        max  μᵀw − (γ/2) wᵀΣw    s.t.  1ᵀw = 1,  0 ≤ w ≤ max_weight,    Σ = B Bᵀ + diag(d)

    Parameters
    ----------
    risk_aversion : γ > 0, in 1/(return per day).
    max_weight : largest weight of a name, in (0, 1].
    tolerance : scaled KKT residual at which a day counts as solved.
    throw : raise where a day fails; otherwise its weights are NaN and its gradient is zero.

    Raises
    ------
    ConfigError
        A parameter outside its range.

    References
    ----------
    The gradient is the backward QP of arXiv:2411.19285, Theorem 1.
    """

    def __init__(
        self,
        risk_aversion: float = 1.0,
        max_weight: float = 1.0,
        *,
        tolerance: float = 1e-10,
        throw: bool = True,
    ) -> None:
        super().__init__()
        check_number(risk_aversion, "risk_aversion", low=0, open_low=True)
        check_number(max_weight, "max_weight", low=0, high=1, open_low=True)
        check_number(tolerance, "tolerance", low=0, open_low=True)
        self.risk_aversion, self.max_weight = float(risk_aversion), float(max_weight)
        self.tolerance, self.throw = tolerance, throw

    def extra_repr(self) -> str:
        return f"risk_aversion={self.risk_aversion:g}, max_weight={self.max_weight:g}"

    def forward(
        self, mu: Tensor, loadings: Tensor, specific: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Weights (T, n), each day's summing to 1; see :meth:`solve`."""
        return self.solve(mu, loadings, specific, mask).w

    def solve(
        self,
        mu: Tensor,
        loadings: Tensor,
        specific: Tensor,
        mask: Tensor | None = None,
        *,
        warm_start: Tensor | None = None,
    ) -> FactorSolution:
        """Weights with duals, status and KKT norm of every day.

        Parameters
        ----------
        mu : (T, n) expected daily returns, as fractions.
        loadings : (T, n, k); specific : (T, n), per day²: Σ = B Bᵀ + diag(d).
        mask : (T, n) bool, names in the day's problem; the others get exactly zero.

        Raises
        ------
        ProblemError
            Bad shapes or values, or a day with too few names for ``max_weight``.
        SolverError
            A day that was not solved, where ``throw`` is set.
        """
        if mask is None:
            mask = torch.ones_like(mu, dtype=torch.bool)
        names = mask.sum(-1)
        short = torch.nonzero((names > 0) & (names * self.max_weight < 1 - 1e-9))
        if len(short) and self.throw:
            day = int(short[0])
            raise ProblemError(
                f"max_weight {self.max_weight:g} cannot be met on day {day}, which has "
                f"{int(names[day])} names ({len(short)} such days): it must be at least "
                f"{1 / int(names[day]):.4g}."
            )
        solution = factor_qp(
            -mu,
            loadings * math.sqrt(self.risk_aversion),
            specific * self.risk_aversion,
            upper=self.max_weight,
            mask=mask,
            tolerance=self.tolerance,
            warm_start=warm_start,
        )
        if self.throw and bool((solution.status != SOLVED).any()):
            failed = torch.nonzero(solution.status != SOLVED).squeeze(-1)
            shown = ", ".join(
                f"day {int(t)}: {STATUS_NAMES[int(solution.status[t])]}, "
                f"KKT norm {float(solution.kkt_norm[t]):.1e}"
                for t in failed[:5]
            )
            raise SolverError(f"{len(failed)} of {len(mu)} days were not solved ({shown}).")
        return solution


__all__ = ["INFEASIBLE", "STATUS_NAMES", "PortfolioLayer"]
