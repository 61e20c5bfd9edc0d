"""A draft as batched factor QPs at given multipliers of its cones and of its limits of trading."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import ProblemError
from ..layers.factor import factor_qp
from ..solvers.structured import FactorSolution
from .constraints import Draft

# Curvature of a slack, as a part of its price, so that its optimum is unique.
_SLACK_CURVATURE = 1e-6


@dataclass
class Setup:
    """One draft, ready to be solved at any risk aversion γ and multipliers θ and λ, all (T,).

    θ is that of the tracking-error limit, λ that of the limit of turnover or leverage, which acts
    as a cost λ‖w − r‖₁ with r = w⁰ or 0. Rows in ``soft`` get a slack at the price ``penalty``.
    ``rows`` are those of the draft that take part, by number.
    """

    draft: Draft
    q: Tensor
    tolerance: float
    soft: Collection[str] = ()
    penalty: float = 1.0
    rows: list[int] | None = None

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
        self.by_leverage = d.leverage is not None and not long_only
        if self.by_leverage and (d.turnover is not None or d.buy is not None):
            other = "max_turnover" if d.turnover is not None else "linear_cost"
            raise ProblemError(
                f"max_leverage with {other}: short positions under both are not supported "
                "together; use a quadratic_cost in its place."
            )
        self.norm_limit, self.norm_words, self.centre = None, "", self.previous
        if self.by_leverage:
            self.norm_limit, self.norm_words, self.centre = d.leverage, d.leverage_words, zero
        elif d.turnover is not None:
            self.norm_limit, self.norm_words = 2 * d.turnover, d.turnover_words
        names = [words for words, *_ in d.rows]
        matrices, limits = [m for _, m, _ in d.rows], [h for *_, h in d.rows]
        if d.leverage is not None and long_only:
            matrices.append(torch.ones_like(zero))
            limits.append(d.leverage)
            names.append(d.leverage_words)
        self.words = names
        T, n = zero.shape
        self.G = torch.stack(matrices, 1) if matrices else zero.new_zeros(T, 0, n)
        self.h = torch.stack(limits, 1) if limits else zero.new_zeros(T, 0)
        if self.rows is None:
            self.rows = [i for i, one in enumerate(names) if self.is_soft(one)]

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

    def norm(self, w: Tensor) -> Tensor:
        """‖w − r‖₁ (T,)."""
        return torch.where(self.mask, w - self.centre, 0.0).abs().sum(-1)

    def days(self, index: Tensor) -> Setup:
        """The setup of some days, without gradients."""
        draft = _days_of(self.draft, index)
        q = self.q.detach()[index]
        return Setup(draft, q, self.tolerance, self.soft, self.penalty, self.rows)

    def missed(self, w: Tensor) -> Tensor:
        """By how much w (T, n) misses each row (T, m)."""
        return (self.G.detach() * w.unsqueeze(1)).sum(-1) - self.h.detach()

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
        tilt, reference = q, self.centre
        lower, upper, mask = d.lower, d.upper, self.mask
        G, h = self.G[:, self.rows], self.h[:, self.rows]
        soft = [i for i, row in enumerate(self.rows) if self.is_soft(self.words[row])]
        equalities, m = None, len(soft)
        if m:
            pad = torch.nn.functional.pad
            slack = G.new_zeros(T, G.shape[1], m)
            slack[:, soft, range(m)] = -1.0
            G = torch.cat([G, slack], -1)
            equalities = pad(torch.ones_like(q), (0, m)).unsqueeze(1), d.budget.unsqueeze(-1)
            tilt = pad(q, (0, m), value=self.penalty)
            specific = torch.cat(
                [specific, specific.new_full((T, m), _SLACK_CURVATURE * self.penalty)], -1
            )
            loadings = pad(loadings, (0, 0, 0, m))
            lower, upper = pad(lower, (0, m)), pad(upper, (0, m), value=10.0)
            mask = pad(mask, (0, m), value=True)
            if cost is not None:
                cost, reference = pad(cost, (0, m)), pad(reference, (0, m))
        raw = factor_qp(
            tilt,
            loadings,
            specific,
            lower=lower,
            upper=upper,
            budget=None if m else d.budget,
            equalities=equalities,
            inequalities=(G, h) if G.shape[1] else None,
            cost=cost,
            reference=None if cost is None else reference,
            mask=mask,
            tolerance=self.tolerance,
            warm_start=warm_start,
            throw=False,
        )
        return replace(raw, x=raw.x / root.detach().clamp_min(1e-150)), q


def _days_of(draft: Draft, days: Tensor) -> Draft:
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
