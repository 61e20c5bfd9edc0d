"""Newton on the dual of small batches with one budget and plain bounds: few calls, whole tensors.

The method of :mod:`.structured_newton` for the commonest problem. A batch of a few days costs what
its calls cost, not its arithmetic, so here no day is taken out and no free name gathered: some
twenty-five operations a step. What is not solved at the end goes on to the general method.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .structured_active import polished
from .structured_batch import Batch, kkt_norm
from .structured_newton import Points

# Numbers (T, N, K) up to which calls cost more than arithmetic.
LIGHT = 100_000
LIGHT_STEPS = 14
_LINE_STEPS = 12
_SMALL, _EXACT, _SNAP = 1e-13, 1e-13, 1e-12
_LEAST = 1e-11


def light(batch: Batch, points: Points, tolerance: float) -> Tensor:
    """Solve all days from ``points.theta``; the days (L,) that are left, each where it stands.

    For batches with d > 0 in the problem, only the budget's row and no cost.
    """
    columns, box, k = batch.columns, batch.box, batch.factors
    d = batch.d.masked_fill(batch.d == 0, 1.0)
    scaled = columns / -d.unsqueeze(-1)
    base = (batch.q / -d).unsqueeze(-1)
    rows = columns.mT
    unit = columns.new_ones(columns.shape[-1])
    unit[k:] = _LEAST
    ridge = torch.diag(unit)
    own = torch.where(unit == 1, -1.0, 0.0)
    fixed = torch.nn.functional.pad(-batch.target, (k, 0))

    def at(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unbounded weights, weights and the dual's gradient."""
        raw = torch.baddbmm(base, scaled, theta.unsqueeze(-1)).squeeze(-1)
        w = torch.clamp(raw, box.lower, box.upper)
        start = torch.addcmul(fixed, own, theta).unsqueeze(-1)
        return raw, w, torch.baddbmm(start, rows, w.unsqueeze(-1)).squeeze(-1)

    theta = points.theta
    raw, w, residual = at(theta)
    for _ in range(LIGHT_STEPS):
        # Weights move by 1/d a unit of the duals: no residual is below what these are rounded to.
        small = _SMALL + 1e-15 * ((raw == w) / d).sum(-1)
        open_ = ~(residual.abs().amax(-1) <= small)
        if not bool(open_.any()):
            break
        points.iterations += open_
        normal = torch.baddbmm(ridge, rows, scaled * (raw == w).unsqueeze(-1), alpha=-1)
        factor, _ = torch.linalg.cholesky_ex(normal)
        step = torch.cholesky_solve(residual.unsqueeze(-1), factor).squeeze(-1)
        rise = (residual * step).sum(-1)
        next_theta = theta + step
        new = at(next_theta)
        slope = (new[2] * step).sum(-1)
        long = open_ & ~(slope.abs() <= 0.5 * rise)
        if bool(long.any()):
            length = _length(batch, raw, new[0], d, theta, step, rise, slope, long)
            next_theta = torch.addcmul(theta, length.unsqueeze(-1), step)
            new = at(next_theta)
        # A day that is done stays as it is, however long the others take.
        stay = open_.unsqueeze(-1)
        theta = torch.where(stay, next_theta, theta)
        raw, w, residual = (
            torch.where(stay, a, b) for a, b in zip(new, (raw, w, residual), strict=True)
        )
    # A name at its bound's kink stops a rounding away from it; polishing sorts out the rest.
    w = box.snapped(w, _SNAP)
    norm = kkt_norm(batch, w, theta[:, k:])
    rough = torch.nonzero(norm > _EXACT).squeeze(-1)
    if len(rough):
        whole = len(rough) == len(norm)
        exact = polished(batch if whole else batch.take(rough), w[rough], theta[rough])
        better = exact[2] < norm[rough]
        place = rough[better]
        w[place], theta[place], norm[place] = (value[better] for value in exact)
    theta = theta.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    points.w, points.theta, points.norm = w, theta, norm
    return torch.nonzero(~(norm <= tolerance)).squeeze(-1)


def _length(
    batch: Batch,
    raw: Tensor,
    full: Tensor,
    d: Tensor,
    theta: Tensor,
    step: Tensor,
    rise: Tensor,
    slope: Tensor,
    long: Tensor,
) -> Tensor:
    """Step lengths (T,) at which the dual's slope has fallen to half of ``rise``; 1 where not long.

    The slope falls along the step and is linear between kinks: secant steps within a bracket,
    every third a bisection.
    """
    box, k = batch.box, batch.factors
    change = full - raw
    along = change * -d
    constant = (theta[:, :k] * step[:, :k]).sum(-1) + (batch.target * step[:, k:]).sum(-1)
    curvature = step[:, :k].square().sum(-1)
    goal = 0.5 * rise
    low, high = torch.zeros_like(rise), torch.full_like(rise, torch.inf)
    at_low, at_high = rise, torch.zeros_like(rise)
    t = torch.ones_like(rise)
    for number in range(_LINE_STEPS):
        below = slope > 0
        low, at_low = torch.where(below, t, low), torch.where(below, slope, at_low)
        high, at_high = torch.where(below, high, t), torch.where(below, at_high, slope)
        middle = 0.5 * (low + high)
        if number % 3 != 2:
            secant = low + (high - low) * (at_low / (at_low - at_high))
            middle = torch.where(secant.isfinite(), secant, middle)
        t = torch.where(long, torch.where(high.isinf(), 4 * t, middle), t)
        w = torch.clamp(torch.addcmul(raw, t.unsqueeze(-1), change), box.lower, box.upper)
        slope = (w * along).sum(-1) - constant - t * curvature
        long = long & ~(slope.abs() <= goal)
        if not bool(long.any()):
            break
    return t
