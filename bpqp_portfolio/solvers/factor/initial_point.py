"""Where a batch begins: equal weights and a budget's dual, or an earlier solution.

With Σ replaced by its diagonal the optimum is wᵢ(ν) = clip(−(qᵢ + ν)/Σᵢᵢ, lᵢ, uᵢ), where the
budget's dual ν is the root of Σᵢ wᵢ(ν) − budget, which falls in ν and is linear between kinks:
Newton's method inside a bracket. One step of the same with x = Bᵀw then gives θ = (x, ν).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.line_search import Bracket
from .problem import FactorSolution, Points
from .standard_form import Box, StandardForm, times, transposed

# How near the first ν comes to the budget, in units of it, and in how many steps at most.
START_GAP, _START_STEPS = 0.1, 60
# Curvature of names where no name of the day has any.
_PULL = 1e-3
LEAST_D = 1e-12


def budget_dual(
    box: Box, linear: Tensor, d: Tensor, target: Tensor, near: float, guess: Tensor | None = None
) -> Tensor:
    """A ν (T,) whose weights come ``near`` the budget ``target`` (T,).

    ``linear``, ``d`` (T, n) are the names' linear terms and curvatures; ``guess`` (T,) a first ν.
    """
    d = torch.where(d > LEAST_D, d, d.amax(-1, keepdim=True).clamp_min(_PULL))
    reach = 1 + target.abs().unsqueeze(-1)
    cost = 0.0 if box.cost is None else box.cost
    high = (cost - linear - d * torch.maximum(box.lower, -reach)).amax(-1)
    low = (-cost - linear - d * torch.minimum(box.upper, reach)).amin(-1)
    nu = 0.5 * (low + high) if guess is None else torch.minimum(torch.maximum(guess, low), high)
    zero, done = torch.zeros_like(nu), torch.zeros_like(nu, dtype=torch.bool)
    bracket = Bracket(low, high, zero, zero)
    for _ in range(_START_STEPS):
        w = box.prox(linear + nu.unsqueeze(-1), d)
        gap = w.sum(-1) - target
        # A day that is done stays as it is, however long the others of its batch take.
        done |= gap.abs() <= near
        if bool(done.all()):
            break
        slope = (box.free(w) / d).sum(-1)
        bracket.narrow(nu, gap)
        step, inside = bracket.newton(nu, gap, slope.clamp_min(1e-300))
        new = torch.where(inside & (slope > 0), step, bracket.middle())
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


def cold_start(
    form: StandardForm, points: Points, days: Tensor, mask: Tensor, x: Tensor | None
) -> None:
    """Start from equal weights, or from an earlier x = Bᵀw (T, k), with the ν of the budget."""
    k, n, ones = form.factors, form.names, form.budget_rows
    box, target = form.box.first(n), form.target[:, 0] if ones else None
    even = _even_weights(box, target, mask)
    points.w.copy_(_with_slacks(form, even))
    near = 1e-15 if x is not None else START_GAP
    if x is None:
        x = transposed(form.columns[:, :n, :k], even)
    else:
        x = x / (form.weight_unit * form.gradient_unit).sqrt().unsqueeze(-1)
    points.theta[days, :k] = x[days]
    if target is not None and len(days):
        linear = (form.q + times(form.columns[..., :k], x))[:, :n]
        nu = budget_dual(box, linear, form.d[:, :n], target, near)
        points.theta[days, k] = nu[days]


def warm_start(form: StandardForm, points: Points, start: FactorSolution) -> None:
    """Start from an earlier solution; days that had none start from zero."""
    k, unit = form.factors, form.weight_unit.unsqueeze(-1)
    points.theta[:, :k] = start.x / (unit * form.gradient_unit.unsqueeze(-1)).sqrt()
    nu = [(start.nu + form.q_shift).unsqueeze(-1)] if form.budget_rows else []
    y = torch.cat([*nu, start.nu_rows, start.lam], -1) * form.row_unit
    points.theta[:, k:] = y / form.gradient_unit.unsqueeze(-1)
    points.theta.nan_to_num_(nan=0.0)
    points.w.copy_(_with_slacks(form, start.w.to(form.q).nan_to_num(nan=0.0) / unit))


def _with_slacks(form: StandardForm, w: Tensor) -> Tensor:
    """Names' weights (T, n) with the slacks that they leave, (T, N)."""
    n, m = form.names, form.slacks
    if not m:
        return w
    used = transposed(form.columns[:, :n, -m:], w)
    return torch.cat([w, (form.target[:, -m:] - used).clamp_min(0)], -1)


def _even_weights(box: Box, budget: Tensor | None, mask: Tensor) -> Tensor:
    """Equal weights (T, n), within the bounds."""
    even = torch.zeros_like(box.lower)
    if budget is not None:
        even = mask * (budget / mask.sum(-1).clamp_min(1)).unsqueeze(-1)
    return torch.minimum(torch.maximum(even, box.lower), box.upper)
