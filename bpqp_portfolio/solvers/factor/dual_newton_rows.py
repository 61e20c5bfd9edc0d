"""Newton on the dual with inequalities: rows in the system that bind, the others at dual zero.

As in :mod:`.dual_newton`, but slacks are no names: a row's dual λ ≥ 0 is free where it is positive
or the row is violated, and zero elsewhere; a step that would make it negative ends at zero, so that
the dual function is maximised over λ ≥ 0 by a projected Newton method (D. P. Bertsekas, SIAM J.
Control Optim. 20, 1982). From a start near the end it takes a few steps; the days it leaves need
another method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.line_search import secant_search
from .active_set import Binding, cholesky, gathered, pick, polish_rough, solve
from .problem import Points
from .residuals import kkt_norm
from .standard_form import Box, StandardForm, times, transposed

_STEPS, _LINE_STEPS = 8, 6
_SMALL = 1e-13


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
    def of(cls, form: StandardForm) -> _Dual:
        k, n = form.factors, form.names
        d = form.d[:, :n]
        return cls(
            columns=form.columns[:, :n],
            q=form.q[:, :n],
            # A name outside the problem has d = 0, and stays at zero whatever its d.
            d=d.masked_fill(d == 0, 1.0),
            box=form.box.first(n),
            target=torch.nn.functional.pad(form.target, (k, 0)),
            factors=k,
            at=form.first_slack_row,
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


def dual_newton_rows(form: StandardForm, points: Points, days: Tensor, tolerance: float) -> Tensor:
    """Advance ``days`` of ``points`` from their θ; the days (L,) that are left. For d > 0."""
    form = form if len(days) == len(points.w) else form.take(days)
    n, at = form.names, form.first_slack_row
    part, theta = _Dual.of(form), points.theta[days]
    theta[:, at:].clamp_(min=0)
    weights, duals = torch.empty_like(form.q), torch.empty_like(theta)
    open_ = torch.arange(len(days), device=days.device)
    w, residual = part.weights(theta)
    for number in range(_STEPS + 1):
        # Step 1: which days still have a gradient; the others keep where they stand.
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
        # Step 2: Newton's step in the free duals, as far as it raises the dual.
        step = part.step(w, theta, residual)
        ahead = _search(part, theta, step, residual, rest)
        stay = rest.unsqueeze(-1)
        now = (theta, w, residual)
        theta, w, residual = (torch.where(stay, a, b) for a, b in zip(ahead, now, strict=True))
    # Step 3: slacks follow from the weights; what is not exact is polished.
    w, theta = weights, duals
    slack = form.target[:, at - form.factors :] - transposed(form.columns[:, :n, at:], w[:, :n])
    w[:, n:] = torch.where(theta[:, at:] > 0, 0.0, slack.clamp_min(0))
    norm = kkt_norm(form, w, theta[:, form.factors :])
    polish_rough(form, w, theta, norm)
    solved = norm <= tolerance
    points.put(days[solved], w[solved], theta[solved], norm[solved])
    return days[~solved]


def _search(
    part: _Dual, theta: Tensor, step: Tensor, residual: Tensor, open_: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """θ, w and residual where the dual's slope has fallen to half of what it was, or near there.

    The full step first, then, for the days ``open_`` (L,) that need it, a search along the step.
    The dual is concave: a slope that is not negative at the end of a step means a rise.
    """
    new, w, after, slope = _ahead(part, theta, step)
    first = (residual * (new - theta)).sum(-1)
    long = torch.nonzero(open_ & ~(slope.abs() <= 0.5 * first)).squeeze(-1)
    if not len(long):
        return new, w, after
    few, start, along = part.take(long), theta[long], step[long]
    found = new[long], w[long], after[long], slope[long]

    def slope_at(t: Tensor) -> Tensor:
        # What was found last stays: it is that of the length that the search returns.
        nonlocal found
        found = _ahead(few, start, t.unsqueeze(-1) * along)
        return found[3] / t

    own, every = first[long], torch.ones_like(first[long], dtype=torch.bool)
    secant_search(slope_at, own, slope[long], 0.5 * own, every, steps=_LINE_STEPS)
    new[long], w[long], after[long] = found[:3]
    return new, w, after


def _ahead(part: _Dual, theta: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """θ after a step, no λ below 0, w and residual there, and the slope along the step (L,)."""
    new = theta + step
    new[:, part.at :].clamp_(min=0)
    w, residual = part.weights(new)
    return new, w, residual, (residual * (new - theta)).sum(-1)
