"""A real mandate: objective, constraints and costs as small objects, honest about its failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import check_keys, check_number, lookup
from ..errors import ConfigError, SolverError
from ..solvers.structured import BAD_DATA, INACCURATE, INFEASIBLE
from .constraints import CONSTRAINTS, COSTS, Draft
from .constraints.budget import Budget
from .constraints.linear_cost import LinearCost
from .costs import TradingCosts
from .draft_qp import Setup
from .layer import STATUS_NAMES
from .market import Market
from .multipliers import Point, solve

__all__ = ["Mandate", "MandateSolution", "Market"]

OBJECTIVES = ("mean_variance", "minimum_variance", "maximum_utility", "robust")
WAYS = ("raise", "relax", "hold", "equal_weights")
# Duals below this share of the largest of a conflict have no part in it.
_NOISE = 1e-4
# A limit counts as kept within this, in units of one plus the limit.
_KEPT = 1e-8


@dataclass(frozen=True)
class MandateSolution:
    """Weights of a batch, and what bound on each day.

    ``w`` (T, n); ``status`` (T,) codes of :data:`~.layer.STATUS_NAMES`, of the solve that was
    wanted, whatever stands in for it; ``kkt_norm``, ``iterations``, ``objective`` (T,), the last in
    units of return and minimised; ``labels`` the c constraints in words; ``value``, ``limit`` and
    ``dual`` (T, c): the dual is what a unit of the limit is worth, in units of return, and above
    zero where the constraint binds. ``fallback`` and ``reason`` say for each day which way out was
    taken and why, None on a day that was solved.
    """

    w: Tensor
    status: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    objective: Tensor
    labels: tuple[str, ...]
    value: Tensor
    limit: Tensor
    dual: Tensor
    fallback: tuple[str | None, ...]
    reason: tuple[str | None, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How often each way out was taken."""
        used = [one for one in self.fallback if one]
        return {name: used.count(name) for name in sorted(set(used))}


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
        if not isinstance(risk_aversion, Tensor):
            check_number(risk_aversion, "risk_aversion", low=0, open_low=objective != "robust")
        if not isinstance(kappa, Tensor):
            check_number(kappa, "kappa", low=0, open_low=objective == "robust")
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
        self.ways = [_way(one, names) for one in on_failure]

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
        settings = ("risk_aversion", "objective", "on_failure", "tolerance", "kappa")
        known = {**CONSTRAINTS, **COSTS}
        check_keys(config, [*settings, "constraints", "costs", *known], "mandate")
        options = {k: config[k] for k in settings if k in config}
        if isinstance(options.get("on_failure"), str | Mapping):
            options["on_failure"] = [options["on_failure"]]
        parts = {k: v for k, v in config.items() if k in known}
        money: dict[str, Any] = {}
        for block, registry in (("constraints", CONSTRAINTS), ("costs", COSTS)):
            own = _named(config.get(block), block)
            if block == "costs" and own and set(own) <= {"buy", "sell", "minimum"}:
                money = own
                continue
            check_keys(own, registry, f"mandate.{block}")
            parts |= own
        terms = [_term(name, known[name], value) for name, value in parts.items()]
        costs = [TradingCosts(**money)] if money else []
        try:
            return cls(
                constraints=[t for t in terms if t.name in CONSTRAINTS],
                costs=[*costs, *(t for t in terms if t.name in COSTS)],
                **options,
            )
        except ConfigError as error:
            raise ConfigError(f"mandate: {error}") from error

    def extra_repr(self) -> str:
        return str(self)

    def __str__(self) -> str:
        gamma = float(torch.as_tensor(self.risk_aversion).detach())
        what = {
            "mean_variance": f"maximise return - {gamma:g}/2 x variance",
            "minimum_variance": "minimise variance",
            "maximum_utility": f"maximise return - {gamma:g} x variance",
            "robust": f"maximise return - {float(torch.as_tensor(self.kappa)):g} x risk"
            f" - {gamma:g}/2 x variance",
        }[self.objective]
        defaults = {t.name for t in self.terms}
        lines = [what]
        if not defaults & {"min_weights", "long_only"}:
            lines.append("long only: weights >= 0")
        if not defaults & {"budget", "market_neutral"}:
            lines.append("budget: weights sum to 1")
        lines += [str(term) for term in self.terms]
        lines.append("if a day fails: " + ", then ".join(way for way, *_ in self.ways))
        return "\n".join(lines)

    def forward(self, market: Market) -> Tensor:
        """Weights (T, n), differentiable in the market and in the mandate's tensors."""
        return self.solve(market).w

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
        setup = self._setup(market)
        point = self._solved(setup)
        status = point.status
        failed = (status > INACCURATE) | ~torch.isfinite(point.w.detach()).all(-1)
        T = len(status)
        ways: list[str | None] = [None] * T
        reasons: list[str | None] = [None] * T
        table = _activity(setup, point)
        missed = _missed(*table[:3])
        # A point that is not exact will do where it keeps the limits.
        failed |= (status == INACCURATE) & missed.any(-1)
        weights = torch.where(market.mask, point.w, 0.0)
        status = torch.where(failed & (status <= INACCURATE), torch.full_like(status, 4), status)
        for day in torch.nonzero(failed).flatten().tolist():
            broken = [words for words, one in zip(table[0], missed[day], strict=True) if one]
            reasons[day] = self._reason(setup, point, status, day, broken)
        left = failed
        for way, soft, penalty in self.ways:
            if not bool(left.any()):
                break
            if way == "raise":
                break
            stand, good = self._stand_in(way, soft, penalty, market)
            take = left & good
            weights = torch.where(take.unsqueeze(-1), stand, weights)
            for day in torch.nonzero(take).flatten().tolist():
                ways[day] = way
            left = left & ~take
        if bool(left.any()):
            days = torch.nonzero(left).flatten().tolist()
            told = "; ".join(f"day {day}: {reasons[day]}" for day in days[:5])
            raise SolverError(
                f"{len(days)} of {T} days were not solved ({told}). Loosen a constraint, or set "
                "on_failure to relax, hold or equal_weights."
            )
        labels, value, limit, dual = table
        blank = failed.unsqueeze(-1)
        return MandateSolution(
            w=weights.to(market.mu.dtype),
            status=status,
            kkt_norm=point.kkt_norm,
            iterations=point.iterations,
            objective=self._value(setup, weights.detach()),
            labels=labels,
            value=value.masked_fill(blank, torch.nan),
            limit=limit,
            dual=dual.masked_fill(blank, torch.nan),
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
            held = torch.where(market.mask, market.previous.double(), 0.0)
            # What the market forbids comes before what the mandate wants.
            for flag, side in ((market.no_buy, "upper"), (market.no_sell, "lower")):
                if flag is not None:
                    upper, lower = draft.upper, draft.lower
                    if side == "upper":
                        upper = torch.where(flag, torch.minimum(upper, held), upper)
                        lower = torch.where(flag, torch.minimum(lower, held), lower)
                    else:
                        lower = torch.where(flag, torch.maximum(lower, held), lower)
                        upper = torch.where(flag, torch.maximum(upper, held), upper)
                    draft.upper, draft.lower = upper, lower
            if market.pinned is not None:
                draft.lower = torch.where(market.pinned, held, draft.lower)
                draft.upper = torch.where(market.pinned, held, draft.upper)
        inside = market.mask
        draft.lower = torch.where(inside, draft.lower, 0.0)
        draft.upper = torch.where(inside, draft.upper, 0.0)
        return draft

    def _setup(self, market: Market, soft: Sequence[str] = (), penalty: float = 1.0) -> Setup:
        draft = self._draft(market)
        mu = torch.where(market.mask, market.mu.double(), 0.0)
        q = torch.zeros_like(mu) if self.objective == "minimum_variance" else -mu
        return Setup(draft, q, self.tolerance, soft, penalty)

    def _solved(self, setup: Setup) -> Point:
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
        return solve(setup, gamma, kappa)

    def _value(self, setup: Setup, w: Tensor) -> Tensor:
        gamma = torch.as_tensor(self.risk_aversion, dtype=w.dtype, device=w.device).detach()
        gamma = {"minimum_variance": gamma * 0 + 1, "maximum_utility": 2 * gamma}.get(
            self.objective, gamma
        )
        d, risk = setup.draft, setup.distance(w)
        trade = w - setup.previous
        total = (setup.q * w).sum(-1) + 0.5 * gamma * risk**2
        if self.objective == "robust":
            total = total + torch.as_tensor(self.kappa) * risk
        if d.buy is not None and d.sell is not None:
            total = total + (d.buy * trade.clamp_min(0) - d.sell * trade.clamp_max(0)).sum(-1)
        if d.impact is not None:
            total = total + (d.impact * trade**2).sum(-1)
        if d.penalty is not None:
            total = total + 0.5 * d.penalty * setup.distance(w, setup.bench) ** 2
        return total.detach()

    def _stand_in(
        self, way: str, soft: Sequence[str], penalty: float, market: Market
    ) -> tuple[Tensor, Tensor]:
        """Weights (T, n) that a way out offers, and on which days (T,) it can."""
        if way == "relax":
            point = self._solved(self._setup(market, soft, penalty))
            good = (point.status <= INACCURATE) & torch.isfinite(point.w.detach()).all(-1)
            return torch.where(good.unsqueeze(-1), point.w, 0.0), good
        if way == "hold":
            zero = torch.zeros_like(market.mu, dtype=torch.float64)
            held = market.previous
            if held is None:
                return zero, torch.zeros_like(zero[:, 0], dtype=torch.bool)
            held = torch.where(market.mask, held.double(), 0.0)
            good = torch.isfinite(held.detach()).all(-1)
            return torch.where(good.unsqueeze(-1), held, 0.0), good
        count = market.mask.sum(-1, keepdim=True)
        budget = self._draft(market).budget.detach().unsqueeze(-1)
        return market.mask * budget / count.clamp_min(1), count.squeeze(-1) > 0

    def _reason(
        self, setup: Setup, point: Point, status: Tensor, day: int, broken: Sequence[str]
    ) -> str:
        """Why ``day`` was not solved, in the constraints' words; ``broken`` are those it misses."""
        d, code = setup.draft, int(status[day])
        inside = setup.mask[day]
        if not bool(inside.any()):
            return "no name in the problem"
        crossed = (d.lower[day] > d.upper[day]) & inside
        if bool(crossed.any()):
            names = setup.draft.market.names
            first = int(torch.nonzero(crossed)[0])
            who = first if names is None else names[first]
            return f"{d.lower_words} cannot meet {d.upper_words} for name {who}"
        if code == BAD_DATA:
            fields = {"mu": setup.q, "loadings": setup.loadings, "specific": setup.specific}
            bad = [k for k, v in fields.items() if not bool(v[day].isfinite().all())]
            bad += [] if bool((setup.specific[day] >= 0).all()) else ["specific (below zero)"]
            return "bad data in " + (", ".join(bad) or "bounds or previous weights")
        if code != INFEASIBLE:
            return STATUS_NAMES[code] + (f", missing {' and '.join(broken)}" if broken else "")
        words = [
            (float(point.tracking[day]), d.tracking_words),
            (float(point.turnover[day]), d.turnover_words),
            (float(point.leverage[day]), d.leverage_words),
            *((float(v), w) for v, w in zip(point.rows[day], setup.words, strict=True)),
        ]
        fixed = torch.zeros_like(inside)
        if d.market.pinned is not None:
            fixed = d.market.pinned[day] & inside
        for dual, text in ((point.lower[day], d.lower_words), (point.upper[day], d.upper_words)):
            words.append((float(torch.where(fixed | ~inside, 0.0, dual).abs().max()), text))
        both = point.lower[day] + point.upper[day]
        words.append((float(torch.where(fixed, both, 0.0).abs().max()), "names that cannot trade"))
        words.append((abs(float(point.budget[day])), d.budget_words))
        largest = max(value for value, _ in words)
        found = [text for value, text in words if value > _NOISE * largest]
        if not found:
            # No certificate: what the last point misses, or all that was asked.
            asked = broken or [text for _, text in words if text]
            return "no weights were found that meet " + " and ".join(asked)
        if len(found) < 2:
            return " and ".join(found) + " cannot be met"
        return f"{found[0]} cannot meet {' and '.join(found[1:])}"


def _way(one: Any, names: Sequence[str]) -> tuple[str, tuple[str, ...], float]:
    """A way out, its soft constraints and their penalty."""
    soft: Any = ()
    penalty = 1.0
    if isinstance(one, Mapping):
        check_keys(one, ("relax", "penalty"), "on_failure")
        soft, penalty = one.get("relax", ()), one.get("penalty", 1.0)
        soft = (soft,) if isinstance(soft, str) else tuple(soft)
        for name in soft:
            lookup(dict.fromkeys(names), name, "soft constraint")
        one = "relax"
    check_number(penalty, "on_failure.penalty", low=0, open_low=True)
    lookup(dict.fromkeys(WAYS), one, "way out")
    able = ("groups", "exposures", "max_turnover", "max_leverage", "max_tracking_error")
    if one == "relax":
        soft = soft or tuple(name for name in names if name in able)
        for name in soft:
            lookup(dict.fromkeys(able), name, "constraint that can be relaxed")
    return one, tuple(soft), float(penalty)


def _named(block: Any, where: str) -> dict[str, Any]:
    """name → value from a mapping or a list of names and mappings."""
    if block is None:
        return {}
    if isinstance(block, Mapping):
        return dict(block)
    if not isinstance(block, list | tuple):
        raise ConfigError(f"mandate.{where}: expected a mapping or a list, got {block!r}.")
    out: dict[str, Any] = {}
    for one in block:
        out |= {one: {}} if isinstance(one, str) else dict(one)
    return out


def _term(name: str, cls: Any, value: Any) -> Any:
    """The constraint or cost ``name`` from its limit or the mapping of its fields."""
    fields = list(cls.__dataclass_fields__)
    fields.remove("name")
    try:
        if (isinstance(value, Mapping) and set(value) & set(fields)) or value == {}:
            check_keys(value, fields, name)
            return cls(**value)
        if "limit" not in fields:
            check_keys(value, fields, name)
        return cls(dict(value) if isinstance(value, Mapping) else value)
    except TypeError as error:
        raise ConfigError(f"mandate.{name}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"mandate.{error}") from error


def _missed(words: Sequence[str], value: Tensor, limit: Tensor) -> Tensor:
    """Which constraints of :func:`_activity` the day's point does not keep, (T, c) bool."""
    over = value - limit
    floor = torch.tensor([i == 1 or ">=" in one for i, one in enumerate(words)])
    over = torch.where(floor, -over, over)
    over[:, 0] = over[:, 0].abs()
    return over > _KEPT * (1 + limit.abs())


def _activity(setup: Setup, point: Point) -> tuple[tuple[str, ...], Tensor, Tensor, Tensor]:
    """Words, and value, limit and dual (T, c) of every constraint."""
    d, w = setup.draft, point.w.detach()
    total = w.sum(-1)
    columns: list[tuple[str, Tensor, Tensor, Tensor]] = [
        (d.budget_words, total, d.budget, point.budget)
    ]
    far = torch.where(setup.mask, w, torch.inf).amin(-1), torch.where(setup.mask, w, -1e9).amax(-1)
    low = torch.where(setup.mask, d.lower, torch.inf).amin(-1)
    high = torch.where(setup.mask, d.upper, -torch.inf).amax(-1)
    columns.append((d.lower_words, far[0], low, point.lower.sum(-1)))
    columns.append((d.upper_words, far[1], high, point.upper.sum(-1)))
    used = (setup.G * w.unsqueeze(1)).sum(-1)
    for i, words in enumerate(setup.words):
        sign = -1.0 if ">=" in words else 1.0
        columns.append((words, sign * used[:, i], sign * setup.h[:, i], point.rows[:, i]))
    if d.turnover is not None:
        moved = 0.5 * (w - setup.previous).abs().sum(-1)
        columns.append((d.turnover_words, moved, d.turnover, point.turnover))
    if d.leverage is not None and setup.by_leverage:
        columns.append((d.leverage_words, w.abs().sum(-1), d.leverage, point.leverage))
    if d.tracking is not None:
        unit = d.tracking_unit
        error = setup.distance(w, setup.bench)
        columns.append((d.tracking_words, error * unit, d.tracking * unit, point.tracking))
    words, *parts = zip(*columns, strict=True)
    value, limit, dual = (torch.stack([p.detach() for p in part], -1) for part in parts)
    return tuple(words), value, limit, dual
