"""Newton on the dual of batches with one budget and plain bounds: few calls, few names.

The dual function of θ = (x, ν), with w(θ) = clip(−(q + B x + ν)/d, l, u) name by name, has the
gradient (Bᵀw − x, 1ᵀw − budget) and the generalised Hessian −(diag(I, 0) + Cᵀ diag(free/d) C),
C = (B, 1), as in :mod:`.dual_newton`. Most names are at a bound and stay there, so steps are taken
with a pool of names that may move; the others are held where they are, then looked at again, until
they are where the duals want them. Within the pool no day is taken out and no free name gathered: a
batch costs what its calls cost, some twenty-five a step. What is not solved at the end goes on to
the general method.

Source: L. Qi and J. Sun, A nonsmooth version of Newton's method, Math. Programming 58 (1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.line_search import secant_search
from .active_set import pick, polish_rough
from .initial_point import diagonal_start
from .problem import Points
from .residuals import kkt_norm
from .standard_form import Box, StandardForm, times, transposed

BOX_STEPS = 14
_LINE_STEPS = 30
_ROUNDS = 6
# Names in the first pool; later ones hold twice the names that are free, if that is more.
_POOL = 48
# Numbers (T, N, K) up to which the calls of a second round cost more than all names in the first.
_WHOLE = 150_000
_SMALL, _SNAP = 1e-13, 1e-12
_LEAST = 1e-11


@dataclass
class _Pool:
    """The names at work (T, F), and what the others add to the dual's gradient, (T, K)."""

    columns: Tensor
    q: Tensor
    d: Tensor
    box: Box
    fixed: Tensor
    factors: int

    @classmethod
    def of(cls, form: StandardForm, place: Tensor | None, held: Tensor) -> _Pool:
        """Names at ``place`` (T, F), None for all; the others stay at ``held`` (T, N)."""
        box, k = form.box, form.factors
        fixed = torch.nn.functional.pad(-form.target, (k, 0))
        d = form.d.masked_fill(form.d == 0, 1.0)
        if place is None:
            return cls(form.columns, form.q, d, box, fixed, k)
        fixed = fixed + transposed(form.columns, held.scatter(-1, place, 0.0))
        names = (value.gather(-1, place) for value in (form.q, d, box.lower, box.upper))
        q, d, lower, upper = names
        return cls(pick(form.columns, place), q, d, Box(lower, upper), fixed, k)

    def start(self) -> Tensor:
        return diagonal_start(self.columns, self.q, self.d, self.box, self.fixed, self.factors)


def dual_newton_box(
    form: StandardForm, points: Points, tolerance: float, *, started: bool
) -> Tensor:
    """Solve all days; the days (L,) that are left, each where it stands.

    For batches with d > 0 in the problem, only the budget's row and no cost. Starts at
    ``points.theta`` where it has ``started``.
    """
    b, box, k, N = form, form.box, form.factors, form.q.shape[-1]
    days = torch.arange(len(b.q), device=b.q.device)
    # Weights that meet the budget: whatever is held of them leaves the pool something to do.
    theta, feasible = points.theta, torch.clamp(points.w, box.lower, box.upper)
    weights, place, pool = torch.empty_like(b.q), None, None
    if not started:
        feasible, place = box.lower, _cheapest(b)
        pool = _Pool.of(b, place, feasible)
        theta = pool.start()
    first, duals = theta, torch.empty_like(theta)
    for _ in range(_ROUNDS):
        # Step 1: the optimum of the pool, the other names held.
        if pool is not None:
            theta, count, held = _newton(pool, theta)
            points.iterations[days] += count
            feasible = held if place is None else feasible.scatter(-1, place, held)
        # Step 2: where these duals want every name; a day is done if none that is held moves.
        d = b.d.masked_fill(b.d == 0, 1.0)
        raw = -(b.q + times(b.columns, theta)) / d
        w = torch.clamp(raw, b.box.lower, b.box.upper)
        off = (w - feasible).abs() > _SNAP
        rest = off.any(-1)
        weights[days], duals[days] = w, theta
        if (pool is not None and place is None) or not bool(rest.any()):
            break
        # Step 3: the next pool, of the names that are off and those nearest to leaving a bound.
        away = ((raw - w).abs() * d).masked_fill(off, 0.0)
        rest = torch.nonzero(rest).squeeze(-1)
        if len(rest) < len(days):
            days, b, theta = days[rest], b.take(rest), theta[rest]
            feasible, away = feasible[rest], away[rest]
        moving = b.box.upper > b.box.lower
        width = max(_POOL, 2 * int((moving & (away == 0)).sum(-1).amax()))
        place = None
        if width <= N // 2:
            away = away.masked_fill(~moving, torch.inf)
            place = away.topk(width, largest=False, sorted=False).indices
        pool = _Pool.of(b, place, feasible)
    w, theta = weights, duals
    # A name at its bound's kink stops a rounding away from it; polishing sorts out the rest.
    w = box.snapped(w, _SNAP)
    norm = kkt_norm(form, w, theta[:, k:])
    polish_rough(form, w, theta, norm)
    solved = norm <= tolerance
    points.w, points.norm = w, norm
    points.theta = torch.where(solved.unsqueeze(-1), theta, first)
    return torch.nonzero(~solved).squeeze(-1)


