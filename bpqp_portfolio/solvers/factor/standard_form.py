"""A batch of factor QPs in one scaled form: every row an equality, slacks as further names.

    min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|  s.t.  E w = e,  l ≤ w ≤ u

A row gᵀw ≤ h becomes gᵀw + s = h with a slack s ≥ 0, a name without objective. All units are powers
of two, so that scaling rounds nothing and bounds stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .problem import FactorQP


@dataclass(frozen=True)
class Box:
    """Bounds and costs, name by name: ``lower``, ``upper``, and ``cost`` c with ``reference`` w⁰.

    All (T, N); the last two are None where c = 0.
    """

    lower: Tensor
    upper: Tensor
    cost: Tensor | None = None
    reference: Tensor | None = None

    def take(self, days: Tensor) -> Box:
        """Some of the days."""
        if self.cost is None or self.reference is None:
            return Box(self.lower[days], self.upper[days])
        tensors = (self.lower, self.upper, self.cost, self.reference)
        return Box(*(t[days] for t in tensors))

    def first(self, n: int) -> Box:
        """Those of the first ``n`` names."""
        tensors = (self.lower, self.upper, self.cost, self.reference)
        return Box(*(None if t is None else t[:, :n] for t in tensors))  # type: ignore[arg-type]

    def prox(self, linear: Tensor, d: Tensor) -> Tensor:
        """The minimiser of ½ d w² + linear w + c|w − w⁰| over the bounds."""
        if self.cost is None or self.reference is None:
            w = linear / -d
        else:
            bought, sold = (linear + self.cost) / -d, (self.cost - linear) / d
            w = torch.maximum(bought, torch.minimum(sold, self.reference))
        return torch.minimum(torch.maximum(w, self.lower), self.upper)

    def free(self, w: Tensor) -> Tensor:
        """Names strictly between their bounds that trade."""
        free = (w > self.lower) & (w < self.upper)
        if self.cost is not None and self.reference is not None:
            free &= (w != self.reference) | (self.cost == 0)
        return free

    def snapped(self, w: Tensor, near: float) -> Tensor:
        """``w`` with free names that are within ``near`` of a bound or reference put there."""
        free = self.free(w)
        for at in (self.reference, self.upper, self.lower):
            if at is not None:
                w = torch.where(free & ((w - at).abs() <= near), at, w)
        return w

    def slopes(self, w: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The derivatives of the cost to the left and to the right of w."""
        if self.cost is None or self.reference is None:
            return 0.0, 0.0
        left = torch.where(w > self.reference, self.cost, -self.cost)
        return left, torch.where(w < self.reference, -self.cost, self.cost)


