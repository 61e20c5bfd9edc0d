"""A program as batched factor QPs, at given multipliers of its cones and prices of its trades.

    min ½ γ wᵀΣw + qᵀw + Σ ½θⱼ formⱼ(w) + Σ cᵢ|wᵢ − w⁰ᵢ| + ...   s.t. budget, bounds, rows

A form that is that of Σ adds its multiplier to γ; another adds its loadings √θ L as factors and
θ d to the specific variances. Rows of sizes are rows of ``legs``: w = p − s with long and short
legs p, s ≥ 0, 2n names of which no two are held at once, since the variance d(p² + s²) grows with
what they share; aᵀ|w| ≤ h is aᵀp + aᵀs ≤ h, and a kink of w at w⁰ is one of each leg. A row of a
soft term has a slack of its own, at the program's penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...layers.factor import factor_qp
from ...solvers.factor.problem import FactorSolution
from .parts import Form, Of, Row, Sense
from .program import MandateProgram, sum_of

# Curvature of a slack, as a part of its price, so that its optimum is unique, and its largest
# value; in units of its row.
_SLACK_CURVATURE, _MOST_SLACK = 1e-6, 10.0


class QPForm:
    """Rows G w ≤ h of ``program``, (T, m, n) and (T, m), with their sizes (T, m)."""

    def __init__(self, program: MandateProgram) -> None:
        self.program = p = program
        self.G, self.h, self.sizes = signed(p.rows, p.q)
        self.soft = tuple(i for i, row in enumerate(p.rows) if row.term in p.soft)

    def missed(self, w: Tensor) -> Tensor:
        """By how much w (T, n) misses each row (T, m), in its size."""
        used = (self.G.detach() * w.unsqueeze(1)).sum(-1)
        if self.program.legs:
            for i, row in enumerate(self.program.rows):
                if row.of is Of.GROSS:
                    used[:, i] = (self.G[:, i].detach() * w.abs()).sum(-1)
        return (used - self.h.detach()) / self.sizes

    def solve(
        self,
        gamma: Tensor,
        cones: Sequence[Tensor],
        prices: Tensor | None,
        rows: Sequence[int],
        warm_start: FactorSolution | None = None,
        *,
        sensitive: bool = False,
    ) -> tuple[FactorSolution, Tensor]:
        """The QP at risk aversion γ (T,), multipliers of the cones, (T,) each, and with ``prices``
        (T, n) of trading beside the program's own costs; of the rows those numbered ``rows``.

        The solution has the exposures ``x`` of the forms' own loadings. Also returns the linear
        term that the QP took, by which its sensitivities can be asked for; with ``sensitive`` that
        asks for gradients though no parameter may.
        """
        p = self.program
        # Step 1: the quadratic forms make one factor model.
        forms = [(cost.form, cost.weight) for cost in p.costs]
        forms += [(cone.form, theta) for cone, theta in zip(p.cones, cones, strict=True)]
        loadings, specific, q, roots = factor_model(p.risk, gamma, p.q, forms)
        if warm_start is not None:
            warm_start = replace(warm_start, x=warm_start.x * roots.detach())
        # Step 2: costs of trading are a kink at the previous weights and a tilt.
        cost = prices
        if p.rates is not None:
            buy, sell = p.rates
            own = 0.5 * (buy + sell)
            cost = own if cost is None else cost + own
            q = q + 0.5 * (buy - sell)
        if sensitive and not q.requires_grad:
            q = q.requires_grad_()
        reference = None if cost is None else p.previous
        each = q, loadings, specific, p.lower, p.upper, p.mask, torch.ones_like(q)
        names = _Names(*each, self.G[:, list(rows)], cost, reference)
        # Step 3: legs of sizes and slacks of soft rows are names of their own.
        if p.legs:
            names = names.legs([p.rows[row].of is Of.GROSS for row in rows])
        soft = [(i, row) for i, row in enumerate(rows) if row in self.soft]
        if soft:
            names = names.slacks(
                [i for i, _ in soft], self.sizes[:, [r for _, r in soft]], p.penalty
            )
        by_row, total = self.by_row, p.budget.limit
        raw = factor_qp(
            names.q,
            names.loadings,
            names.specific,
            A=names.one.unsqueeze(1) if by_row else None,
            b=total.unsqueeze(-1) if by_row else None,
            G=names.G if rows else None,
            h=self.h[:, list(rows)] if rows else None,
            lb=names.lower,
            ub=names.upper,
            budget=None if by_row else total,
            cost=names.cost,
            reference=names.reference,
            mask=names.mask,
            tolerance=p.tolerance,
            on_failure="nan",
            initial_point=warm_start,
        )
        return replace(raw, x=raw.x / roots.detach().clamp_min(1e-150)), q

    @property
    def by_row(self) -> bool:
        """Whether the budget is a row of the QP, since not all of its names count in it."""
        return self.program.legs or bool(self.soft)

    def weights(self, raw: FactorSolution) -> Tensor:
        """w (T, n) of what :meth:`solve` found."""
        n = self.program.q.shape[1]
        return raw.w[:, :n] - raw.w[:, n : 2 * n] if self.program.legs else raw.w[:, :n]

    def bound_duals(self, raw: FactorSolution) -> tuple[Tensor, Tensor]:
        """Duals (T, n) of the lower and upper bounds."""
        p, n = self.program, self.program.q.shape[1]
        if not p.legs:
            return raw.lam_lb[:, :n], raw.lam_ub[:, :n]
        part = slice(n, 2 * n)
        return (
            torch.where(p.lower >= 0, raw.lam_lb[:, :n], raw.lam_ub[:, part]),
            torch.where(p.upper > 0, raw.lam_ub[:, :n], raw.lam_lb[:, part]),
        )

    def budget_dual(self, raw: FactorSolution) -> Tensor:
        """Dual (T,) of the budget."""
        return raw.nu_rows[:, 0] if self.by_row else raw.nu


def signed(rows: Sequence[Row], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """G (T, m, n), h (T, m) of ``rows`` as G v ≤ h, and their sizes (T, m); ``like`` (T, n)."""
    if not rows:
        none = like.new_zeros(len(like), 0)
        return like.new_zeros(len(like), 0, like.shape[1]), none, none
    matrices, limits = [], []
    for row in rows:
        sign = -1.0 if row.sense is Sense.LOWER else 1.0
        h = sign * row.limit
        # Nothing is limited by infinity: 0ᵀw ≤ 1.
        unlimited = h == torch.inf
        matrices.append(torch.where(unlimited.unsqueeze(-1), 0.0, sign * row.matrix))
        limits.append(torch.where(unlimited, 1.0, h))
    sizes = torch.stack([row.size for row in rows], 1)
    return torch.stack(matrices, 1), torch.stack(limits, 1), sizes


def factor_model(
    risk: Form, gamma: Tensor, q: Tensor, forms: Sequence[tuple[Form, Tensor]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loadings (T, n, K), specific variances and linear term (T, n) of ½γ ``risk`` + Σ ½ weight ·
    form + qᵀw, and the roots (T, K) that the forms' loadings were multiplied by."""
    assert risk.loadings is not None and risk.specific is not None
    own = sum_of([gamma, *(weight for form, weight in forms if form.risk)]).unsqueeze(-1)
    root = own.clamp_min(0).sqrt()
    columns, roots = [risk.loadings * root.unsqueeze(-1)], [root.expand_as(risk.loadings[:, 0])]
    specific = risk.specific * own
    for form, weight in forms:
        weight = weight.unsqueeze(-1)
        if form.centre is not None or form.target is not None:
            q = q + weight * form.slope(torch.zeros_like(q))
        if form.risk:
            continue
        if form.specific is not None:
            specific = specific + weight * form.specific
        if form.loadings is not None:
            # A root that has a slope at 0 too.
            root = (weight.clamp_min(0) + 1e-300).sqrt()
            columns.append(form.loadings * root.unsqueeze(-1))
            roots.append(root.expand_as(form.loadings[:, 0]))
    if len(columns) == 1:
        return columns[0], specific, q, roots[0]
    return torch.cat(columns, -1), specific, q, torch.cat(roots, -1)