def _cheapest(form: StandardForm) -> Tensor | None:
    """Places (T, F) of the highest forecasts; None for all, where those cannot hold the budget."""
    box = form.box
    if form.q.shape[-1] < 2 * _POOL or form.columns.numel() <= _WHOLE:
        return None
    cost = form.q.masked_fill(box.upper <= box.lower, torch.inf)
    place = cost.topk(_POOL, largest=False, sorted=False).indices
    room = (box.upper - box.lower).gather(-1, place).sum(-1)
    enough = room > form.target[:, 0] - box.lower.sum(-1)
    return place if bool(enough.all()) else None


def _newton(pool: _Pool, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """θ at which the pool's names are optimal, steps taken (T,), and the weights (T, F)."""
    columns, box, k, d = pool.columns, pool.box, pool.factors, pool.d
    scaled = columns / -d.unsqueeze(-1)
    base = (pool.q / -d).unsqueeze(-1)
    rows = columns.mT
    unit = columns.new_ones(columns.shape[-1])
    unit[k:] = _LEAST
    ridge = torch.diag(unit)
    own = torch.where(unit == 1, -1.0, 0.0)

    def at(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unbounded weights, weights and the dual's gradient."""
        raw = torch.baddbmm(base, scaled, theta.unsqueeze(-1)).squeeze(-1)
        w = torch.clamp(raw, box.lower, box.upper)
        start = torch.addcmul(pool.fixed, own, theta).unsqueeze(-1)
        return raw, w, torch.baddbmm(start, rows, w.unsqueeze(-1)).squeeze(-1)

    typical = (1 / d).mean(-1)
    taken = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    raw, w, residual = at(theta)
    for _ in range(BOX_STEPS):
        # Weights move by 1/d a unit of the duals: no residual is below what these are rounded to.
        free = raw == w
        small = _SMALL + 1e-15 * (free / d).sum(-1)
        open_ = ~(residual.abs().amax(-1) <= small)
        if not bool(open_.any()):
            break
        taken += open_
        # Step 1: Newton's step.
        normal = torch.baddbmm(ridge, rows, scaled * free.unsqueeze(-1), alpha=-1)
        # Where no name is free the budget's dual moves as one typical name would have it.
        normal[:, k, k] += torch.where(free.any(-1), 0.0, typical)
        factor, _ = torch.linalg.cholesky_ex(normal)
        step = torch.cholesky_solve(residual.unsqueeze(-1), factor).squeeze(-1)
        # Step 2: the full step, or as much of it as raises the dual enough.
        rise = (residual * step).sum(-1)
        next_theta = theta + step
        new = at(next_theta)
        slope = (new[2] * step).sum(-1)
        long = open_ & ~(slope.abs() <= 0.5 * rise)
        if bool(long.any()):
            length = _length(pool, raw, new[0], theta, step, rise, slope, long)
            next_theta = torch.addcmul(theta, length.unsqueeze(-1), step)
            new = at(next_theta)
        # A day that is done stays as it is, however long the others take.
        stay = open_.unsqueeze(-1)
        theta = torch.where(stay, next_theta, theta)
        raw, w, residual = (
            torch.where(stay, a, b) for a, b in zip(new, (raw, w, residual), strict=True)
        )
    return theta, taken, w


def _length(
    pool: _Pool,
    raw: Tensor,
    full: Tensor,
    theta: Tensor,
    step: Tensor,
    rise: Tensor,
    slope: Tensor,
    long: Tensor,
) -> Tensor:
    """Step lengths (T,) at which the dual's slope has fallen to half of ``rise``; 1 where not long.

    ``raw`` and ``full`` (T, F) are the unbounded weights at both ends of the full step.
    """
    box, k = pool.box, pool.factors
    change = full - raw
    along = change * -pool.d
    constant = (theta[:, :k] * step[:, :k]).sum(-1) - (pool.fixed * step).sum(-1)
    curvature = step[:, :k].square().sum(-1)

    def slope_at(t: Tensor) -> Tensor:
        w = torch.clamp(torch.addcmul(raw, t.unsqueeze(-1), change), box.lower, box.upper)
        return (w * along).sum(-1) - constant - t * curvature

    return secant_search(slope_at, rise, slope, 0.5 * rise, long, steps=_LINE_STEPS)