@dataclass(frozen=True)
class StandardForm:
    """T days in scaled form, with N names and K columns.

    Parameters
    ----------
    q, d : (T, N); the last ``slacks`` names are those of as many inequalities, the last rows (no
        objective, l = 0, u = ∞). A name outside the problem has l = u = 0 and zero columns.
    columns : (T, N, K), B and Eᵀ side by side, K = k + r: with the duals θ = (x, y) of x = Bᵀw and
        of E w = e, the gradient is d w + q + columns θ.
    box : bounds and costs.
    target : e, (T, r).
    weight_unit, gradient_unit : (T,) units of the weights and of the gradient; row_unit : (T, r),
        each row's largest entry. Powers of two.
    curvature : (T,) the largest variance of a name, in these units.
    q_shift : (T,) what was taken off q along the budget's row, in the caller's units.
    factors : k. budget_rows : 1 if the first row is the budget, else 0. slacks : m.
    """

    q: Tensor
    columns: Tensor
    d: Tensor
    box: Box
    target: Tensor
    weight_unit: Tensor
    gradient_unit: Tensor
    row_unit: Tensor
    curvature: Tensor
    q_shift: Tensor
    factors: int
    budget_rows: int
    slacks: int

    @property
    def names(self) -> int:
        """n, without slacks."""
        return self.q.shape[-1] - self.slacks

    @property
    def first_slack_row(self) -> int:
        """The column from which on the inequalities' rows are."""
        return self.columns.shape[-1] - self.slacks

    def take(self, days: Tensor) -> StandardForm:
        """Some of the days; the columns are copied, so use it sparingly."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        some: Any = {k: v[days] for k, v in parts.items() if isinstance(v, Tensor)}
        return replace(self, **some, box=self.box.take(days))

    def residual(self, w: Tensor, theta: Tensor) -> Tensor:
        """(Bᵀw − x, E w − e) (T, K), the gradient of the dual function."""
        value = transposed(self.columns, w)
        value[:, : self.factors] -= theta[:, : self.factors]
        value[:, self.factors :] -= self.target
        return value


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(T, N, K), (T, K) → (T, N)."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def transposed(matrix: Tensor, vector: Tensor) -> Tensor:
    """(T, N, K), (T, N) → (T, K)."""
    return (vector.unsqueeze(-2) @ matrix).squeeze(-2)


def power_of_two(value: Tensor) -> Tensor:
    """The power of two next to positive values, 1 for zero."""
    return torch.exp2(torch.where(value > 0, value, torch.ones_like(value)).log2().round())


def to_standard_form(problem: FactorQP) -> StandardForm:
    """The problem in units in which weights, gradients and rows are of size 1."""
    mask, (T, n), k = problem.mask, problem.q.shape, problem.loadings.shape[-1]
    whole = bool(mask.all())

    def inside(value: Tensor) -> Tensor:
        return value if whole else torch.where(mask, value, 0.0)

    # Step 1: with 1ᵀw fixed a constant in q only moves ν; without it the digits that differ are
    # kept.
    shift = _midrange(problem.q, mask) if problem.budget is not None else problem.q.new_zeros(T)
    q, d = inside(problem.q - shift.unsqueeze(-1)), inside(problem.d)
    lower, upper = inside(problem.lb), inside(problem.ub)
    cost, reference = problem.cost, problem.reference
    if cost is not None and reference is not None:
        cost, reference = inside(cost), inside(reference)
    # Step 2: rows in units of their largest entry.
    rows, values = _rows(problem, whole)
    ones, p = int(problem.budget is not None), 0 if problem.b is None else problem.b.shape[-1]
    m = 0 if problem.h is None else problem.h.shape[-1]
    target = torch.cat(values, -1) if values else q.new_zeros(T, 0)
    row_unit, largest = torch.ones_like(target), q.new_zeros(T, 0)
    if rows:
        largest = torch.cat([row.abs().amax(-1) for row in rows], -1)
        row_unit[:, ones:] = power_of_two(largest)
    target = target / row_unit
    # Step 3: the units of weights and of the gradient.
    columns = q.new_zeros(T, n + m, k + ones + p + m)
    B = problem.loadings
    columns[:, :n, :k] = B if whole else torch.where(mask.unsqueeze(-1), B, 0.0)
    variance = d + columns[:, :n, :k].square().sum(-1)
    curvature = variance.amax(-1)
    slope = q.abs().amax(-1)
    # How far a name goes alone; a dear one stays where it is.
    pull = torch.minimum(q.abs() / variance, torch.maximum(lower.abs(), upper.abs()))
    if cost is not None and reference is not None:
        slope = torch.maximum(slope, cost.amax(-1))
        pull = torch.maximum(pull.nan_to_num(nan=0.0), reference.abs() * (cost > 0))
    weight_unit = power_of_two(_length(lower, upper, target, ones + p, pull))
    gradient_unit = power_of_two(torch.maximum(curvature * weight_unit, slope))
    unit, gradient = weight_unit.unsqueeze(-1), gradient_unit.unsqueeze(-1)
    # Step 4: everything in these units, factors and rows side by side, slacks after the names.
    columns[:, :n, :k] *= (weight_unit / gradient_unit).sqrt()[:, None, None]
    if ones:
        columns[:, :n, k] = mask.to(q)
    if rows:
        both = rows[0] if len(rows) == 1 else torch.cat(rows, -2)
        torch.mul(both.mT, 1.0 / row_unit[:, None, ones:], out=columns[:, :n, k + ones :])
    target = target / unit
    if m:
        columns[:, n:, -m:] = torch.eye(m, dtype=q.dtype, device=q.device)
        # 0ᵀw ≤ h holds or not, at any distance.
        idle = (largest[:, p:] == 0) & (target[:, -m:] >= 0)
        target[:, -m:] = torch.where(idle, 1.0, target[:, -m:])

    def with_slacks(value: Tensor, slack: float) -> Tensor:
        return torch.cat([value, value.new_full((T, m), slack)], -1) if m else value

    box = Box(with_slacks(lower / unit, 0.0), with_slacks(upper / unit, torch.inf))
    if cost is not None and reference is not None:
        own = with_slacks(cost / gradient, 0.0), with_slacks(reference / unit, 0.0)
        box = Box(box.lower, box.upper, *own)
    return StandardForm(
        q=with_slacks(q / gradient, 0.0),
        columns=columns,
        d=with_slacks(d * (unit / gradient), 0.0),
        box=box,
        target=target,
        weight_unit=weight_unit,
        gradient_unit=gradient_unit,
        row_unit=row_unit,
        curvature=curvature * (weight_unit / gradient_unit),
        q_shift=shift,
        factors=k,
        budget_rows=ones,
        slacks=m,
    )


def _midrange(q: Tensor, mask: Tensor) -> Tensor:
    """Halfway between the largest and the least entry in ``mask``, (T,)."""
    largest = torch.where(mask, q, -torch.inf).amax(-1)
    return 0.5 * (largest + torch.where(mask, q, torch.inf).amin(-1))


def _rows(problem: FactorQP, whole: bool) -> tuple[list[Tensor], list[Tensor]]:
    """The matrices of equalities and inequalities, and all values, the budget's first."""
    values = [] if problem.budget is None else [problem.budget.unsqueeze(-1)]
    rows = []
    for matrix, value in ((problem.A, problem.b), (problem.G, problem.h)):
        if matrix is not None and value is not None:
            rows.append(matrix if whole else torch.where(problem.mask.unsqueeze(-2), matrix, 0.0))
            values.append(value)
    return rows, values