@dataclass(frozen=True)
class _Names:
    """The QP's names: (T, N) each, ``loadings`` (T, N, K), ``G`` (T, m, N); ``one`` counts them in
    the budget."""

    q: Tensor
    loadings: Tensor
    specific: Tensor
    lower: Tensor
    upper: Tensor
    mask: Tensor
    one: Tensor
    G: Tensor
    cost: Tensor | None
    reference: Tensor | None

    def legs(self, sizes: Sequence[bool]) -> _Names:
        """Long legs followed by short ones; rows where ``sizes`` count both alike."""

        def both(value: Tensor, sign: float = 1.0, dim: int = -1) -> Tensor:
            return torch.cat([value, sign * value], dim)

        lower, upper, at = self.lower, self.upper, self.reference
        flags = torch.tensor(sizes, dtype=torch.bool, device=self.G.device).unsqueeze(-1)
        return _Names(
            q=both(self.q, -1.0),
            loadings=both(self.loadings, -1.0, 1),
            specific=both(self.specific),
            lower=torch.cat([lower.clamp_min(0), (-upper).clamp_min(0)], -1),
            upper=torch.cat([upper.clamp_min(0), (-lower).clamp_min(0)], -1),
            mask=torch.cat([self.mask, self.mask], -1),
            one=both(self.one, -1.0),
            G=torch.cat([self.G, torch.where(flags, self.G, -self.G)], -1),
            cost=None if self.cost is None else both(self.cost),
            reference=None if at is None else torch.cat([at.clamp_min(0), (-at).clamp_min(0)], -1),
        )

    def slacks(self, rows: Sequence[int], sizes: Tensor, penalty: float) -> _Names:
        """A slack for each of the ``rows`` of G, of ``sizes`` (T, s), at the price ``penalty``."""
        pad, s = torch.nn.functional.pad, len(rows)
        slack = self.G.new_zeros(*self.G.shape[:2], s)
        slack[:, list(rows), range(s)] = -1.0
        return _Names(
            q=pad(self.q, (0, s), value=penalty),
            loadings=pad(self.loadings, (0, 0, 0, s)),
            specific=torch.cat([self.specific, _SLACK_CURVATURE * penalty / sizes], -1),
            lower=pad(self.lower, (0, s)),
            upper=torch.cat([self.upper, _MOST_SLACK * sizes], -1),
            mask=pad(self.mask, (0, s), value=True),
            one=pad(self.one, (0, s)),
            G=torch.cat([self.G, slack], -1),
            cost=None if self.cost is None else pad(self.cost, (0, s)),
            reference=None if self.reference is None else pad(self.reference, (0, s)),
        )
