"""A primal-dual interior point for a batch: few iterations however hard the day, an exact end.

Mehrotra's predictor and corrector for bounds and costs, with the same normal matrix as Newton's
method on the dual. Once the gap is small, every iterate proposes an active set, which is solved
directly: a day whose proposal is right is finished, to the last digit, there and then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .active_set import cholesky, polished, solve
from .batch import Batch, point_units, proves_infeasible, times, transposed
from .dual_newton import Points

_PROPOSE = 1e-5
# How often a proposal is corrected.
_CORRECTIONS = 4
_LEAST_GAP = 1e-11
_LEAST_REACH, _MOST_REACH = 0.95, 0.9999


def _start(batch: Batch) -> Tensor:
    """A point inside the bounds, a little away from them, near zero where there are none."""
    lower, upper = batch.box.lower, batch.box.upper
    room = (0.1 * (upper - lower)).clamp_max(1e-2)
    return torch.minimum(torch.maximum(torch.zeros_like(lower), lower + room), upper - room)


class _Pairs:
    """Complementary pairs (T, P, N): a distance s > 0 and its multiplier z > 0.

    Distances to the lower and upper bound and, with a cost, the amounts bought and sold, whose
    multipliers are c − v and c + v for the cost's subgradient v.
    """

    def __init__(self, batch: Batch, w: Tensor, moving: Tensor) -> None:
        valid = [batch.box.lower.isfinite() & moving, batch.box.upper.isfinite() & moving]
        s = [w - batch.box.lower, batch.box.upper - w]
        z = [torch.ones_like(w), torch.ones_like(w)]
        self.costly = batch.box.cost is not None
        if batch.box.cost is not None and batch.box.reference is not None:
            trade = w - batch.box.reference
            valid += [moving & (batch.box.cost > 0)] * 2
            s += [trade.clamp_min(0) + 1e-2, (-trade).clamp_min(0) + 1e-2]
            z += [batch.box.cost, batch.box.cost]
        self.valid = torch.stack(valid, 1)
        one = w.new_ones(())
        self.s = torch.where(self.valid, torch.stack(s, 1), one)
        self.z = torch.where(self.valid, torch.stack(z, 1), 0.0)
        self.count = self.valid.sum((-1, -2)).clamp_min(1)

    def take(self, days: Tensor) -> None:
        self.valid, self.s, self.z = self.valid[days], self.s[days], self.z[days]
        self.count = self.count[days]

    def gap(self) -> Tensor:
        return (self.s * self.z).sum((-1, -2)) / self.count

    def multiplier(self) -> Tensor:
        """−z_l + z_u + v, their part of the gradient."""
        part = self.z[:, 1] - self.z[:, 0]
        return part + 0.5 * (self.z[:, 3] - self.z[:, 2]) if self.costly else part

    def curvature(self) -> Tensor:
        ratio = self.z / self.s
        out = ratio[:, 0] + ratio[:, 1]
        if self.costly:
            ease = self.s[:, 2:] / self.z[:, 2:].clamp_min(1e-300)
            out = out + torch.where(self.valid[:, 2], 1 / ease.sum(1), 0.0)
        return out

    def offset(self, aim: Tensor) -> Tensor:
        """What moving every s·z to ``aim`` adds to the gradient at Δw = 0."""
        zeta = aim[:, :2] / self.s[:, :2] - self.z[:, :2]
        out = zeta[:, 1] - zeta[:, 0]
        if self.costly:
            out = out - self._kappa(aim) / self._ease()
        return out

    def _ease(self) -> Tensor:
        ease = (self.s[:, 2:] / self.z[:, 2:].clamp_min(1e-300)).sum(1)
        return torch.where(self.valid[:, 2], ease, torch.inf)

    def _kappa(self, aim: Tensor) -> Tensor:
        part = aim[:, 2:] / self.z[:, 2:].clamp_min(1e-300) - self.s[:, 2:]
        return torch.where(self.valid[:, 2], part[:, 0] - part[:, 1], 0.0)

    def direction(self, dw: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """(Δs, Δz) (T, P, N) for a step Δw (T, N)."""
        ds = [dw, -dw]
        if self.costly:
            dv = (dw - self._kappa(aim)) / self._ease()
            rate = self.s[:, 2:] / self.z[:, 2:].clamp_min(1e-300)
            moved = aim[:, 2:] / self.z[:, 2:].clamp_min(1e-300) - self.s[:, 2:]
            ds += [moved[:, 0] + rate[:, 0] * dv, moved[:, 1] - rate[:, 1] * dv]
        step_s = torch.stack(ds, 1) * self.valid
        bound = (aim[:, :2] - self.z[:, :2] * step_s[:, :2]) / self.s[:, :2] - self.z[:, :2]
        dz = [bound]
        if self.costly:
            dz.append(torch.stack([-dv, dv], 1))
        return step_s, torch.cat(dz, 1) * self.valid

    def longest(self, ds: Tensor, dz: Tensor) -> Tensor:
        """The longest step (T,), at most 1, that leaves every s and z non-negative."""
        shrink = torch.maximum(
            (-ds / self.s).amax((-1, -2)),
            (-dz / self.z.clamp_min(1e-300)).amax((-1, -2)),
        )
        return 1 / shrink.clamp_min(1.0)


def _proposal(batch: Batch, w: Tensor, ratio: Tensor, pairs: _Pairs) -> Tensor:
    """Weights with every name at the bound or reference that its multiplier says holds it.

    ``ratio`` (T,) is the unit of the weights over that of the multipliers.
    """
    at = pairs.valid & (pairs.s < ratio[:, None, None] * pairs.z)
    w = torch.where(at[:, 0], batch.box.lower, w)
    w = torch.where(at[:, 1], batch.box.upper, w)
    if batch.box.reference is not None:
        still = at[:, 2] & at[:, 3] & ~at[:, 0] & ~at[:, 1]
        w = torch.where(still, batch.box.reference, w)
    return w


def interior(
    batch: Batch, points: Points, days: Tensor, *, tolerance: float, max_iterations: int
) -> Tensor:
    """Advance ``days`` of ``points`` from their θ; the days that are left have a near solution."""
    k = batch.factors
    b = batch.take(days)
    moving = b.box.upper > b.box.lower
    w = _start(b)
    w = torch.where(moving, w, b.box.lower)
    theta = torch.zeros_like(points.theta[days])
    theta[:, :k] = transposed(b.columns[..., :k], w)
    pairs = _Pairs(b, w, moving)
    left = []
    for iteration in range(max_iterations):
        gap = pairs.gap()
        residual = b.residual(w, theta)
        gradient = b.d * w + b.q + times(b.columns, theta) + pairs.multiplier()
        gradient = gradient * moving
        # Everything in the point's own units: a hedged portfolio's gradient is small beside Σ.
        risk = b.d * w + times(b.columns[..., :k], theta[:, :k])
        span, scale = point_units(b, w, risk, times(b.columns[..., k:], theta[:, k:]))
        error = gradient.abs().amax(-1) / scale
        for part, unit in ((residual[:, :k], scale), (residual[:, k:], span)):
            if part.shape[-1]:
                error = torch.maximum(error, part.abs().amax(-1) / unit)
        size = torch.maximum(error, gap / (span * scale))
        finished = torch.zeros_like(size, dtype=torch.bool)
        near = torch.nonzero(size <= _PROPOSE).squeeze(-1)
        if len(near):
            guess = _proposal(b, w, span / scale, pairs)[near]
            # Where there is no interior duals grow without end: none of them is kept.
            first = torch.nn.functional.pad(theta[near, :k], (0, theta.shape[-1] - k))
            exact = polished(b.take(near), guess, first, _CORRECTIONS)
            points.put(days[near], *exact)
            finished[near] = exact[2] <= tolerance
        stuck = (size <= _LEAST_GAP) & ~finished
        if iteration >= 4:
            proof = proves_infeasible(b, theta[:, k:]) & ~finished
            points.infeasible[days[proof]] = True
            points.theta[days[proof], k:] = theta[proof, k:]
        else:
            proof = torch.zeros_like(finished)
        over = finished | stuck | proof
        points.iterations[days[over]] += iteration
        if bool(over.any()):
            points.w[days[stuck]], points.theta[days[stuck]] = w[stuck], theta[stuck]
            left.append(days[stuck])
            keep = torch.nonzero(~over).squeeze(-1)
            days, b = days[keep], b.take(keep)
            if not len(days):
                break
            pairs.take(keep)
            w, theta, moving, gap = w[keep], theta[keep], moving[keep], gap[keep]
            residual, gradient = residual[keep], gradient[keep]
        inverse = moving / (b.d + pairs.curvature()).clamp_min(1e-14)
        scaled = b.columns * inverse.sqrt().unsqueeze(-1)
        factor = cholesky(scaled.mT @ scaled, k)

        def step(aim: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            shifted = gradient + pairs.offset(aim)  # noqa: B023
            dt = solve(factor, residual - transposed(b.columns, shifted * inverse))  # noqa: B023
            dw = -(shifted + times(b.columns, dt)) * inverse  # noqa: B023
            return dw, dt, *pairs.direction(dw, aim)

        *_, ds, dz = step(torch.zeros_like(pairs.s))
        reach = pairs.longest(ds, dz)[:, None, None]
        ahead = ((pairs.s + reach * ds) * (pairs.z + reach * dz) * pairs.valid).sum((-1, -2))
        centring = (ahead / pairs.count / gap.clamp_min(1e-300)).clamp(0, 1) ** 3
        aim = ((centring * gap)[:, None, None] - ds * dz) * pairs.valid
        dw, dt, ds, dz = step(aim)
        length = (1 - gap).clamp(_LEAST_REACH, _MOST_REACH) * pairs.longest(ds, dz)
        w, theta = w + length[:, None] * dw, theta + length[:, None] * dt
        length = length[:, None, None]
        pairs.s, pairs.z = pairs.s + length * ds, pairs.z + length * dz
    if len(days):
        points.iterations[days] += max_iterations
        points.w[days], points.theta[days] = w, theta
        left.append(days)
    return torch.cat(left).sort().values if left else days
