"""The decision problem of a study: from a network's scores to weights, value and regret."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import check_number, from_mapping, named, title
from ..data.features.panel import DailyPanel, DayBatch
from ..errors import ConfigError
from ..solvers.factor.problem import FactorSolution
from .costs import ASK_COSTS, TradingCosts
from .drift import held, held_after
from .layer import STRUCTURED, PortfolioLayer, refuse_unknown
from .policies import build_policy
from .scores import build_normalisation


@dataclass(frozen=True)
class ProblemConfig:
    """Settings of the mean-variance problem.

    Risk aversion, limits, costs and days a year are facts of the mandate and the market, from which
    a workflow takes them; the rest is about learning.

    Parameters
    ----------
    risk_aversion : [1/(return per day)] γ.
    max_weight : [fraction of the account] largest weight of a name.
    costs : of a trade, :class:`TradingCosts` or a mapping of its fields; None where not stated.
    days_per_year : [days] trading days that annual figures count; None where not stated.
    trading_costs : whether the training problem itself pays for trades, at ``turnover_cost``, the
        mean of the two rates, for what is bought and for what is sold (see
        :meth:`PortfolioProblem.rollout`).
    score_scale : [return per day] daily return that a score of 1 stands for; null for the mean
        cross-sectional standard deviation of the training labels.
    normalisation : how a day's scores are scaled before they become forecasts, of
        :data:`~.scores.NORMALISATIONS`, or a class of one's own.
    kappa : [return per day] κ, daily return that a normalised score of 1 stands for; null for
        ``score_scale``. Only where there is a normalisation.
    solver : forward solver of :class:`~.layer.PortfolioLayer`: ``structured``, for factor models,
        or one of ``available_solvers("qp")``.
    tolerance : [no unit] scaled KKT residual at which a day counts as solved.
    decision : what turns forecasts into weights, of :data:`~.policies.POLICIES`: ``bpqp`` solves
        the problem, the others are what it is compared with. A name, a ``name`` and options, or a
        class.

    Raises
    ------
    ConfigError
        A setting is unknown or outside its range, or settings contradict each other.
    """

    risk_aversion: float = 1.0
    max_weight: float = 1.0
    costs: TradingCosts | Mapping[str, float] | None = None
    days_per_year: float | None = None
    trading_costs: bool = False
    score_scale: float | None = None
    normalisation: str | Mapping[str, Any] = "none"
    kappa: float | None = None
    solver: str = STRUCTURED
    tolerance: float = 1e-10
    decision: Mapping[str, Any] = field(default_factory=lambda: {"name": "bpqp"})

    def __post_init__(self) -> None:
        check_number(self.risk_aversion, "risk_aversion", low=0, open_low=True)
        check_number(self.max_weight, "max_weight", low=0, high=1, open_low=True)
        check_number(self.tolerance, "tolerance", low=0, open_low=True)
        if self.score_scale is not None:
            check_number(self.score_scale, "score_scale", low=0, open_low=True)
        build_normalisation(self.normalisation)
        if self.kappa is not None:
            check_number(self.kappa, "kappa", low=0, open_low=True)
            if self.normalisation == "none":
                raise ConfigError("kappa: needs a normalisation; without one set score_scale.")
        object.__setattr__(self, "decision", named(self.decision, "decision"))
        build_policy(self.decision)
        if self.costs is not None:
            object.__setattr__(self, "costs", from_mapping(TradingCosts, self.costs, "costs"))
        if self.days_per_year is not None:
            check_number(self.days_per_year, "days_per_year", low=1)
        if not isinstance(self.trading_costs, bool):
            raise ConfigError(f"trading_costs: expected true or false, got {self.trading_costs!r}.")
        if self.trading_costs and self.costs is None:
            raise ConfigError(f"trading_costs: the problem would pay for trades. {ASK_COSTS}")
        if self.trading_costs and title(self.decision) != "bpqp":
            raise ConfigError(
                f"trading_costs: the decision {self.decision['name']!r} does not know them; set it "
                "to false, or decide by bpqp."
            )

    @property
    def turnover_cost(self) -> float:
        """Cost of a trade in the problem, a fraction of its value; 0 without ``trading_costs``."""
        return self.costs.turnover if self.trading_costs else 0.0  # type: ignore[union-attr]


class PortfolioProblem:
    """min f_μ(w) = −μᵀw + (γ/2) wᵀΣw over 1ᵀw = 1, 0 ≤ w ≤ max_weight.

    The forecast μ is the score times ``scale``, or the normalised score times κ.

    Where a network has learned the risk, the decision minimises f with that covariance (see
    :meth:`DayBatch.with_learned_risk`); its value and regret, and the portfolio of perfect
    foresight, keep the batch's Σ. A network that could change its judge would lower its loss by
    declaring risk small.

    Parameters
    ----------
    config : :class:`ProblemConfig` or a mapping of its fields.
    score_scale : used where the configuration leaves it open.

    Attributes
    ----------
    unit : daily return that a score of 1 stands for, once normalised; κ, or ``scale``.
    """

    def __init__(self, config: ProblemConfig | dict, score_scale: float = 1.0) -> None:
        self.config = from_mapping(ProblemConfig, config, "problem")
        self.scale = self.config.score_scale or score_scale
        check_number(self.scale, "score_scale", low=0, open_low=True)
        self.unit: float | Tensor = self.config.kappa or self.scale
        limits = self.config.risk_aversion, self.config.max_weight
        how: dict[str, Any] = {"forward": self.config.solver, "tolerance": self.config.tolerance}
        self.layer = PortfolioLayer(*limits, **how)
        self._trading = PortfolioLayer(*limits, turnover_cost=self.config.turnover_cost, **how)
        self.policy = build_policy(self.config.decision)
        self._normalise = build_normalisation(self.config.normalisation)

    @property
    def costs(self) -> TradingCosts:
        """What a trade costs.

        Raises
        ------
        ConfigError
            The mandate does not state it.
        """
        if self.config.costs is None:
            raise ConfigError(f"a loss with trading costs needs them. {ASK_COSTS}")
        return self.config.costs  # type: ignore[return-value]

    @property
    def days_per_year(self) -> float:
        """Trading days that annual figures count.

        Raises
        ------
        ConfigError
            No market states them.
        """
        if self.config.days_per_year is None:
            raise ConfigError(
                "problem.days_per_year: not stated; the market's rules have it "
                "(bpqp_portfolio.markets.rules.MARKET_RULES)."
            )
        return self.config.days_per_year

    def with_signal_scale(self, log_kappa: Tensor | float | None) -> PortfolioProblem:
        """This problem with κ times exp(``log_kappa``), a tensor () where that is being learned."""
        if log_kappa is None:
            return self
        other = copy.copy(self)
        other.unit = self.unit * torch.as_tensor(log_kappa, dtype=torch.float64).exp()
        return other

    def forecast(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Expected daily returns (T, n) float64, as fractions, of the ``scores`` in ``mask``.

        Raises
        ------
        ProblemError
            A score that is not finite.
        """
        refuse_unknown(scores, mask, "scores")
        return self.unit * self._normalise(scores.double(), mask)

    def solve(
        self, scores: Tensor, batch: DayBatch, warm_start: FactorSolution | None = None
    ) -> FactorSolution:
        """What is decided on ``scores`` (T, n)."""
        return self.solve_forecast(self.forecast(scores, batch.mask), batch, warm_start)

    def solve_forecast(
        self, mu: Tensor, batch: DayBatch, warm_start: FactorSolution | None = None
    ) -> FactorSolution:
        """What is decided on expected daily returns ``mu`` (T, n).

        ``warm_start`` is an earlier solution of the same days in the same order, such as the last
        epoch's; it changes the time, not the answer.
        """
        refuse_unknown(mu, batch.mask)
        return self.policy(mu, batch.with_learned_risk(), self, warm_start)

    def solve_exactly(
        self, mu: Tensor, batch: DayBatch, warm_start: FactorSolution | None = None
    ) -> FactorSolution:
        """The minimum of f_μ with Σ at daily returns ``mu`` (T, n), whatever decides."""
        days = batch.loadings, batch.specific, batch.mask
        return self.layer.solve(mu, *days, initial_point=warm_start)

    def _trade(self, before: Tensor, mu: Tensor, batch: DayBatch) -> Tensor:
        """Weights (T, n) that pay for leaving those held ``before``."""
        days = batch.loadings, batch.specific, batch.mask
        return self._trading.solve(mu, *days, before).w

    def rollout(self, scores: Tensor, batch: DayBatch, sweeps: int | None = None) -> Tensor:
        """Weights (T, n) of consecutive days that pay c‖w − w⁰‖₁ for leaving what is held.

        w⁰ are the weights of the day before, grown by their returns (see :func:`~.drift.held`);
        the first day, and one whose day before is not in the batch, pays nothing. By default the
        days are solved one after the other, with exact gradients through time. ``sweeps`` is
        the cheaper way: all days at once, from the weights that the sweep before gave the day
        before, beginning with free trading. A day then knows of its last ``sweeps`` days, and
        T − 1 sweeps are exact; gradients go through the last sweep alone.
        """
        mu = self.forecast(scores, batch.mask)
        if not self.config.turnover_cost:
            return self.solve_forecast(mu, batch).w
        batch = batch.with_learned_risk()
        if sweeps is None:
            w: list[Tensor] = []
            for day in range(len(mu)):
                one, forecast = batch.day(day), mu[day : day + 1]
                before = held_after(w[-1], batch, day - 1) if day else None
                if before is None:
                    w.append(self.solve_exactly(forecast, one).w[0])
                else:
                    w.append(self._trade(before.unsqueeze(0), forecast, one)[0])
            return torch.stack(w)
        with torch.no_grad():
            last = self.solve_exactly(mu.detach(), batch).w
            for _ in range(sweeps - 1):
                last = self._trade(held(last, batch), mu.detach(), batch)
        return self._trade(held(last, batch), mu, batch)

    def hindsight(self, batch: DayBatch) -> FactorSolution:
        """Solution for the realised returns: what perfect foresight would have held."""
        return self.solve_exactly(batch.returns, batch)

    def objective(self, w: Tensor, mu: Tensor, batch: DayBatch) -> Tensor:
        """f_μ(w) at expected or realised returns ``mu`` (T, n), (T,), as a fraction per day."""
        exposure = (w.unsqueeze(-2).to(batch.loadings.dtype) @ batch.loadings).squeeze(-2)
        risk = (exposure * exposure).sum(-1) + (batch.specific * w * w).sum(-1)
        return -(mu * w).sum(-1) + 0.5 * self.config.risk_aversion * risk

    def value(self, w: Tensor, batch: DayBatch) -> Tensor:
        """f_y(w) at the realised returns y, (T,), as a fraction per day; smaller is better.

        With the decision's penalty where ``w`` is outside of its limits.
        """
        return self.objective(w, batch.returns, batch) + self.penalty(w)

    def realised_value(self, w: Tensor, batch: DayBatch) -> Tensor:
        """−r + (γ/2) r² at the realised return r = yᵀw, (T,), as a fraction per day.

        Its mean is that of :meth:`value` with the returns' true covariance, but for (γ/2)(μᵀw)²,
        which is small for daily returns: what a risk model got wrong shows in it.
        """
        r = (batch.returns * w).sum(-1)
        return -r + 0.5 * self.config.risk_aversion * r * r + self.penalty(w)

    def penalty(self, w: Tensor) -> Tensor:
        """What the decision pays for weights (T, n) outside of [0, max_weight], (T,), a day."""
        if not self.policy.penalty:
            return w.new_zeros(len(w))
        outside = (-w).relu() + (w - self.config.max_weight).relu()
        return self.policy.penalty * outside.square().sum(-1)

    def regret(self, w: Tensor, batch: DayBatch) -> Tensor:
        """f_y(w) − f_y(w*(y)) ≥ 0, (T,), as a fraction per day.

        Uses ``batch.oracle_value`` where it is known and solves for it otherwise.
        """
        oracle = batch.oracle_value
        if bool(torch.isnan(oracle).any()):
            with torch.no_grad():
                oracle = self.value(self.hindsight(batch).w, batch)
        return self.value(w, batch) - oracle

    @torch.no_grad()
    def fill_oracle_values(self, panel: DailyPanel, days: Tensor, rows: int = 80_000) -> None:
        """Write f_y(w*(y)) of ``days`` into ``panel.oracle_value``, whatever the network."""
        for part in panel.chunks(days, rows):
            batch = panel.batch(part, features=False)
            value = self.value(self.hindsight(batch).w, batch)
            panel.oracle_value[part] = value.to(panel.oracle_value)
