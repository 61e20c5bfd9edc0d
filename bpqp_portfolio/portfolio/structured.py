"""A draft as batched factor QPs: buys and sales apart, soft rows, cones by their multiplier."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import ProblemError
from ..layers.factor import factor_qp
from ..solvers.structured import INACCURATE, INFEASIBLE, SOLVED, FactorSolution
from .constraints import Draft

# Curvature of a slack, so that its optimum is unique, and how far a multiplier may go.
_SLACK_CURVATURE, _STEPS, _WIDEST = 1e-6, 60, 1e9
_NEAR = 1e-11


@dataclass
class Point:
    """Weights (T, n) with the raw solution, and duals by kind in units of return."""

    w: Tensor
    raw: FactorSolution
    rows: Tensor
    turnover: Tensor
    leverage: Tensor
    lower: Tensor
    upper: Tensor
    budget: Tensor
    theta: Tensor
    slack: Tensor


@dataclass
class Setup:
    """One draft, ready to be solved at any risk aversion γ (T,) and tracking multiplier θ (T,).

    With a limit of turnover or leverage the variables are buys b and sales s, w = r + b − s with
    r = w⁰ or 0. Since d(b² + s²) ≥ d(b − s)² with equality where one of the two is zero, the split
    problem keeps its diagonal and has the same optimum; the limit is the row 1ᵀ(b + s) ≤ limit.
    Rows in ``soft`` get a slack at the price ``penalty``.
    """

    draft: Draft
    q: Tensor
    tolerance: float
    soft: Collection[str] = ()
    penalty: float = 1.0

    def __post_init__(self) -> None:
        d, market = self.draft, self.draft.market
        self.mask = market.mask
        self.loadings = torch.where(self.mask.unsqueeze(-1), market.loadings.double(), 0.0)
        self.specific = torch.where(self.mask, market.specific.double(), 0.0)
        zero = torch.zeros_like(self.specific)
        has = market.previous is not None
        self.previous = torch.where(self.mask, market.previous.double(), 0.0) if has else zero
        benched = market.benchmark is not None
        self.bench = market.needed("benchmark", "mandate") if benched else zero
        long_only = bool((d.lower >= 0).all())
        if d.leverage is not None and not long_only and d.turnover is not None:
            raise ProblemError(
                "max_leverage with max_turnover: short positions under both are not supported "
                "together; use a linear_cost in place of the turnover limit."
            )
        self.by_leverage = d.leverage is not None and not long_only
        if self.by_leverage and d.buy is not None:
            raise ProblemError(
                "max_leverage with linear_cost: short positions under both are not supported "
                "together; use a quadratic_cost."
            )
        self.split = d.turnover is not None or self.by_leverage
        names = [*(m for m, *_ in d.rows)]
        matrices, limits = [m for _, m, _ in d.rows], [h for *_, h in d.rows]
        if d.leverage is not None and long_only:
            matrices.append(torch.ones_like(zero))
            limits.append(d.leverage)
            names.append(d.leverage_words)
        self.words = names
        T, n = zero.shape
        self.G = torch.stack(matrices, 1) if matrices else zero.new_zeros(T, 0, n)
        self.h = torch.stack(limits, 1) if limits else zero.new_zeros(T, 0)

    def take(self, draft: Draft, q: Tensor) -> Setup:
        """The same settings for another draft."""
        return Setup(draft, q, self.tolerance, self.soft, self.penalty)

    def is_soft(self, words: str) -> bool:
        """Whether the constraint is one that may be relaxed."""
        return any(words.split(":")[0].split(" ")[0] == name for name in self.soft)

    def distance(self, w: Tensor, centre: Tensor | float = 0.0) -> Tensor:
        """‖Σ^½(w − centre)‖ (T,), per day."""
        e = torch.where(self.mask, w - centre, 0.0)
        x = (self.loadings * e.unsqueeze(-1)).sum(-2)
        square = (x * x).sum(-1) + (self.specific * e * e).sum(-1)
        return square.clamp_min(1e-300).sqrt()

    def times(self, w: Tensor) -> Tensor:
        """Σw (T, n)."""
        x = (self.loadings * w.unsqueeze(-1)).sum(-2, keepdim=True)
        return (self.loadings * x).sum(-1) + self.specific * w

    def solve(self, gamma: Tensor, theta: Tensor) -> Point:
        """The QP at ½ wᵀ(γΣ)w + ½θ(w−w_b)ᵀΣ(w−w_b) and the draft's other terms."""
        d, T = self.draft, len(self.q)
        n = self.q.shape[1]
        scale = (gamma + theta).unsqueeze(-1)
        loadings = self.loadings * scale.clamp_min(0).sqrt().unsqueeze(-1)
        specific = self.specific * scale
        q = self.q - theta.unsqueeze(-1) * self.times(self.bench)
        if d.impact is not None:
            specific = specific + 2 * d.impact
            q = q - 2 * d.impact * self.previous
        G, h = self.G, self.h
        mask, lower, upper = self.mask, d.lower, d.upper
        ones = torch.ones_like(q)
        A, b = ones.unsqueeze(1), d.budget.unsqueeze(-1)
        cost = reference = None
        r = torch.zeros_like(q)
        if self.split:
            r = r if self.by_leverage else self.previous
            at_r = (loadings * (loadings * r.unsqueeze(-1)).sum(-2, keepdim=True)).sum(-1)
            tilt = q + at_r + specific * r
            buy = 0.0 if d.buy is None else d.buy
            sell = 0.0 if d.sell is None else d.sell
            q = torch.cat([tilt + buy, sell - tilt], -1)
            loadings = torch.cat([loadings, -loadings], 1)
            specific = torch.cat([specific, specific], -1)
            G = torch.cat([G, -G], -1)
            h = h - (self.G * r.unsqueeze(1)).sum(-1)
            A, b = torch.cat([A, -A], -1), b - r.sum(-1, keepdim=True)
            limit = d.leverage if self.by_leverage else 2 * d.turnover
            both = torch.ones_like(q).unsqueeze(1)
            G, h = torch.cat([G, both], 1), torch.cat([h, limit.unsqueeze(-1)], -1)
            zero = torch.zeros_like(r)
            up, down = torch.maximum(upper - r, zero), torch.maximum(r - lower, zero)
            upper = torch.cat([up, down], -1)
            lower = torch.cat(
                [torch.maximum(lower - r, zero), torch.maximum(r - d.upper, zero)], -1
            )
            mask = torch.cat([mask, mask], -1)
        elif d.buy is not None:
            cost, reference = 0.5 * (d.buy + d.sell), self.previous
            q = q + 0.5 * (d.buy - d.sell)
        words = [*self.words]
        if self.split:
            words.append(d.leverage_words if self.by_leverage else d.turnover_words)
        soft = [i for i, one in enumerate(words) if self.is_soft(one)]
        if soft:
            m = len(soft)
            pad = torch.nn.functional.pad
            slack = G.new_zeros(T, G.shape[1], m)
            slack[:, soft, range(m)] = -1.0
            G, A = torch.cat([G, slack], -1), pad(A, (0, m))
            q, specific = pad(q, (0, m), value=self.penalty), pad(specific, (0, m), value=0.0)
            specific = torch.cat(
                [specific[:, :-m], specific.new_full((T, m), _SLACK_CURVATURE * self.penalty)], -1
            )
            loadings = pad(loadings, (0, 0, 0, m))
            lower, upper = pad(lower, (0, m)), pad(upper, (0, m), value=10.0)
            mask = pad(mask, (0, m), value=True)
            if cost is not None and reference is not None:
                cost, reference = pad(cost, (0, m)), pad(reference, (0, m))
        plain = not self.split and not soft
        raw = factor_qp(
            q,
            loadings,
            specific,
            lower=lower,
            upper=upper,
            budget=d.budget if plain else None,
            equalities=None if plain else (A, b),
            inequalities=(G, h) if G.shape[1] else None,
            cost=cost,
            reference=reference,
            mask=mask,
            tolerance=self.tolerance,
            throw=False,
        )
        z = raw.w
        lam, lb, ub = raw.lam, raw.lam_lb, raw.lam_ub
        used = z[:, -len(soft) :].detach() if soft else z.new_zeros(T, 0)
        none = torch.zeros_like(d.budget)
        turnover = leverage = none
        w = z[:, :n]
        if self.split:
            w = r + z[:, :n] - z[:, n : 2 * n]
            last = lam[:, -1]
            turnover, leverage = (none, last) if self.by_leverage else (2 * last, none)
            lam = lam[:, :-1]
            own = lower[:, : 2 * n].gt(0)
            lb, ub = (
                torch.where(own[:, :n], lb[:, :n], 0.0)
                + torch.where(r > d.lower, ub[:, n : 2 * n], 0.0),
                torch.where(own[:, n:], lb[:, n : 2 * n], 0.0)
                + torch.where(r < d.upper, ub[:, :n], 0.0),
            )
            inside = torch.minimum(torch.maximum(w.detach(), d.lower.detach()), d.upper.detach())
            w = torch.where(self.mask, w + (inside - w.detach()), 0.0)
        nu = raw.nu if plain else raw.nu_rows[:, 0]
        return Point(w, raw, lam, turnover, leverage, lb[:, :n], ub[:, :n], nu, none, used)