def _length(lower: Tensor, upper: Tensor, target: Tensor, fixed: int, pull: Tensor) -> Tensor:
    """The size of w that the data speak of (T,), or 0; as for a dense QP, see ``Scaling``.

    ``target`` (T, r) are the rows' values in their units, the first ``fixed`` those of equalities;
    ``pull`` (T, n) is how far each name would go. No feasible w is shorter than ``least``; rows and
    bounds may be stand-ins for infinity.
    """
    least = torch.cat([target[:, :fixed].abs(), -target[:, fixed:], lower, -upper], -1).amax(-1)
    rows = torch.minimum(_median(target[:, :fixed]), _median(target[:, fixed:]))
    far = pull.masked_fill(~pull.isfinite(), 0.0).amax(-1)
    far = torch.where(far > 0, far, _median(torch.cat([lower, upper], -1)))
    length = torch.maximum(least, torch.minimum(far, rows))
    return torch.where(length.isfinite(), length, least.clamp_min(0.0))


def _median(sizes: Tensor) -> Tensor:
    """The median (T,) of what is finite and not 0 of |sizes| (T, r), infinite without any."""
    if not sizes.shape[-1]:
        return sizes.new_full(sizes.shape[:1], torch.inf)
    sizes = sizes.abs()
    some = sizes.masked_fill(~(sizes.isfinite() & (sizes > 0)), torch.nan)
    return some.nanmedian(-1).values.nan_to_num(nan=torch.inf)
