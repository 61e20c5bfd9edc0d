"""A primal-dual interior point for a batch: few iterations however hard the day, an exact end.

Distances s > 0 to bounds and kinks have multipliers z > 0 with s·z → 0. A step linearises

    diag(d) w + q + C θ − z_l + z_u + v = 0,  Cᵀw = (x, e),  s·z = σμ,

v the cost's subgradient, μ the mean of s·z; eliminating s, z and w leaves the normal matrix
diag(I, 0) + Cᵀ diag(1/(d + z/s)) C of Newton's method on the dual. Each iteration solves it twice,
first with σ = 0 to choose σ (S. Mehrotra, On the implementation of a primal-dual interior point
method, SIAM J. Optim. 2, 1992). Once the gap is small, every iterate proposes an active set, which
is solved directly: a day whose proposal is right is finished, to the last digit, there and then.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .active_set import cholesky, polish, solve
from .problem import Points
from .residuals import point_units, proves_infeasible
from .standard_form import StandardForm, times, transposed

_PROPOSE = 1e-5
# How often a proposal is corrected.
_CORRECTIONS = 4
_LEAST_GAP = 1e-11
# The first iteration whose duals are tried as a proof of infeasibility.
_FIRST_PROOF = 4
_LEAST_REACH, _MOST_REACH = 0.95, 0.9999


def _inner_point(form: StandardForm) -> Tensor:
    """A point inside the bounds, a little away from them, near zero where there are none."""
    lower, upper = form.box.lower, form.box.upper
    room = (0.1 * (upper - lower)).clamp_max(1e-2)
    return torch.minimum(torch.maximum(torch.zeros_like(lower), lower + room), upper - room)


class _Pairs:
    """Complementary pairs (T, P, N): a distance s > 0 and its multiplier z > 0.

    Distances to the lower and upper bound and, with a cost, the amounts bought and sold, whose
    multipliers are c − v and c + v for the cost's subgradient v.
    """

    def __init__(self, form: StandardForm, w: Tensor, moving: Tensor) -> None:
        valid = [form.box.lower.isfinite() & moving, form.box.upper.isfinite() & moving]
        s = [w - form.box.lower, form.box.upper - w]
        z = [torch.ones_like(w), torch.ones_like(w)]
        self.costly = form.box.cost is not None
        if form.box.cost is not None and form.box.reference is not None:
            trade = w - form.box.reference
            valid += [moving & (form.box.cost > 0)] * 2
            s += [trade.clamp_min(0) + 1e-2, (-trade).clamp_min(0) + 1e-2]
            z += [form.box.cost, form.box.cost]
        self.valid = torch.stack(valid, 1)
        one = w.new_ones(())
        self.s = torch.where(self.valid, torch.stack(s, 1), one)
        self.z = torch.where(self.valid, torch.stack(z, 1), 0.0)
        self.count = self.valid.sum((-1, -2)).clamp_min(1)

    def take(self, days: Tensor) -> None:
        """Keep some of the days."""
        self.valid, self.s, self.z = self.valid[days], self.s[days], self.z[days]
        self.count = self.count[days]

    def gap(self) -> Tensor:
        """The mean of s·z, (T,)."""
        return (self.s * self.z).sum((-1, -2)) / self.count

    def multiplier(self) -> Tensor:
        """−z_l + z_u + v, their part of the gradient."""
        part = self.z[:, 1] - self.z[:, 0]
        return part + 0.5 * (self.z[:, 3] - self.z[:, 2]) if self.costly else part

    def curvature(self) -> Tensor:
        """What they add to d, (T, N)."""
        ratio = self.z / self.s
        out = ratio[:, 0] + ratio[:, 1]
        return out + 1 / self._ease() if self.costly else out

    def offset(self, aim: Tensor) -> Tensor:
        """What moving every s·z to ``aim`` adds to the gradient at Δw = 0."""
        zeta = aim[:, :2] / self.s[:, :2] - self.z[:, :2]
        out = zeta[:, 1] - zeta[:, 0]
        if self.costly:
            out = out - self._trade(aim) / self._ease()
        return out

    def _rates(self) -> Tensor:
        """s/z of the amounts, (T, 2, N)."""
        return self.s[:, 2:] / self.z[:, 2:].clamp_min(1e-300)

    def _ease(self) -> Tensor:
        return torch.where(self.valid[:, 2], self._rates().sum(1), torch.inf)

    def _moved(self, aim: Tensor) -> Tensor:
        """The change of the amounts that moving their s·z to ``aim`` makes at the same v."""
        return aim[:, 2:] / self.z[:, 2:].clamp_min(1e-300) - self.s[:, 2:]

    def _trade(self, aim: Tensor) -> Tensor:
        """The change of w that :meth:`_moved` makes."""
        part = self._moved(aim)
        return torch.where(self.valid[:, 2], part[:, 0] - part[:, 1], 0.0)

    def direction(self, dw: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """(Δs, Δz) (T, P, N) for a step Δw (T, N)."""
        ds = [dw, -dw]
        if self.costly:
            dv = (dw - self._trade(aim)) / self._ease()
            rate, moved = self._rates(), self._moved(aim)
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
            (-ds / self.s).amax((-1, -2)), (-dz / self.z.clamp_min(1e-300)).amax((-1, -2))
        )
        return 1 / shrink.clamp_min(1.0)


def _proposal(form: StandardForm, w: Tensor, ratio: Tensor, pairs: _Pairs) -> Tensor:
    """Weights with every name at the bound or reference that its multiplier says holds it.

    ``ratio`` (T,) is the unit of the weights over that of the multipliers.
    """
    at = pairs.valid & (pairs.s < ratio[:, None, None] * pairs.z)
    w = torch.where(at[:, 0], form.box.lower, w)
    w = torch.where(at[:, 1], form.box.upper, w)
    if form.box.reference is not None:
        still = at[:, 2] & at[:, 3] & ~at[:, 0] & ~at[:, 1]
        w = torch.where(still, form.box.reference, w)
    return w


@dataclass
class _Iterate:
    """The ``days`` at work: where they stand, and how far from optimal that is.

    ``residual`` (L, K) and ``gradient`` (L, N) are those of the dual and primal equations, ``size``
    (L,) the largest of errors and gap in the point's own units, ``span`` and ``scale`` (L,) the
    units of weights and of the gradient.
    """

    days: Tensor
    form: StandardForm
    w: Tensor
    theta: Tensor
    moving: Tensor
    pairs: _Pairs

    @classmethod
    def of(cls, form: StandardForm, days: Tensor) -> _Iterate:
        b, k = form.take(days), form.factors
        moving = b.box.upper > b.box.lower
        w = torch.where(moving, _inner_point(b), b.box.lower)
        theta = w.new_zeros(len(days), b.columns.shape[-1])
        theta[:, :k] = transposed(b.columns[..., :k], w)
        return cls(days, b, w, theta, moving, _Pairs(b, w, moving))

    def measure(self) -> None:
        """Find residuals and gap."""
        b, k, w, theta = self.form, self.form.factors, self.w, self.theta
        self.gap = self.pairs.gap()
        self.residual = b.residual(w, theta)
        gradient = b.d * w + b.q + times(b.columns, theta) + self.pairs.multiplier()
        self.gradient = gradient * self.moving
        # Everything in the point's own units: a hedged portfolio's gradient is small beside Σ.
        risk = b.d * w + times(b.columns[..., :k], theta[:, :k])
        rows = times(b.columns[..., k:], theta[:, k:])
        self.span, self.scale = point_units(b, w, risk, rows)
        error = self.gradient.abs().amax(-1) / self.scale
        parts = (self.residual[:, :k], self.scale), (self.residual[:, k:], self.span)
        for part, unit in parts:
            if part.shape[-1]:
                error = torch.maximum(error, part.abs().amax(-1) / unit)
        self.size = torch.maximum(error, self.gap / (self.span * self.scale))

    def keep(self, some: Tensor) -> None:
        """Drop the other days."""
        self.form = self.form.take(some)
        self.pairs.take(some)
        for name in ("days", "w", "theta", "moving", "gap", "residual", "gradient"):
            setattr(self, name, getattr(self, name)[some])

    def step(self) -> None:
        """One predictor and corrector."""
        b, k, pairs, gap = self.form, self.form.factors, self.pairs, self.gap
        inverse = self.moving / (b.d + pairs.curvature()).clamp_min(1e-14)
        scaled = b.columns * inverse.sqrt().unsqueeze(-1)
        factor = cholesky(scaled.mT @ scaled, k)

        def direction(aim: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            shifted = self.gradient + pairs.offset(aim)
            dt = solve(factor, self.residual - transposed(b.columns, shifted * inverse))
            dw = -(shifted + times(b.columns, dt)) * inverse
            return dw, dt, *pairs.direction(dw, aim)

        # The predictor aims at s·z = 0: how far it gets tells how much centring the step needs.
        *_, ds, dz = direction(torch.zeros_like(pairs.s))
        reach = pairs.longest(ds, dz)[:, None, None]
        ahead = ((pairs.s + reach * ds) * (pairs.z + reach * dz) * pairs.valid).sum((-1, -2))
        centring = (ahead / pairs.count / gap.clamp_min(1e-300)).clamp(0, 1) ** 3
        # The corrector aims there, and takes the predictor's second-order error out.
        aim = ((centring * gap)[:, None, None] - ds * dz) * pairs.valid
        dw, dt, ds, dz = direction(aim)
        length = (1 - gap).clamp(_LEAST_REACH, _MOST_REACH) * pairs.longest(ds, dz)
        self.w, self.theta = self.w + length[:, None] * dw, self.theta + length[:, None] * dt
        length = length[:, None, None]
        pairs.s, pairs.z = pairs.s + length * ds, pairs.z + length * dz


def interior_point(
    form: StandardForm, points: Points, days: Tensor, *, tolerance: float, max_iterations: int
) -> Tensor:
    """Advance ``days`` of ``points``; the days (L,) that are left have a near solution."""
    at, left = _Iterate.of(form, days), []
    for iteration in range(max_iterations):
        at.measure()
        # Step 1: days that are near propose an active set; the right one ends them.
        finished = _propose(at, points, tolerance)
        # Step 2: days that cannot come nearer, and days proved infeasible, end as they are.
        stuck = (at.size <= _LEAST_GAP) & ~finished
        proof = torch.zeros_like(finished)
        if iteration >= _FIRST_PROOF:
            y = at.theta[:, form.factors :]
            proof = proves_infeasible(at.form, y) & ~finished
            points.infeasible[at.days[proof]] = True
            points.theta[at.days[proof], form.factors :] = y[proof]
        over = finished | stuck | proof
        points.iterations[at.days[over]] += iteration
        if bool(over.any()):
            points.w[at.days[stuck]], points.theta[at.days[stuck]] = at.w[stuck], at.theta[stuck]
            left.append(at.days[stuck])
            at.keep(torch.nonzero(~over).squeeze(-1))
            if not len(at.days):
                break
        # Step 3: the others take a step.
        at.step()
    if len(at.days):
        points.iterations[at.days] += max_iterations
        points.w[at.days], points.theta[at.days] = at.w, at.theta
        left.append(at.days)
    return torch.cat(left).sort().values if left else at.days


def _propose(at: _Iterate, points: Points, tolerance: float) -> Tensor:
    """Put the optimum on the active sets that near days propose; the days (L,) this solves."""
    finished = torch.zeros_like(at.size, dtype=torch.bool)
    near = torch.nonzero(at.size <= _PROPOSE).squeeze(-1)
    if len(near):
        k = at.form.factors
        guess = _proposal(at.form, at.w, at.span / at.scale, at.pairs)[near]
        # Where there is no interior duals grow without end: none of them is kept.
        first = torch.nn.functional.pad(at.theta[near, :k], (0, at.theta.shape[-1] - k))
        exact = polish(at.form.take(near), guess, first, _CORRECTIONS)
        points.put(at.days[near], *exact)
        finished[near] = exact[2] <= tolerance
    return finished
