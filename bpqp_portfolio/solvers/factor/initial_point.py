"""Where a batch begins: equal weights and a budget's dual, or an earlier solution."""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import Batch, Box, times, transposed
from .dual_newton import Points
from .problem import FactorSolution
from .standard_form import even_weights

# How near the first ν comes to the budget, in units of it, and in how many steps at most.
START_GAP, _START_STEPS = 0.1, 60
# Curvature of names where no name of the day has any.
_PULL = 1e-3
LEAST_D = 1e-12


def budget_dual(
    box: Box, linear: Tensor, d: Tensor, target: Tensor, near: float, guess: Tensor | None = None
) -> Tensor:
    """A ν (T,) whose weights come ``near`` the budget, by Newton's method kept inside a bracket."""
    d = torch.where(d > LEAST_D, d, d.amax(-1, keepdim=True).clamp_min(_PULL))
    reach = 1 + target.abs().unsqueeze(-1)
    cost = 0.0 if box.cost is None else box.cost
    high = (cost - linear - d * torch.maximum(box.lower, -reach)).amax(-1)
    low = (-cost - linear - d * torch.minimum(box.upper, reach)).amin(-1)
    nu = 0.5 * (low + high) if guess is None else torch.minimum(torch.maximum(guess, low), high)
    done = torch.zeros_like(nu, dtype=torch.bool)
    for _ in range(_START_STEPS):
        w = box.prox(linear + nu.unsqueeze(-1), d)
        gap = w.sum(-1) - target
        # A day that is done stays as it is, however long the others of its batch take.
        done |= gap.abs() <= near
        if bool(done.all()):
            break
        slope = (box.free(w) / d).sum(-1)
        low, high = torch.where(gap > 0, nu, low), torch.where(gap < 0, nu, high)
        step = nu + gap / slope.clamp_min(1e-300)
        new = torch.where((step > low) & (step < high) & (slope > 0), step, 0.5 * (low + high))
        done |= (new - nu).abs() <= 4e-16 * nu.abs()
        nu = torch.where(done, nu, new)
    return nu


def diagonal_start(
    columns: Tensor, q: Tensor, d: Tensor, box: Box, fixed: Tensor, factors: int
) -> Tensor:
    """θ (T, k + 1) from the solution whose Σ has the right diagonal and nothing else.

    ``fixed`` (T, k + 1) is what other names add to Bᵀw and to 1ᵀw − budget.
    """
    k, B = factors, columns[..., :factors]
    target = -fixed[:, k]
    variance = d + B.square().sum(-1)
    nu = budget_dual(box, q, variance, target, START_GAP)
    w = box.prox(q + nu.unsqueeze(-1), variance)
    x = transposed(B, w) + fixed[:, :k]
    linear = q + times(B, x)
    guess = -((linear + d * w) * w).sum(-1) / w.sum(-1).clamp_min(1e-300)
    nu = budget_dual(box, linear, d, target, START_GAP, guess)
    return torch.cat([x, nu.unsqueeze(-1)], -1)


def _slack(batch: Batch, w: Tensor) -> Tensor:
    """Names' weights (T, n) with the slacks that they leave, (T, N)."""
    n, m = w.shape[-1], batch.q.shape[-1] - w.shape[-1]
    if not m:
        return w
    used = transposed(batch.columns[:, :n, -m:], w)
    return torch.cat([w, (batch.target[:, -m:] - used).clamp_min(0)], -1)


def cold(
    points: Points, batch: Batch, mask: Tensor, days: Tensor, ones: int, x: Tensor | None
) -> None:
    """Start from equal weights, or from an earlier x = Bᵀw, with the ν that meets the budget."""
    k, n = batch.factors, mask.shape[-1]
    budget = batch.target[:, 0] if ones else None
    start = even_weights(batch.box.lower[:, :n], batch.box.upper[:, :n], budget, mask)
    points.w.copy_(_slack(batch, start))
    near = 1e-15 if x is not None else START_GAP
    if x is None:
        x = transposed(batch.columns[:, :n, :k], start)
    else:
        x = x / (batch.weight_unit * batch.gradient_unit).sqrt().unsqueeze(-1)
    points.theta[days, :k] = x[days]
    if ones and len(days):
        linear = (batch.q + times(batch.columns[..., :k], x))[:, :n]
        box = batch.box
        extra = (None if value is None else value[:, :n] for value in (box.cost, box.reference))
        box = Box(box.lower[:, :n], box.upper[:, :n], *extra)
        nu = budget_dual(box, linear, batch.d[:, :n], batch.target[:, 0], near)
        points.theta[days, k] = nu[days]


def warm(
    points: Points, batch: Batch, start: FactorSolution, middle: Tensor, ones: int, n: int
) -> None:
    """Start from an earlier solution; days that had none start from zero."""
    k, unit = batch.factors, batch.weight_unit.unsqueeze(-1)
    points.theta[:, :k] = start.x / (unit * batch.gradient_unit.unsqueeze(-1)).sqrt()
    nu = [(start.nu + middle).unsqueeze(-1)] if ones else []
    y = torch.cat([*nu, start.nu_rows, start.lam], -1) * batch.row_unit
    points.theta[:, k:] = y / batch.gradient_unit.unsqueeze(-1)
    points.theta.nan_to_num_(nan=0.0)
    points.w.copy_(_slack(batch, start.w.to(batch.q).nan_to_num(nan=0.0) / unit))
