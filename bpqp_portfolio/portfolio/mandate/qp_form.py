"""A draft as batched factor QPs at given multipliers of its cones and of its limits of trading."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from ...layers.factor import factor_qp
from ...solvers.factor.problem import FactorSolution
from .terms import Draft

# Terms whose limits are no rows of a draft, by name.
TURNOVER, LEVERAGE, TRACKING = "max_turnover", "max_leverage", "max_tracking_error"
# Curvature of a slack, as a part of its price, so that its optimum is unique.
_SLACK_CURVATURE = 1e-6
# Curvature of a slack, as a part of its price, so that its optimum is unique, and its largest
# value; in units of its row.
_SLACK_CURVATURE, _MOST_SLACK = 1e-6, 10.0


@dataclass
class Setup:
    """One draft, ready to be solved at any risk aversion γ and multipliers θ and λ, all (T,).

    θ is that of the tracking-error limit, λ that of the turnover limit, which acts as a cost
    λ‖w − w⁰‖₁. Rows of terms in ``soft`` get a slack at the price ``penalty``. ``rows`` are those
    of the draft that take part, by number.

    A leverage limit on short positions is a row of ``legs``: w = p − s with long and short legs
    p, s ≥ 0, 2n names of which no two are held at once, since the variance d(p² + s²) grows with
    what they share; the limit is 1ᵀp + 1ᵀs ≤ L, and a kink of w at w⁰ is one of each leg.
    """

    draft: Draft
    q: Tensor
    tolerance: float
    soft: Collection[str] = ()
    penalty: float = 1.0
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        d, market = self.draft, self.draft.market
        self.mask = market.mask
        self.loadings = torch.where(self.mask.unsqueeze(-1), market.loadings.double(), 0.0)
        self.specific = torch.where(self.mask, market.specific.double(), 0.0)
        zero = torch.zeros_like(self.specific)
        held = market.previous
        held = held if "previous" in d.used else None
        self.previous = zero if held is None else torch.where(self.mask, held.double(), 0.0)
        benched = d.tracking is not None or d.penalty is not None
        self.bench = market.needed("benchmark", "mandate") if benched else zero
        self.turnover = None if d.turnover is None else 2 * d.turnover
        self.legs = d.leverage is not None and not bool((d.lower >= 0).all())
        matrices, limits = [], []
        for row in d.rows:
            sign = -1.0 if row.floor else 1.0
            h = sign * row.limit
            # Nothing is limited by infinity: 0ᵀw ≤ 1.
            unlimited = h == torch.inf
            matrices.append(torch.where(unlimited.unsqueeze(-1), 0.0, sign * row.matrix))
            limits.append(torch.where(unlimited, 1.0, h))
        self.words = [row.words for row in d.rows]
        self.floors = [row.floor for row in d.rows]
        self.terms = [row.term for row in d.rows]
        if d.leverage is not None:
            matrices.append(torch.ones_like(zero))
            limits.append(d.leverage)
            self.words.append(d.leverage_words)
            self.floors.append(False)
            self.terms.append(LEVERAGE)
        T, n = zero.shape
        self.G = torch.stack(matrices, 1) if matrices else zero.new_zeros(T, 0, n)
        self.h = torch.stack(limits, 1) if limits else zero.new_zeros(T, 0)
        # What a weight of 1 can make of each row (T, m): the unit in which it is judged.
        self.units = torch.nn.functional.pad(self.G.detach().abs(), (0, 1)).amax(-1)
        self.units = torch.where(self.units > 0, self.units, 1.0)
        self.rows.extend(
            i for i, term in enumerate(self.terms) if term in self.soft and i not in self.rows
        )

    def distance(self, w: Tensor, centre: Tensor | float = 0.0) -> Tensor:
        """‖Σ^½(w − centre)‖ (T,), per day."""
        e = torch.where(self.mask, w - centre, 0.0)
        x = (self.loadings * e.unsqueeze(-1)).sum(-2)
        square = (x * x).sum(-1) + (self.specific * e * e).sum(-1)
        return square.clamp_min(1e-300).sqrt()

    @property
    def risk_unit(self) -> Tensor:
        """The largest risk of a name (T,), per day: the unit of a tracking error."""
        square = (self.loadings.square().sum(-1) + self.specific).detach()
        square = torch.nn.functional.pad(square, (0, 1)).amax(-1)
        return square.clamp_min(1e-300).sqrt()

    def times(self, w: Tensor) -> Tensor:
        """Σw (T, n)."""
        x = (self.loadings * w.unsqueeze(-1)).sum(-2, keepdim=True)
        return (self.loadings * x).sum(-1) + self.specific * w

    def traded(self, w: Tensor) -> Tensor:
        """‖w − w⁰‖₁ (T,)."""
        return torch.where(self.mask, w - self.previous, 0.0).abs().sum(-1)

    def used(self, w: Tensor) -> Tensor:
        """Each row's left-hand side (T, m) at w (T, n)."""
        used = (self.G.detach() * w.unsqueeze(1)).sum(-1)
        if self.legs:
            used[:, -1] = w.abs().sum(-1)
        return used

    def weights(self, raw: FactorSolution) -> Tensor:
        """w (T, n) of what :meth:`solve` found."""
        n = self.q.shape[1]
        return raw.w[:, :n] - raw.w[:, n : 2 * n] if self.legs else raw.w[:, :n]

    def bound_duals(self, raw: FactorSolution) -> tuple[Tensor, Tensor]:
        """Duals (T, n) of the lower and upper bounds."""
        n, d = self.q.shape[1], self.draft
        if not self.legs:
            return raw.lam_lb[:, :n], raw.lam_ub[:, :n]
        part = slice(n, 2 * n)
        return (
            torch.where(d.lower >= 0, raw.lam_lb[:, :n], raw.lam_ub[:, part]),
            torch.where(d.upper > 0, raw.lam_ub[:, :n], raw.lam_lb[:, part]),
        )

    def budget_dual(self, raw: FactorSolution) -> Tensor:
        """Dual (T,) of the budget."""
        by_row = self.legs or any(self.terms[row] in self.soft for row in self.rows)
        return raw.nu_rows[:, 0] if by_row else raw.nu

    def days(self, index: Tensor, *, keep: bool = False) -> Setup:
        """The setup of some days, without gradients unless they are to be kept."""
        draft = _days_of(self.draft, index, keep)
        q = (self.q if keep else self.q.detach())[index]
        return Setup(draft, q, self.tolerance, self.soft, self.penalty, self.rows)

    def missed(self, w: Tensor) -> Tensor:
        """By how much w (T, n) misses each row (T, m), in its unit."""
        return (self.used(w) - self.h.detach()) / self.units

    def solve(
        self,
        gamma: Tensor,
        theta: Tensor,
        price: Tensor | None = None,
        warm_start: FactorSolution | None = None,
        *,
        sensitive: bool = False,
    ) -> tuple[FactorSolution, Tensor]:
        """Solve ½ wᵀ(γΣ)w + ½θ(w−w_b)ᵀΣ(w−w_b) + λ‖w−r‖₁ and the draft's other terms.

        The solution has the exposures ``x`` = Bᵀw of the market's own loadings. Also returns the
        linear term that the QP took, by which its sensitivities can be asked for; with
        ``sensitive`` that asks for gradients though no parameter may.
        """
        d, T = self.draft, len(self.q)
        n = self.q.shape[1]
        scale = (gamma + theta).unsqueeze(-1)
        root = scale.clamp_min(0).sqrt()
        loadings = self.loadings * root.unsqueeze(-1)
        if warm_start is not None:
            warm_start = replace(warm_start, x=warm_start.x * root.detach())
        specific = self.specific * scale
        q = self.q - theta.unsqueeze(-1) * self.times(self.bench)
        if d.impact is not None:
            specific = specific + 2 * d.impact
            q = q - 2 * d.impact * self.previous
        cost = None if price is None else price.unsqueeze(-1).expand(T, n)
        if d.buy is not None and d.sell is not None:
            own = 0.5 * (d.buy + d.sell)
            cost = own if cost is None else cost + own
            q = q + 0.5 * (d.buy - d.sell)
        if sensitive and not q.requires_grad:
            q = q.requires_grad_()
        pad = torch.nn.functional.pad
        tilt, reference, one = q, self.previous, torch.ones_like(q)
        lower, upper, mask = d.lower, d.upper, self.mask
        G, h = self.G[:, self.rows], self.h[:, self.rows]
        if self.legs:
            tilt, one, loadings = _both(q, -1), _both(one, -1), _both(loadings, -1, 1)
            specific, mask = _both(specific), _both(mask)
            reference = torch.cat([reference.clamp_min(0), (-reference).clamp_min(0)], -1)
            lower, upper = (
                torch.cat([lower.clamp_min(0), (-upper).clamp_min(0)], -1),
                torch.cat([upper.clamp_min(0), (-lower).clamp_min(0)], -1),
            )
            cost = None if cost is None else _both(cost)
            last = [len(self.words) - 1 == row for row in self.rows]
            G = torch.cat([G, torch.where(_flags(last, G).unsqueeze(-1), G, -G)], -1)
        soft = [i for i, row in enumerate(self.rows) if self.terms[row] in self.soft]
        m = len(soft)
        if m:
            slack = G.new_zeros(T, G.shape[1], m)
            slack[:, soft, range(m)] = -1.0
            G = torch.cat([G, slack], -1)
            one, tilt = pad(one, (0, m)), pad(tilt, (0, m), value=self.penalty)
            unit = self.units[:, [self.rows[i] for i in soft]]
            specific = torch.cat([specific, _SLACK_CURVATURE * self.penalty / unit], -1)
            loadings = pad(loadings, (0, 0, 0, m))
            lower, upper = pad(lower, (0, m)), torch.cat([upper, _MOST_SLACK * unit], -1)
            mask = pad(mask, (0, m), value=True)
            if cost is not None:
                cost, reference = pad(cost, (0, m)), pad(reference, (0, m))
        by_row = m or self.legs
        raw = factor_qp(
            tilt,
            loadings,
            specific,
            lower=lower,
            upper=upper,
            budget=None if by_row else d.budget,
            equalities=(one.unsqueeze(1), d.budget.unsqueeze(-1)) if by_row else None,
            inequalities=(G, h) if G.shape[1] else None,
            cost=cost,
            reference=None if cost is None else reference,
            mask=mask,
            tolerance=self.tolerance,
            warm_start=warm_start,
            throw=False,
        )
        return replace(raw, x=raw.x / root.detach().clamp_min(1e-150)), q


def _both(value: Tensor, sign: int = 1, dim: int = -1) -> Tensor:
    """A value of the names for their long and, times ``sign``, their short legs."""
    return torch.cat([value, -value if sign < 0 else value], dim)


def _flags(flags: list[bool], like: Tensor) -> Tensor:
    return torch.tensor(flags, dtype=torch.bool, device=like.device)


def _days_of(draft: Draft, days: Tensor, keep: bool) -> Draft:
    """A draft of some days, detached unless gradients are to be kept."""

    def of(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(of(one) for one in value)
        if not isinstance(value, Tensor):
            return value
        return (value if keep else value.detach())[days]

    m = draft.market
    names = [f.name for f in fields(m) if f.name not in ("groups", "exposures")]
    own: dict[str, Any] = {name: of(getattr(m, name)) for name in names}
    market = replace(m, groups=None, exposures=None, **own)
    rows = [replace(row, matrix=of(row.matrix), limit=of(row.limit)) for row in draft.rows]
    values: dict[str, Any] = {f.name: of(getattr(draft, f.name)) for f in fields(draft)}
    return Draft(**{**values, "market": market, "rows": rows})
