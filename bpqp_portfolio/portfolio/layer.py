"""The portfolio layer: expected returns and a factor-model covariance in, optimal weights out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import check_number
from ..errors import ConfigError, ProblemError, SolverError
from ..layers.base import SolverLayer
from ..layers.factor import factor_qp
from ..layers.factor_arguments import refuse_unsolved
from ..layers.items import expect_shape, float_shape
from ..layers.qp import QPLayer
from ..layers.transforms import eager
from ..problems.solution import SolveStatus
from ..solvers.factor.problem import STRUCTURED, FactorSolution
from ..solvers.registry import AUTO
from .dense_days import solve_dense

# General solvers iterate to a tolerance; beyond this they rarely get.
GENERAL_TOLERANCE = 1e-10
# Of the structured solver, unless asked otherwise.
_MAX_ITERATIONS = 200


def refuse_unknown(values: Tensor, mask: Tensor, what: str = "mu") -> None:
    """Raise for the first of ``values`` (T, n) in ``mask`` that is not finite.

    Raises
    ------
    ProblemError
        Names ``what``, asset and day, and how many there are.
    """
    wrong = torch.nonzero(~torch.isfinite(values) & mask)
    if len(wrong):
        day, item = wrong[0].tolist()
        raise ProblemError(
            f"{what}: {float(values[day, item])} for name {item} of day {day} ({len(wrong)} such "
            "values); mask such names out, or look for what made the forecast fail."
        )


class PortfolioLayer(SolverLayer):
    """Long-only mean-variance weights of a batch of days.

        max  μᵀw − (γ/2) wᵀΣw − turnover_cost ‖w − previous‖₁
        s.t. 1ᵀw = 1,  0 ≤ w ≤ max_weight,    Σ = B Bᵀ + diag(d)

    and further rows A w = b, G w ≤ h where :meth:`solve` is given them.

    Parameters
    ----------
    risk_aversion : γ > 0, in 1/(return per day).
    max_weight : largest weight of a name, in (0, 1].
    turnover_cost : cost of a trade as a fraction of its value; the call then needs ``previous``.
    forward : "structured" for the batched factor-model solver, which "auto" takes where Σ comes as
        loadings and specific, or a general solver by name (see
        :func:`bpqp_portfolio.available_solvers`), which forms Σ and takes the days one by one.
    backward, max_iterations, on_failure, options : see
        :class:`~bpqp_portfolio.layers.base.SolverLayer`; the structured solver has its own
        backward pass, and no options.
    tolerance : scaled KKT residual at which a day counts as solved.

    Raises
    ------
    ConfigError
        A parameter outside its range, an unknown solver.

    References
    ----------
    The gradient is the backward QP of arXiv:2411.19285, Theorem 1.

    Examples
    --------
    >>> layer = PortfolioLayer(risk_aversion=10.0)
    >>> mu = torch.tensor([[0.02, 0.01]], dtype=torch.float64)
    >>> loadings, specific = mu.new_zeros(1, 2, 0), mu.new_full((1, 2), 0.01)
    >>> layer(mu, loadings, specific).round(decimals=9).tolist()
    [[0.55, 0.45]]
    """

    def __init__(
        self,
        risk_aversion: float = 1.0,
        max_weight: float = 1.0,
        *,
        turnover_cost: float = 0.0,
        forward: str = AUTO,
        backward: str = "auto",
        tolerance: float = 1e-10,
        max_iterations: int | None = None,
        on_failure: str = "raise",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(forward, backward, tolerance, max_iterations, on_failure, options)
        check_number(risk_aversion, "risk_aversion", low=0, open_low=True)
        check_number(max_weight, "max_weight", low=0, high=1, open_low=True)
        check_number(turnover_cost, "turnover_cost", low=0)
        self.turnover_cost = float(turnover_cost)
        self.risk_aversion, self.max_weight = float(risk_aversion), float(max_weight)
        structured = forward in (AUTO, STRUCTURED)
        # A covariance without factors goes to a general solver whatever the forward one.
        self._general = QPLayer(
            "auto" if structured else forward,
            backward,
            tolerance=max(tolerance, GENERAL_TOLERANCE),
            max_iterations=max_iterations,
            on_failure="nan",
            options=None if structured else options,
        )
        if structured and (self.options or backward not in ("auto", "kkt")):
            raise ConfigError(
                f"forward {forward!r} has its own backward pass and no options; got "
                f"backward={backward!r}, options={self.options}. Name a general solver for these."
            )

    def extra_repr(self) -> str:
        limits = f"risk_aversion={self.risk_aversion:g}, max_weight={self.max_weight:g}"
        return f"{limits}, {super().extra_repr()}"

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        """Weights (T, n), each day's summing to 1, of what :meth:`solve` takes."""
        return self.solve(*arguments, **named).w

    @eager
    def solve(
        self,
        mu: Tensor,
        loadings: Tensor | None = None,
        specific: Tensor | None = None,
        mask: Tensor | None = None,
        previous: Tensor | None = None,
        *,
        covariance: Tensor | None = None,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        initial_point: FactorSolution | Tensor | None = None,
    ) -> FactorSolution:
        """Weights with duals, status and KKT norm of every day.

        Parameters
        ----------
        mu : (T, n) expected daily returns, as fractions.
        loadings : (T, n, k); specific : (T, n), per day²: Σ = B Bᵀ + diag(d).
        mask : (T, n) bool, names in the day's problem; the others get exactly zero.
        previous : (T, n) weights held before the trade, for ``turnover_cost``; a day that is NaN
            throughout trades for free.
        covariance : Σ (T, n, n) per day² instead of loadings and specific; goes to the general
            layer.
        A, b, G, h : (T, p, n), (T, p), (T, m, n), (T, m) rows besides the budget.
        initial_point : an earlier solution of similar problems, or its ``x`` (T, k), for the
            structured solver; it changes the time, not the answer.

        Raises
        ------
        ProblemError
            Wrong shapes or missing arguments; with ``on_failure="raise"`` also bad values.
        SolverError
            A day that was not solved, as one with too few names for ``max_weight``, where
            ``on_failure`` is "raise".
        """
        mask = self._checked(mu, loadings, specific, mask, previous, covariance)
        cost = None
        if self.turnover_cost and previous is not None:
            # Nothing is known of a first day's holdings: entering costs nothing.
            entry = previous.isnan().all(-1, keepdim=True)
            previous = torch.where(entry, 0.0, previous)
            cost = torch.where(entry, 0.0, previous.new_full((), self.turnover_cost))
            cost = cost.expand(mu.shape)
        rows: dict[str, Any] = {"A": A, "b": b, "G": G, "h": h}
        trade: dict[str, Any] = {"cost": cost, "reference": previous}
        if loadings is not None and specific is not None:
            loadings = loadings * math.sqrt(self.risk_aversion)
            specific = specific * self.risk_aversion
        if not mu.numel():
            # No covariance says nothing, whatever its form.
            loadings = mu.new_zeros(*mu.shape, 0) if loadings is None else loadings
            return factor_qp(-mu, loadings, mu, mask=mask, on_failure=self.on_failure, **rows)
        if covariance is None and self.forward_name in (AUTO, STRUCTURED):
            assert loadings is not None and specific is not None
            return factor_qp(
                -mu,
                loadings,
                specific,
                ub=self.max_weight,
                mask=mask,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations or _MAX_ITERATIONS,
                on_failure=self.on_failure,
                initial_point=initial_point,
                **rows,
                **trade,
            )
        P = None if covariance is None else self.risk_aversion * covariance
        quadratic = (P, loadings, specific)
        solution = solve_dense(
            self._general, -mu, quadratic, mask, self.max_weight, self.raises, **rows, **trade
        )
        if self.raises:
            refuse_unsolved(solution)
        return solution

    def _checked(
        self,
        mu: Tensor,
        loadings: Tensor | None,
        specific: Tensor | None,
        mask: Tensor | None,
        previous: Tensor | None,
        covariance: Tensor | None,
    ) -> Tensor:
        """The mask; ProblemError where something is missing or has a wrong shape, or bad values."""
        if covariance is None and (loadings is None or specific is None):
            raise ProblemError("loadings and specific: missing; give both, or covariance instead.")
        if covariance is not None and (loadings is not None or specific is not None):
            raise ProblemError("covariance: give either this or loadings and specific, not both.")
        if self.turnover_cost and previous is None:
            raise ProblemError("previous: missing; turnover_cost needs the weights held before.")
        float_shape("mu", mu)
        expect_shape("mu", mu, "T n", {})
        sizes = {"T": mu.shape[0], "n": mu.shape[1]}
        if previous is not None:
            expect_shape("previous", previous, "T n", sizes)
        if covariance is not None:
            expect_shape("covariance", covariance, "T n n", sizes)
        mask = torch.ones_like(mu, dtype=torch.bool) if mask is None else mask
        expect_shape("mask", mask, "T n", sizes)
        if mask.dtype != torch.bool:
            raise ProblemError(f"mask: expected true and false, got {mask.dtype}.")
        if self.raises:
            refuse_unknown(mu, mask)
            self._refuse_few_names(mask)
        return mask

    def _refuse_few_names(self, mask: Tensor) -> None:
        """SolverError where a day has too few names for ``max_weight``."""
        names = mask.sum(-1)
        short = (names > 0) & (names.double() * self.max_weight < 1 - 1e-12)
        if bool(short.any()):
            day = int(torch.where(short, names, mask.shape[1] + 1).argmin())
            fewest = int(names[day])
            raise SolverError(
                f"{int(short.sum())} of {len(mask)} days were not solved (day {day}: "
                f"{SolveStatus.PRIMAL_INFEASIBLE.label}): max_weight {self.max_weight:g} cannot "
                f"reach a sum of 1 with {fewest} names; set it to at least "
                f"{math.ceil(1e4 / fewest) / 1e4:g}."
            )
