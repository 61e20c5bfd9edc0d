"""The caller's problem as a batch in scaled form."""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch, Box, power_of_two
from .problem import Rows


def lifted(
    q: Tensor,
    loadings: Tensor,
    d: Tensor,
    lower: Tensor,
    upper: Tensor,
    budget: Tensor | None,
    mask: Tensor,
    equalities: Rows | None,
    inequalities: Rows | None,
    cost: Tensor | None,
    reference: Tensor | None,
) -> tuple[Batch, Tensor]:
    """The batch in scaled form, and what was taken off q (T,) along the budget's row."""
    (T, n), k = q.shape, loadings.shape[-1]
    whole = bool(mask.all())

    def inside(value: Tensor) -> Tensor:
        return value if whole else torch.where(mask, value, 0.0)

    middle = q.new_zeros(T)
    if budget is not None:
        # With 1ᵀw fixed a constant in q only moves ν; without it the digits that differ are kept.
        largest = torch.where(mask, q, -torch.inf).amax(-1)
        middle = 0.5 * (largest + torch.where(mask, q, torch.inf).amin(-1))
    q, d = inside(q - middle.unsqueeze(-1)), inside(d)
    lower, upper = inside(lower), inside(upper)
    rows = [r for r in (equalities, inequalities) if r is not None]
    ones = 0 if budget is None else 1
    p = 0 if equalities is None else equalities.value.shape[-1]
    m = 0 if inequalities is None else inequalities.value.shape[-1]
    target = (
        torch.cat(([] if budget is None else [budget.unsqueeze(-1)]) + [r.value for r in rows], -1)
        if ones + p + m
        else q.new_zeros(T, 0)
    )
    row_unit = torch.ones_like(target)
    matrices = [r.matrix if whole else torch.where(mask.unsqueeze(-2), r.matrix, 0.0) for r in rows]
    if p + m:
        largest = torch.cat([v.abs().amax(-1) for v in matrices], -1)
        row_unit[:, ones:] = power_of_two(largest)
    target = target / row_unit
    columns = q.new_zeros(T, n + m, k + ones + p + m)
    columns[:, :n, :k] = loadings if whole else torch.where(mask.unsqueeze(-1), loadings, 0.0)
    variance = d + columns[:, :n, :k].square().sum(-1)
    curvature = variance.amax(-1)
    slope = q.abs().amax(-1)
    if cost is not None and reference is not None:
        cost, reference = inside(cost), inside(reference)
        slope = torch.maximum(slope, cost.amax(-1))
    # How far a name goes alone; a dear one stays where it is.
    pull = torch.minimum(q.abs() / variance, torch.maximum(lower.abs(), upper.abs()))
    if cost is not None and reference is not None:
        pull = torch.maximum(pull.nan_to_num(nan=0.0), reference.abs() * (cost > 0))
    weight_unit = power_of_two(_length(lower, upper, target, ones + p, pull))
    unit = weight_unit.unsqueeze(-1)
    gradient_unit = power_of_two(torch.maximum(curvature * weight_unit, slope))
    gradient = gradient_unit.unsqueeze(-1)
    columns[:, :n, :k] *= (weight_unit / gradient_unit).sqrt()[:, None, None]
    if ones:
        columns[:, :n, k] = mask.to(q)
    if p + m:
        # Powers of two: to multiply by the inverse is exact.
        inverse = 1.0 / row_unit[:, None, ones:]
        both = matrices[0] if len(matrices) == 1 else torch.cat(matrices, -2)
        torch.mul(both.mT, inverse, out=columns[:, :n, k + ones :])
    if m:
        columns[:, n:, -m:] = torch.eye(m, dtype=q.dtype, device=q.device)

    def with_slacks(value: Tensor, slack: float) -> Tensor:
        return torch.cat([value, value.new_full((T, m), slack)], -1) if m else value

    target = target / unit
    if m:
        # 0ᵀw ≤ h holds or not, at any distance.
        idle = (largest[:, p:] == 0) & (target[:, -m:] >= 0)
        target[:, -m:] = torch.where(idle, 1.0, target[:, -m:])

    batch = Batch(
        q=with_slacks(q / gradient, 0.0),
        columns=columns,
        d=with_slacks(d * (unit / gradient), 0.0),
        box=Box(
            with_slacks(lower / unit, 0.0),
            with_slacks(upper / unit, torch.inf),
            None if cost is None else with_slacks(cost / gradient, 0.0),
            None if reference is None else with_slacks(reference / unit, 0.0),
        ),
        target=target,
        weight_unit=weight_unit,
        gradient_unit=gradient_unit,
        row_unit=row_unit,
        curvature=curvature * (weight_unit / gradient_unit),
        factors=k,
        slacks=m,
    )
    return batch, middle


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


def even_weights(lower: Tensor, upper: Tensor, budget: Tensor | None, mask: Tensor) -> Tensor:
    """Equal weights, within the bounds."""
    even = torch.zeros_like(lower)
    if budget is not None:
        even = mask * (budget / mask.sum(-1).clamp_min(1)).unsqueeze(-1)
    return torch.minimum(torch.maximum(even, lower), upper)
