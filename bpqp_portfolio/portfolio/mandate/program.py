"""A mandate's program: the typed parts of all its terms on a batch of days, built once.

    min ½ γ wᵀΣw + qᵀw + κ‖Σ^½w‖ + Σ ½ weight · form(w) + buyᵀ(w−w⁰)₊ + sellᵀ(w⁰−w)₊
    s.t. budget, bounds, rows, rows of trades, cones

:class:`~.qp_form.QPForm` and :class:`~.conic_form.ConicForm` are its forms for solvers;
:func:`~.solve.solve` finds its point, and :mod:`.explain` says what that comes to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from .market import Market
from .objective import Objective
from .parts import Bound, Cone, Constraint, Form, Of, Part, Quadratic, Row, Sense, Trading, mapped
from .terms.base import MarketView, Term, risk_of


@dataclass(frozen=True, eq=False)
class MandateProgram:
    """The program of T days and n names; every tensor leads with the days.

    ``q``, ``previous`` (T, n), the last 0 where nothing rests on it, ``held`` (T, n) the market's
    own or None; ``risk`` the form wᵀΣw; ``gamma``, ``kappa`` (T,), κ None without a robust term;
    ``lower``, ``upper`` (T, n) what ``bounds`` and the market leave of each weight, and
    ``stuck_lower``, ``stuck_upper`` (T, n) where the market decides that. ``legs``: some weight may
    be short and a row limits sizes. Rows and cones of terms in ``soft`` may be missed, a unit of
    their limit at the price ``penalty``. ``used`` are the market's fields that it rests on.
    """

    names: Sequence[Any] | None
    mask: Tensor
    q: Tensor
    risk: Form
    gamma: Tensor
    kappa: Tensor | None
    previous: Tensor
    held: Tensor | None
    budget: Row
    bounds: tuple[Bound, ...]
    lower: Tensor
    upper: Tensor
    stuck_lower: Tensor
    stuck_upper: Tensor
    rows: tuple[Row, ...]
    trades: tuple[Row, ...]
    cones: tuple[Cone, ...]
    costs: tuple[Quadratic, ...]
    trading: tuple[Trading, ...]
    legs: bool
    tolerance: float
    soft: frozenset[str] = frozenset()
    penalty: float = 1.0
    used: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def build(
        cls,
        market: Market,
        terms: Iterable[Term],
        objective: Objective,
        gamma: Any,
        kappa: Any,
        tolerance: float,
    ) -> MandateProgram:
        """The program of ``terms`` on ``market``, at risk aversion ``gamma`` and ``kappa`` of a
        robust objective: numbers or tensors (T,), which carry gradients.

        Raises
        ------
        ProblemError
            The market lacks what a term needs, or shapes do not match.
        ConfigError
            Two terms fix the budget.
        """
        view = MarketView(market)
        parts = [part for term in terms for part in term.parts(view)]
        # Step 1: what holds without being said.
        bounds, budget = _bounds(parts, view), _budget(parts, view)
        # Step 2: bounds of each name, and what the market forbids, which comes first.
        own = tightest(bounds, view.zero)
        lower, upper, stuck_lower, stuck_upper = _forbidden(market, view, *own)
        # Step 3: rows by what they are sums over.
        rows = [part for part in parts if isinstance(part, Row) and part.sense is not Sense.EQUAL]
        for part in parts:
            _check(part, view)
        # Step 4: the objective.
        loadings, specific = risk_of(market)
        mu = torch.where(market.mask, market.mu.double(), 0.0)
        day = view.zero.new_ones(len(mu))
        aversion = view.per_day(gamma, "risk_aversion") if objective.returns else day
        held = None if market.previous is None else market.needed("previous", "mandate")
        return cls(
            names=market.names,
            mask=market.mask,
            q=-mu if objective.returns else torch.zeros_like(mu),
            risk=Form(loadings, specific, risk=True),
            gamma=objective.variance * aversion,
            kappa=view.per_day(kappa, "kappa") if objective.robust else None,
            previous=held if held is not None and "previous" in view.used else view.zero,
            held=held,
            budget=budget,
            bounds=bounds,
            lower=lower,
            upper=upper,
            stuck_lower=stuck_lower,
            stuck_upper=stuck_upper,
            rows=tuple(row for of in (Of.WEIGHTS, Of.GROSS) for row in rows if row.of is of),
            trades=tuple(row for row in rows if row.of is Of.TRADES),
            cones=tuple(part for part in parts if isinstance(part, Cone)),
            costs=tuple(part for part in parts if isinstance(part, Quadratic)),
            trading=tuple(part for part in parts if isinstance(part, Trading)),
            legs=any(row.of is Of.GROSS for row in rows) and not bool((lower >= 0).all()),
            tolerance=tolerance,
            used=frozenset(view.used),
        )

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """All of them in the order in which they are reported, the budget first."""
        return (self.budget, *self.bounds, *self.rows, *self.trades, *self.cones)

    @cached_property
    def rates(self) -> tuple[Tensor, Tensor] | None:
        """Costs (T, n) of buying and of selling a unit of weight; None where trading is free."""
        if not self.trading:
            return None
        return sum_of(t.buy for t in self.trading), sum_of(t.sell for t in self.trading)

    def softened(self, soft: Collection[str], penalty: float) -> MandateProgram:
        """The program in which the limits of the terms ``soft`` may be missed at ``penalty``."""
        return replace(self, soft=frozenset(soft), penalty=penalty)

    def days(self, index: Tensor, *, keep: bool = False) -> MandateProgram:
        """The program of some days, without gradients unless they are to be kept."""
        seen: dict[int, Tensor] = {}

        def some(value: Tensor) -> Tensor:
            if id(value) not in seen:
                seen[id(value)] = (value if keep else value.detach())[index]
            return seen[id(value)]

        return mapped(self, some)

    def value(self, w: Tensor) -> Tensor:
        """What is minimised (T,), in units of return, at weights (T, n); without gradients."""
        risk, trade = self.risk.norm(w), w - self.previous
        total = (self.q * w).sum(-1) + 0.5 * self.gamma * risk**2
        if self.kappa is not None:
            total = total + self.kappa * risk
        if self.rates is not None:
            buy, sell = self.rates
            total = total + (buy * trade.clamp_min(0) - sell * trade.clamp_max(0)).sum(-1)
        for cost in self.costs:
            total = total + 0.5 * cost.weight * cost.form.square(w)
        return total.detach()


def _check(part: Part, view: MarketView) -> None:
    """Refuse a row that is not convex; what is about trades needs the weights held now."""
    sized = isinstance(part, Row) and part.of is not Of.WEIGHTS
    if isinstance(part, Row) and sized and part.sense is not Sense.UPPER:
        raise ConfigError(f"{part.label}: sizes and trades can have an upper limit alone.")
    if isinstance(part, Trading) or (isinstance(part, Row) and part.of is Of.TRADES):
        view.needed("previous", part.term)


def tightest(bounds: Iterable[Bound], like: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (T, n) of all ``bounds`` together, infinite where there are none."""
    lower, upper = torch.full_like(like, -torch.inf), torch.full_like(like, torch.inf)
    for bound in bounds:
        lower = lower if bound.lower is None else torch.maximum(lower, bound.lower)
        upper = upper if bound.upper is None else torch.minimum(upper, bound.upper)
    return lower, upper


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Their sum; there is at least one."""
    first, *others = values
    for one in others:
        first = first + one
    return first


def _bounds(parts: Sequence[Part], view: MarketView) -> tuple[Bound, ...]:
    """Bounds from below, from above, and on both sides, with 0 and 1 where no term says them."""
    given = [part for part in parts if isinstance(part, Bound)]
    lower = [b for b in given if b.upper is None]
    upper = [b for b in given if b.lower is None]
    unit = "fraction of the account"
    if not any(b.base for b in lower):
        lower.insert(0, Bound("long_only", "long only: weights >= 0", unit, lower=view.zero))
    if not any(b.base for b in upper):
        upper.insert(0, Bound("max_weights", "weights <= 1", unit, upper=view.zero + 1.0))
    return (*lower, *upper, *(b for b in given if b.lower is not None and b.upper is not None))


def _budget(parts: Sequence[Part], view: MarketView) -> Row:
    given = [part for part in parts if isinstance(part, Row) and part.sense is Sense.EQUAL]
    if len(given) > 1:
        labels = " and ".join(repr(row.label) for row in given)
        raise ConfigError(f"{labels} both fix the sum of the weights; give one of them.")
    if given:
        return given[0]
    head = "budget", "budget = 1", "fraction of the account"
    return Row(*head, view.zero + 1.0, view.per_day(1.0, "budget"), Sense.EQUAL)


def _forbidden(
    market: Market, view: MarketView, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bounds (T, n) with what the market forbids, and where it is the market that decides."""
    none = torch.zeros_like(market.mask)
    own = lower, upper
    flags = {name: getattr(market, name) for name in ("no_buy", "no_sell", "pinned")}
    held = view.previous if any(flag is not None for flag in flags.values()) else None
    if held is not None:
        if flags["no_buy"] is not None:
            upper = torch.where(flags["no_buy"], torch.minimum(upper, held), upper)
            lower = torch.where(flags["no_buy"], torch.minimum(lower, held), lower)
        if flags["no_sell"] is not None:
            lower = torch.where(flags["no_sell"], torch.maximum(lower, held), lower)
            upper = torch.where(flags["no_sell"], torch.maximum(upper, held), upper)
        if flags["pinned"] is not None:
            lower = torch.where(flags["pinned"], held, lower)
            upper = torch.where(flags["pinned"], held, upper)
    pinned = none if flags["pinned"] is None else flags["pinned"]
    stuck = [
        (pinned | (now != mine)) & market.mask
        for now, mine in zip((lower, upper), own, strict=True)
    ]
    lower, upper = (torch.where(market.mask, bound, 0.0) for bound in (lower, upper))
    return lower, upper, stuck[0], stuck[1]
