"""The portfolio layer: expected returns and a factor-model covariance in, optimal weights out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import check_number
from ..errors import ProblemError, SolverError
from ..layers.factor import factor_qp
from ..layers.qp import QPLayer
from ..problems.solution import SolveStatus
from ..solvers.structured import SOLVED, FactorSolution

STRUCTURED = "structured"
# General solvers iterate to a tolerance; beyond this they rarely get.
GENERAL_TOLERANCE = 1e-8
# The codes of FactorSolution.status are positions in this list.
STATUSES = list(SolveStatus)
STATUS_NAMES = {i: status.name.lower().replace("_", " ") for i, status in enumerate(STATUSES)}


class PortfolioLayer(nn.Module):
    """Long-only mean-variance weights of a batch of days.

        max  μᵀw − (γ/2) wᵀΣw    s.t.  1ᵀw = 1,  0 ≤ w ≤ max_weight,    Σ = B Bᵀ + diag(d)

    Parameters
    ----------
    risk_aversion : γ > 0, in 1/(return per day).
    max_weight : largest weight of a name, in (0, 1].
    solver : ``structured`` for the batched factor-model solver, or a general solver by name (see
        :func:`bpqp_portfolio.available_solvers`), which forms Σ and takes the days one by one.
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
        solver: str = STRUCTURED,
        tolerance: float = 1e-10,
        throw: bool = True,
    ) -> None:
        super().__init__()
        check_number(risk_aversion, "risk_aversion", low=0, open_low=True)
        check_number(max_weight, "max_weight", low=0, high=1, open_low=True)
        check_number(tolerance, "tolerance", low=0, open_low=True)
        self.risk_aversion, self.max_weight = float(risk_aversion), float(max_weight)
        self.solver, self.tolerance, self.throw = solver, tolerance, throw
        self._general = None
        if solver != STRUCTURED:
            self._general = QPLayer(solver, eps=max(tolerance, GENERAL_TOLERANCE), throw=False)

    def extra_repr(self) -> str:
        return (
            f"risk_aversion={self.risk_aversion:g}, max_weight={self.max_weight:g}, "
            f"solver={self.solver!r}"
        )

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
        if mu.ndim != 2 or mask.shape != mu.shape:
            raise ProblemError(
                f"mu and mask must be (T, n); got {tuple(mu.shape)} and {tuple(mask.shape)}."
            )
        wrong = torch.nonzero(~torch.isfinite(mu) & mask)
        if len(wrong):
            day, item = wrong[0].tolist()
            raise ProblemError(
                f"mu: {float(mu[day, item])} for name {item} of day {day} ({len(wrong)} such "
                "values); mask such names out, or look for what made the forecast fail."
            )
        names = mask.sum(-1)
        short = (names > 0) & (names.double() * self.max_weight < 1 - 1e-12)
        if self.throw and bool(short.any()):
            day = int(torch.where(short, names, mask.shape[1] + 1).argmin())
            fewest = int(names[day])
            raise ProblemError(
                f"max_weight {self.max_weight:g} cannot reach a sum of 1 on day {day}, which has "
                f"{fewest} names ({int(short.sum())} such days): set it to at least "
                f"{math.ceil(1e4 / fewest) / 1e4:g}."
            )
        loadings = loadings * math.sqrt(self.risk_aversion)
        specific = specific * self.risk_aversion
        if self._general is not None:
            solution = self._solve_general(-mu, loadings, specific, mask)
        else:
            solution = factor_qp(
                -mu,
                loadings,
                specific,
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

    def _solve_general(
        self, q: Tensor, loadings: Tensor, specific: Tensor, mask: Tensor
    ) -> FactorSolution:
        assert self._general is not None
        loadings = torch.where(mask.unsqueeze(-1), loadings, 0.0).double()
        quadratic = loadings @ loadings.mT + torch.diag_embed(torch.where(mask, specific, 1.0))
        inside = mask.to(quadratic)
        upper = self.max_weight * inside
        found = self._general.solve(
            quadratic,
            torch.where(mask, q, 0.0).double(),
            inside.unsqueeze(-2),
            inside.new_ones(len(q), 1),
            lb=torch.zeros_like(upper),
            ub=upper,
        )
        # A masked name is zero exactly, whatever the solver's tolerance left of it.
        w = torch.where(mask, found.z, 0.0)
        return FactorSolution(
            w=w.to(q.dtype),
            nu=found.nu.squeeze(-1).detach(),
            x=(w.detach().unsqueeze(-2) @ loadings).squeeze(-2),
            free=mask & (w > 0) & (w < upper),
            kkt_norm=torch.as_tensor(found.kkt_norm),
            iterations=torch.as_tensor(found.iterations),
            status=torch.tensor([STATUSES.index(status) for status in found.status]),
        )