def solve_with_cones(
    setup: Setup, gamma: Tensor, kappa: Tensor | None
) -> tuple[Point, Tensor, Tensor]:
    """The point, its status (T,) and which days (T,) cannot keep the tracking-error limit.

    A cone has one multiplier t: θ of the tracking error, or κ/‖Σ^½w‖ that the robust term adds to
    γ. Its equation is monotone in t and is solved by Newton's method within a bracket, all days at
    once. The gradient is that of one more Newton step at the solution (implicit function theorem).

    Raises
    ------
    ProblemError
        A tracking-error limit together with the robust objective.
    """
    tracking = setup.draft.tracking
    if tracking is not None and setup.is_soft(setup.draft.tracking_words):
        weight = gamma * 0 + 1e3 * setup.penalty
        point = setup.solve(gamma, weight + _penalty(setup))
        return point, point.raw.status, torch.zeros_like(gamma, dtype=torch.bool)
    base = _penalty(setup)
    if kappa is not None and tracking is not None:
        raise ProblemError(
            "max_tracking_error with the robust objective: not supported together; use a "
            "tracking_penalty."
        )
    if tracking is None and kappa is None:
        point = setup.solve(gamma, base)
        return point, point.raw.status, torch.zeros_like(gamma, dtype=torch.bool)

    def at(t: Tensor) -> Point:
        return setup.solve(gamma + t, base) if kappa is not None else setup.solve(gamma, base + t)

    def gap(t: Tensor, w: Tensor) -> Tensor:
        """Positive where t must rise; a relative figure that is nearly linear in t."""
        if kappa is not None:
            return kappa / setup.distance(w) - t
        assert tracking is not None
        return setup.distance(w, setup.bench) / tracking - 1.0

    start = torch.zeros_like(gamma)
    with torch.no_grad():
        first = at(start + (1e-3 if kappa is not None else 0.0))
        usable = first.raw.status <= INACCURATE
        g = gap(start, first.w)
        need = usable & (g > _NEAR)
        unreachable = torch.zeros_like(usable)
        t = start.clone()
        if kappa is not None:
            t = torch.where(usable, kappa / setup.distance(first.w), start)
    if bool(need.any()):
        low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
        scale = gamma.detach().clamp_min(1.0)
        if kappa is None:
            t = torch.where(need, scale * g.clamp(1e-3, 10.0), t)
        open_ = need.clone()
        for _ in range(_STEPS):
            days = torch.nonzero(open_).squeeze(-1)
            sub = _sub(setup, days)
            td = t[days].clone().requires_grad_()
            with torch.enable_grad():
                ga, ba = gamma.detach()[days], base.detach()[days]
                point = sub.solve(ga + td, ba) if kappa is not None else sub.solve(ga, ba + td)
                w = point.w
                if kappa is not None:
                    value = kappa.detach()[days] / sub.distance(w) - td
                else:
                    assert tracking is not None
                    dist = sub.distance(w, sub.bench) / tracking.detach()[days]
                    # 1/distance is nearly linear in θ (as in trust-region methods).
                    value = 1.0 - 1.0 / dist
                (slope,) = torch.autograd.grad(value.sum(), td)
            value = value.detach()
            failed = ~value.isfinite()
            low[days] = torch.where(value > 0, td.detach(), low[days])
            high[days] = torch.where(value <= 0, td.detach(), high[days])
            step = td.detach() - value / slope
            lo, hi = low[days], high[days]
            middle = torch.where(hi.isinf(), 10 * td.detach() + scale[days], 0.5 * (lo + hi))
            good = step.isfinite() & (step > lo) & (step < hi) & (slope < 0)
            new = torch.where(good, step, middle)
            size = td.detach().clamp_min(1.0) if kappa is not None else 1.0
            tight = hi.isfinite() & ((hi - lo) <= 4e-16 * hi)
            done = (value.abs() <= _NEAR * size) | tight | failed
            far = ~done & (new > _WIDEST * scale[days])
            unreachable[days] |= far
            t[days] = torch.where(done | far, td.detach(), new)
            open_[days] = ~(done | far)
            if not bool(open_.any()):
                break
    active = need & ~unreachable
    t = t.detach()
    if torch.is_grad_enabled() and bool(active.any()):
        leaf = t.clone().requires_grad_()
        point = at(leaf)
        value = torch.where(active & point.w.isfinite().all(-1), gap(leaf, point.w), 0.0)
        (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
        # The slope is a constant of the step, which the parameters take at a fixed t.
        fixed = at(t)
        value = torch.where(active & fixed.w.isfinite().all(-1), gap(t, fixed.w), 0.0)
        safe = torch.where(slope < 0, slope, -torch.inf)
        t = t - (value - value.detach()) / safe
    point = at(t)
    point.theta = t.detach() * active
    status = point.raw.status.clone()
    status[unreachable] = INFEASIBLE
    with torch.no_grad():
        g = gap(t, point.w) / (t.clamp_min(1.0) if kappa is not None else 1.0)
        status[active & (status == SOLVED) & (g.abs() > 1e-8)] = INACCURATE
    return point, status, unreachable


def _penalty(setup: Setup) -> Tensor:
    penalty = setup.draft.penalty
    return torch.zeros_like(setup.draft.budget) if penalty is None else penalty


def _sub(setup: Setup, days: Tensor) -> Setup:
    """The setup of some days, without gradients."""
    return setup.take(take_days(setup.draft, days), setup.q.detach()[days])


def take_days(draft: Draft, days: Tensor) -> Draft:
    """A draft of some days, detached."""

    def of(value: object) -> object:
        return value.detach()[days] if isinstance(value, Tensor) else value

    m = draft.market
    market = replace(
        m,
        groups=None,
        exposures=None,
        **{
            f.name: of(getattr(m, f.name))
            for f in fields(m)
            if f.name not in ("groups", "exposures")
        },
    )
    rows = [(words, a.detach()[days], h.detach()[days]) for words, a, h in draft.rows]
    values = {f.name: of(getattr(draft, f.name)) for f in fields(draft)}
    return Draft(**{**values, "market": market, "rows": rows})  # type: ignore[arg-type]
