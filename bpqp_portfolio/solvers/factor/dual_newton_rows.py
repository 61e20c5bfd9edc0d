"""Newton on the dual with inequalities: rows in the system that bind, the others at dual zero.

As in :mod:`.structured_newton`, but slacks are no names: a row's dual λ ≥ 0 is free where it is
positive or the row is violated, and zero elsewhere; a step that would make it negative ends at
zero. From a start near the end it takes a few steps; the days it leaves need another method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .active_set import Binding, cholesky, gathered, pick, polished, solve
from .batch import Batch, Box, kkt_norm, times, transposed
from .dual_newton import Points

_STEPS, _LINE_STEPS = 8, 6
_SMALL, _EXACT = 1e-13, 1e-13


@dataclass(frozen=True)
class _Dual:
    """Some days' dual function: names (L, n), ``columns`` (L, n, K), rows from column ``at`` on."""

    columns: Tensor
    q: Tensor
    d: Tensor
    box: Box
    target: Tensor
    factors: int
    at: int

    @classmethod
    def of(cls, batch: Batch) -> _Dual:
        box, k, n = batch.box, batch.factors, batch.q.shape[-1] - batch.slacks
        extra = (None if v is None else v[:, :n] for v in (box.cost, box.reference))
        d = batch.d[:, :n]
        return cls(
            columns=batch.columns[:, :n],
            q=batch.q[:, :n],
            # A name outside the problem has d = 0, and stays at zero whatever its d.
            d=d.masked_fill(d == 0, 1.0),
            box=Box(box.lower[:, :n], box.upper[:, :n], *extra),
            target=torch.nn.functional.pad(batch.target, (k, 0)),
            factors=k,
            at=batch.columns.shape[-1] - batch.slacks,
        )

    def take(self, days: Tensor) -> _Dual:
        """Some of the days."""
        parts = (self.columns[days], self.q[days], self.d[days], self.box.take(days))
        return _Dual(*parts, self.target[days], self.factors, self.at)

    def weights(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """w (T, n), and the gradient of the dual function (T, K)."""
        w = self.box.prox(self.q + times(self.columns, theta), self.d)
        residual = transposed(self.columns, w) - self.target
        residual[:, : self.factors] -= theta[:, : self.factors]
        return w, residual

    def step(self, w: Tensor, theta: Tensor, residual: Tensor) -> Tensor:
        """Newton's step (T, K) in the duals that are free; ``residual`` is zero at the others."""
        at, free = self.at, self.box.free(w)
        place, counts = gathered(free)
        binding = Binding.of((theta[:, at:] > 0) | (residual[:, at:] > 0), at)
        columns = binding.columns(pick(self.columns, place))
        inverse = counts / pick(self.d, place)
        normal = columns.mT @ (columns * inverse.unsqueeze(-1))
        # A row without a free name moves as one typical name would have it.
        diagonal = normal.diagonal(dim1=-2, dim2=-1)[:, self.factors :]
        diagonal += torch.where(diagonal > 0, 0.0, (1 / self.d).mean(-1, keepdim=True))
        step = solve(cholesky(normal, self.factors), binding.pick(residual))
        return binding.spread(step, theta)


def newton_rows(batch: Batch, points: Points, days: Tensor, tolerance: float) -> Tensor:
    """Advance ``days`` of ``points`` from their θ; the days (L,) that are left. For d > 0."""
    batch = batch if len(days) == len(points.w) else batch.take(days)
    n, at = batch.q.shape[-1] - batch.slacks, batch.columns.shape[-1] - batch.slacks
    part, theta = _Dual.of(batch), points.theta[days]
    theta[:, at:].clamp_(min=0)
    weights, duals = torch.empty_like(batch.q), torch.empty_like(theta)
    open_ = torch.arange(len(days), device=days.device)
    w, residual = part.weights(theta)
    for number in range(_STEPS + 1):
        residual[:, at:] *= (theta[:, at:] > 0) | (residual[:, at:] > 0)
        free = part.box.free(w)
        small = _SMALL + 1e-15 * (free / part.d).sum(-1)
        rest = residual.abs().amax(-1) > small
        weights[open_, :n], duals[open_] = w, theta
        points.iterations[days[open_]] += rest
        left = int(rest.sum())
        if number == _STEPS or not left:
            break
        if left <= 0.5 * len(open_):
            keep = torch.nonzero(rest).squeeze(-1)
            part, open_, rest = part.take(keep), open_[keep], rest[keep]
            w, theta, residual = w[keep], theta[keep], residual[keep]
        step = part.step(w, theta, residual)
        ahead = _search(part, theta, step, residual, rest)
        stay = rest.unsqueeze(-1)
        now = (theta, w, residual)
        theta, w, residual = (torch.where(stay, a, b) for a, b in zip(ahead, now, strict=True))
    w, theta = weights, duals
    slack = batch.target[:, at - batch.factors :] - transposed(batch.columns[:, :n, at:], w[:, :n])
    w[:, n:] = torch.where(theta[:, at:] > 0, 0.0, slack.clamp_min(0))
    norm = kkt_norm(batch, w, theta[:, batch.factors :])
    rough = torch.nonzero(~(norm <= _EXACT)).squeeze(-1)
    if len(rough):
        exact = polished(batch.take(rough), w[rough], theta[rough])
        better = exact[2] < norm[rough]
        place = rough[better]
        w[place], theta[place], norm[place] = (value[better] for value in exact)
    solved = norm <= tolerance
    points.put(days[solved], w[solved], theta[solved], norm[solved])
    return days[~solved]


def _search(
    part: _Dual, theta: Tensor, step: Tensor, residual: Tensor, open_: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """θ, w and residual where the dual's slope has fallen to half of what it was, or near there.

    The full step first, then, for the days ``open_`` (L,) that need it, secant steps within a
    bracket, every third a bisection. The dual is concave: a slope that is not negative at the end
    of a step means a rise.
    """
    new, w, after, slope = _ahead(part, theta, step)
    first = (residual * (new - theta)).sum(-1)
    long = torch.nonzero(open_ & ~(slope.abs() <= 0.5 * first)).squeeze(-1)
    if not len(long):
        return new, w, after
    few, start, along, goal = part.take(long), theta[long], step[long], 0.5 * first[long]
    slope, t = slope[long], torch.ones_like(goal)
    low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
    at_low, at_high = first[long], torch.zeros_like(t)
    for number in range(_LINE_STEPS + 1):
        below = slope > 0
        low, at_low = torch.where(below, t, low), torch.where(below, slope, at_low)
        high, at_high = torch.where(below, high, t), torch.where(below, at_high, slope)
        middle = 0.5 * (low + high)
        if number % 3 != 2:
            secant = low + (high - low) * (at_low / (at_low - at_high))
            middle = torch.where(secant.isfinite(), secant, middle)
        middle = torch.where(high.isinf(), 4 * t, middle)
        if number == _LINE_STEPS:
            middle = torch.where(low > 0, low, t)
        t = torch.where(slope.abs() <= goal, t, middle)
        ahead = _ahead(few, start, t.unsqueeze(-1) * along)
        slope = ahead[3] / t
        if bool((slope.abs() <= goal).all()):
            break
    new[long], w[long], after[long] = ahead[:3]
    return new, w, after


def _ahead(part: _Dual, theta: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """θ after a step, no λ below zero, w and residual there, and the slope along the step (L,)."""
    new = theta + step
    new[:, part.at :].clamp_(min=0)
    w, residual = part.weights(new)
    return new, w, residual, (residual * (new - theta)).sum(-1)
