"""A real mandate: objective, constraints and costs as small objects, honest about its failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...config import check_number, lookup
from ...errors import ConfigError, SolverError
from ...layers.transforms import eager
from ...problems.solution import SolveStatus
from ..costs import TradingCosts
from .config import arguments, fallback
from .conic_fallback import conic_fallback
from .faults import faults
from .infeasibility import reason
from .market import Market
from .multipliers import Point, solve
from .qp_form import Setup
from .solution import Activity, MandateSolution, activity, unusable
from .terms import CONSTRAINTS, COSTS, Draft
from .terms.base import number, shown
from .terms.budget import Budget
from .terms.linear_cost import LinearCost

__all__ = ["Mandate", "MandateSolution", "Market"]

OBJECTIVES = ("mean_variance", "minimum_variance", "maximum_utility", "robust")


class Mandate(nn.Module):
    """min −μᵀw + (γ/2)wᵀΣw + costs, under constraints; long only and fully invested by default.

    Parameters
    ----------
    risk_aversion : γ in 1/(return per day); a number or a tensor, which carries gradients.
    constraints, costs : objects of :data:`~.constraints.CONSTRAINTS` and
        :data:`~.constraints.COSTS`; a :class:`TradingCosts` is a linear cost.
    objective : ``mean_variance``; ``minimum_variance`` (½wᵀΣw alone); ``maximum_utility``
        (μᵀw − γ wᵀΣw); ``robust`` (mean_variance less κ‖Σ^½w‖, a cone).
    kappa : κ of the robust objective, return per unit of daily risk.
    on_failure : tried in order on a day that was not solved: ``raise``; ``relax`` or
        ``{"relax": [names], "penalty": return a unit}`` for soft constraints; ``hold`` the drifted
        weights; ``equal_weights``.
    tolerance : scaled KKT residual at which a day counts as solved.

    Raises
    ------
    ConfigError
        An unknown objective, constraint or way out, or a parameter outside its range.

    Examples
    --------
    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> from bpqp_portfolio.portfolio import Groups, MaxTurnover, TradingCosts
    >>> mandate = bp.Mandate(
    ...     risk_aversion=5.0,
    ...     constraints=[Groups({"banks": 0.5}), MaxTurnover(0.05)],
    ...     costs=TradingCosts(buy=0.0005, sell=0.0015),
    ... )
    >>> print(mandate)
    maximise return - 5/2 x variance
    long only: weights >= 0
    budget: weights sum to 1
    groups: banks <= 0.5
    max_turnover 0.05
    linear_cost: buy 0.0005, sell 0.0015
    if a day fails: raise
    >>> market = bp.Market(
    ...     mu=torch.tensor([[0.004, 0.003, 0.001]]),
    ...     loadings=torch.full((1, 3, 1), 0.01),
    ...     specific=torch.full((1, 3), 1e-4),
    ...     mask=torch.ones(1, 3, dtype=torch.bool),
    ...     previous=torch.tensor([[0.2, 0.2, 0.6]]),
    ...     groups={"banks": torch.tensor([[1, 1, 0]])},
    ... )
    >>> solution = mandate.solve(market)
    >>> [[round(x, 4) for x in day] for day in solution.w.tolist()]
    [[0.25, 0.2, 0.55]]
    >>> for words, value, limit, slack, price in mandate.explain(solution, 0):
    ...     print(f"{words}, now {value:.4g}: a unit more is worth {price:.4g} a day")
    budget = 1, now 1: a unit more is worth 0.0023 a day
    max_turnover 0.05, now 0.05: a unit more is worth 0.00115 a day
    """

    def __init__(
        self,
        risk_aversion: Any = 1.0,
        constraints: Sequence[Any] = (),
        costs: Any = (),
        objective: str = "mean_variance",
        on_failure: Sequence[Any] = ("raise",),
        tolerance: float = 1e-10,
        kappa: Any = 0.0,
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            lookup(dict.fromkeys(OBJECTIVES), objective, "objective")
        number(risk_aversion, "risk_aversion", low=0, open_low=objective != "robust")
        number(kappa, "kappa", low=0, open_low=objective == "robust")
        check_number(tolerance, "tolerance", low=0, open_low=True)
        self.risk_aversion, self.kappa = risk_aversion, kappa
        self.objective, self.tolerance = objective, float(tolerance)
        costs = [costs] if isinstance(costs, TradingCosts) else list(costs)
        self.trading = next((c for c in costs if isinstance(c, TradingCosts)), None)
        terms = [LinearCost(c.buy, c.sell) if isinstance(c, TradingCosts) else c for c in costs]
        order = [*CONSTRAINTS, *COSTS]
        given = [*constraints, *terms]
        names = [term.name for term in given]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{name}: given {names.count(name)} times; give it once.")
        self.terms = sorted(given, key=lambda term: order.index(term.name))
        self.ways = [fallback(one, names) for one in on_failure]

    @property
    def costs(self) -> TradingCosts:
        """The proportional costs, for the simulator and for orders; zero where there are none."""
        if self.trading is not None:
            return self.trading
        for term in self.terms:
            if isinstance(term, LinearCost):
                return TradingCosts(float(term.buy), float(term.sell), 0.0)
        return TradingCosts(0.0, 0.0, 0.0)

    @property
    def benchmarked(self) -> bool:
        """Whether a constraint or cost rests on the benchmark's weights."""
        return any(
            getattr(t, "benchmarked", False) or getattr(t, "relative", False) for t in self.terms
        )

    @property
    def long_only(self) -> bool:
        """Whether no weight can be below zero and no more than the account is invested."""
        forced = any(t.name == "long_only" and t.limit for t in self.terms)
        short = any(getattr(t, "allows_short", False) for t in self.terms) and not forced
        return not short and not any(t.allows_leverage for t in self.terms if isinstance(t, Budget))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Mandate:
        """A mandate from a mapping: settings of the constructor, and constraints and costs by name.

        A constraint's value is its limit or a mapping of its fields; it may stand beside the
        settings or under ``constraints`` and ``costs`` (mappings, or lists of names and mappings).

        Raises
        ------
        ConfigError
            An unknown name (the nearest is named) or a bad value.
        """
        settings = arguments(config)
        try:
            return cls(**settings)
        except ConfigError as error:
            raise ConfigError(f"mandate: {error}") from error

    def extra_repr(self) -> str:
        return str(self)

    def __str__(self) -> str:
        gamma, kappa = shown(self.risk_aversion), shown(self.kappa)
        what = {
            "mean_variance": f"maximise return - {gamma}/2 x variance",
            "minimum_variance": "minimise variance",
            "maximum_utility": f"maximise return - {gamma} x variance",
            "robust": f"maximise return - {kappa} x risk - {gamma}/2 x variance",
        }[self.objective]
        defaults = {t.name for t in self.terms}
        lines = [what]
        if not defaults & {"min_weights", "long_only"}:
            lines.append("long only: weights >= 0")
        if not defaults & {"budget", "market_neutral"}:
            lines.append("budget: weights sum to 1")
        lines += [str(term) for term in self.terms]
        ways = [
            f"relax {', '.join(soft)} (a unit costs {penalty:g} of return)" if soft else way
            for way, soft, penalty in self.ways
        ]
        lines.append("if a day fails: " + ", then ".join(ways))
        return "\n".join(lines)

    def forward(self, market: Market) -> Tensor:
        """Weights (T, n), differentiable in the market and in the mandate's tensors."""
        return self.solve(market).w

    @eager
    def solve(self, market: Market) -> MandateSolution:
        """Weights with status, activity and the ways out that were taken.

        Raises
        ------
        ProblemError
            The market lacks what a constraint needs, or shapes do not match.
        SolverError
            Days that were not solved, where ``on_failure`` says to raise: their constraints that
            contradict each other.
        """
        setup, point, bad = self._point(market)
        failed = unusable(setup, point)
        T = len(failed)
        solver = ["structured"] * T
        told: dict[int, str] = {}
        if bool(failed.any()):
            point, again, told = conic_fallback(setup, point, failed, *self._weighing(setup))
            failed = failed & ~again
            for day in torch.nonzero(again).flatten().tolist():
                solver[day] = "cones"
        ways: list[str | None] = [None] * T
        reasons: list[str | None] = [None] * T
        table = activity(setup, point)
        broken = table.missed
        weights = torch.where(market.mask, point.w, 0.0)
        status = point.status
        for day in torch.nonzero(failed).flatten().tolist():
            names = [words for words, one in zip(table.words, broken[day], strict=True) if one]
            why = bad.get(day)
            reasons[day] = why or reason(setup, status, day, names, told.get(day, ""))
        blank = failed.unsqueeze(-1)
        value = table.value.masked_fill(blank, torch.nan)
        dual = table.dual.masked_fill(blank, torch.nan)
        left = failed
        for way, soft, penalty in self.ways:
            if not bool(left.any()):
                break
            if way == "raise":
                break
            stand, good, own = self._stand_in(way, soft, penalty, market)
            take = left & good
            weights = torch.where(take.unsqueeze(-1), stand, weights)
            if own is not None:
                value = torch.where(take.unsqueeze(-1), own.value, value)
                dual = torch.where(take.unsqueeze(-1), own.dual, dual)
            for day in torch.nonzero(take).flatten().tolist():
                ways[day] = way
            left = left & ~take
        if bool(left.any()):
            days = torch.nonzero(left).flatten().tolist()
            shown = "; ".join(f"day {day}: {reasons[day]}" for day in days[:5])
            raise SolverError(
                f"{len(days)} of {T} days were not solved ({shown}). Loosen a constraint, or set "
                "on_failure to relax, hold or equal_weights."
            )
        unknown = torch.zeros_like(failed)
        unknown[list(bad)] = True
        return MandateSolution(
            w=weights.to(market.mu.dtype),
            status=status,
            kkt_norm=point.kkt_norm,
            iterations=point.iterations,
            objective=self._value(setup, weights.detach()).masked_fill(unknown, torch.nan),
            labels=table.words,
            value=value,
            limit=table.limit.masked_fill(unknown.unsqueeze(-1), torch.nan),
            dual=dual,
            solver=tuple(solver),
            fallback=tuple(ways),
            reason=tuple(reasons),
        )

    def explain(self, solution: MandateSolution, day: int, *, all_rows: bool = False) -> list[Any]:
        """Rows (constraint in words, value, limit, slack, dual) of what binds on ``day``.

        The dual is the return a day that one more unit of the limit would bring.
        """
        rows = []
        for i, words in enumerate(solution.labels):
            value, limit = float(solution.value[day, i]), float(solution.limit[day, i])
            dual = float(solution.dual[day, i])
            if all_rows or abs(dual) > 0:
                rows.append((words, value, limit, abs(limit - value), dual))
        return rows

    def _draft(self, market: Market) -> Draft:
        draft = Draft.of(market)
        for term in self.terms:
            term.apply(draft)
        if market.previous is not None:
            draft.own = draft.lower, draft.upper
            held = torch.where(market.mask, market.previous.double(), 0.0)
            # What the market forbids comes before what the mandate wants.
            for flag, side in ((market.no_buy, "upper"), (market.no_sell, "lower")):
                if flag is not None:
                    draft.used.add("previous")
                    upper, lower = draft.upper, draft.lower
                    if side == "upper":
                        upper = torch.where(flag, torch.minimum(upper, held), upper)
                        lower = torch.where(flag, torch.minimum(lower, held), lower)
                    else:
                        lower = torch.where(flag, torch.maximum(lower, held), lower)
                        upper = torch.where(flag, torch.maximum(upper, held), upper)
                    draft.upper, draft.lower = upper, lower
            if market.pinned is not None:
                draft.used.add("previous")
                draft.lower = torch.where(market.pinned, held, draft.lower)
                draft.upper = torch.where(market.pinned, held, draft.upper)
        inside = market.mask
        draft.lower = torch.where(inside, draft.lower, 0.0)
        draft.upper = torch.where(inside, draft.upper, 0.0)
        return draft

    def _point(
        self, market: Market, soft: Sequence[str] = (), penalty: float = 1.0
    ) -> tuple[Setup, Point, dict[int, str]]:
        """The problem of every day, its point, and what is wrong with the data of days that have
        none; these take no part, so that they are nothing to the others."""
        setup = self._setup(market, soft, penalty)
        gamma, kappa = self._weighing(setup)
        bad = faults(setup, gamma, kappa)
        if not market.mu.shape[1]:
            bad = dict.fromkeys(range(len(gamma)), "no name in the problem")
        if not bad and len(gamma):
            return setup, solve(setup, gamma, kappa), bad
        point = Point.bad(setup)
        good = [day for day in range(len(gamma)) if day not in bad]
        if good:
            days = torch.tensor(good, device=gamma.device)
            part, own = setup.days(days, keep=True), None if kappa is None else kappa[days]
            point = point.put(days, solve(part, gamma[days], own))
        return setup, point, bad

    def _setup(self, market: Market, soft: Sequence[str] = (), penalty: float = 1.0) -> Setup:
        draft = self._draft(market)
        mu = torch.where(market.mask, market.mu.double(), 0.0)
        q = torch.zeros_like(mu) if self.objective == "minimum_variance" else -mu
        return Setup(draft, q, self.tolerance, soft, penalty)

    def _weighing(self, setup: Setup) -> tuple[Tensor, Tensor | None]:
        """Risk aversion γ (T,), and κ (T,) of the robust objective."""
        like = setup.draft.budget
        gamma = torch.as_tensor(self.risk_aversion, dtype=like.dtype, device=like.device)
        gamma = gamma.expand(like.shape)
        if self.objective == "minimum_variance":
            gamma = torch.ones_like(like)
        elif self.objective == "maximum_utility":
            gamma = 2 * gamma
        kappa = None
        if self.objective == "robust":
            kappa = torch.as_tensor(self.kappa, dtype=like.dtype, device=like.device)
            kappa = kappa.expand(like.shape)
        return gamma, kappa

    def _value(self, setup: Setup, w: Tensor) -> Tensor:
        gamma = torch.as_tensor(self.risk_aversion, dtype=w.dtype, device=w.device).detach()
        gamma = {"minimum_variance": gamma * 0 + 1, "maximum_utility": 2 * gamma}.get(
            self.objective, gamma
        )
        d, risk = setup.draft, setup.distance(w)
        trade = w - setup.previous
        total = (setup.q * w).sum(-1) + 0.5 * gamma * risk**2
        if self.objective == "robust":
            total = total + torch.as_tensor(self.kappa, dtype=w.dtype, device=w.device) * risk
        if d.buy is not None and d.sell is not None:
            total = total + (d.buy * trade.clamp_min(0) - d.sell * trade.clamp_max(0)).sum(-1)
        if d.impact is not None:
            total = total + (d.impact * trade**2).sum(-1)
        if d.penalty is not None:
            total = total + 0.5 * d.penalty * setup.distance(w, setup.bench) ** 2
        return total.detach()

    def _stand_in(
        self, way: str, soft: Sequence[str], penalty: float, market: Market
    ) -> tuple[Tensor, Tensor, Activity | None]:
        """Weights (T, n) that a way out offers, on which days (T,) it can, and what binds where it
        solves a problem; of a point that is not exact, the duals are NaN."""
        if way == "relax":
            setup, point, _ = self._point(market, soft, penalty)
            good = ~unusable(setup, point)
            table = activity(setup, point)
            inexact = (point.status != SolveStatus.SOLVED.code).unsqueeze(-1)
            table = replace(table, dual=table.dual.masked_fill(inexact, torch.nan))
            return torch.where(good.unsqueeze(-1), point.w, 0.0), good, table
        if way == "hold":
            zero = torch.zeros_like(market.mu, dtype=torch.float64)
            held = market.previous
            if held is None:
                return zero, torch.zeros(len(zero), dtype=torch.bool, device=zero.device), None
            held = torch.where(market.mask, held.double(), 0.0)
            good = torch.isfinite(held.detach()).all(-1)
            return torch.where(good.unsqueeze(-1), held, 0.0), good, None
        count = market.mask.sum(-1, keepdim=True)
        budget = self._draft(market).budget.detach().unsqueeze(-1)
        good = (count > 0) & budget.isfinite()
        equal = torch.where(market.mask & good, budget / count.clamp_min(1), 0.0)
        return equal, good.squeeze(-1), None
