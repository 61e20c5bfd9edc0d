"""A few interior-point steps on the names and rows that matter: duals near the optimum, cheaply.

With limits and costs few names are free and the dual is nearly piecewise linear, so Newton's method
on it needs a start near the end. Most names stay at their lower bound and most rows slack: the
predictor and corrector of :mod:`.interior_point` (S. Mehrotra, 1992) with a pool of both comes near
at a fraction of the price of the whole, and :mod:`.dual_newton_rows` sees to what the pool left
out. A cost's kink is taken away by splitting a trade into what is bought and what is sold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .active_set import pick, solve
from .initial_point import diagonal_start
from .standard_form import Box, StandardForm, times, transposed

_STEPS = 12
# Size of gap and residuals at which Newton's method takes over.
_NEAR = 1e-5
# Names in the pool besides those that have a kink, and the share of all from which all take part.
_NAMES, _WORTH = 48, 0.6
# Rows in the pool, and how many more than those that the first weights violate.
_ROWS, _MORE_ROWS = 12, 4
_FIRST_DUAL, _FIRST_DISTANCE = 0.1, 1e-2
_LEAST_ROW, _TINY = 1e-11, 1e-300
_LEAST_REACH, _MOST_REACH = 0.95, 0.9999


def interior_start(form: StandardForm) -> tuple[Tensor, int]:
    """θ (T, K) near the optimum, with zero for the duals of rows that look slack; steps taken.

    For d > 0. A day that has no solution gets whatever it had come to.
    """
    k, ones, names = form.factors, form.budget_rows, _Names.of(form)
    # Step 1: the pool of names, from the gradient where Σ is its diagonal alone.
    start = names.pool(names.q, k + ones).start(ones)
    gradient = names.q + times(names.columns[..., : k + ones], start)
    pool = names.pool(gradient, form.columns.shape[-1])
    # Step 2: the pool of rows, from the weights there.
    weights = pool.box.prox(pool.q + times(pool.columns[..., : k + ones], start), pool.d)
    pool = pool.with_rows(weights, form.first_slack_row)
    # Step 3: the interior point on both.
    theta, binding, steps = _interior(pool, start, weights)
    at = theta.shape[-1] - pool.rows.shape[-1]
    out = theta.new_zeros(len(theta), form.columns.shape[-1])
    out[:, :at] = theta[:, :at]
    out[:, form.first_slack_row :].scatter_(-1, pool.rows, theta[:, at:] * binding)
    return out, steps


@dataclass(frozen=True)
class _Names:
    """All names (T, n). A cost whose kink is at or outside a bound is a slope, part of ``q``.

    ``kink`` marks the names with a cost left, ``kinks`` is the most of them in a day.
    """

    columns: Tensor
    q: Tensor
    d: Tensor
    box: Box
    kink: Tensor
    kinks: int
    target: Tensor
    factors: int

    @classmethod
    def of(cls, form: StandardForm) -> _Names:
        box, k, n = form.box, form.factors, form.names
        lower, upper, q, d = box.lower[:, :n], box.upper[:, :n], form.q[:, :n], form.d[:, :n]
        kink, kinks = torch.zeros_like(lower, dtype=torch.bool), 0
        cost = reference = None
        if box.cost is not None and box.reference is not None:
            cost, reference = box.cost[:, :n], box.reference[:, :n]
            above, below = reference <= lower, reference >= upper
            q = q + torch.where(above, cost, torch.where(below, -cost, 0.0))
            kink = ~(above | below) & (cost > 0)
            kinks = int(kink.sum(-1).amax())
            cost = cost * kink
        # A name outside the problem has d = 0, and stays at zero whatever its d.
        d = d.masked_fill(d == 0, 1.0)
        box = Box(lower, upper, cost, reference) if kinks else Box(lower, upper)
        return cls(form.columns[:, :n], q, d, box, kink, kinks, pad(form.target, (k, 0)), k)

    def pool(self, gradient: Tensor, columns: int) -> _Pool:
        """The names with a kink and those with the lowest ``gradient`` (T, n); all if near that."""
        n, width, box = self.q.shape[-1], self.kinks + _NAMES, self.box
        if width > _WORTH * n or not bool(box.lower.isfinite().all()):
            width = n
        score = gradient.masked_fill(self.kink, -torch.inf)
        score = score.masked_fill(box.upper <= box.lower, torch.inf)
        place = score.topk(width, largest=False).indices
        target = self.target[:, :columns]
        if width < n and bool(box.lower.any()):
            held = box.lower.scatter(-1, place, 0.0)
            target = target - transposed(self.columns[..., :columns], held)

        def part(value: Tensor) -> Tensor:
            return value.gather(-1, place)

        bounds = Box(part(box.lower), part(box.upper))
        if box.cost is not None and box.reference is not None:
            bounds = replace(bounds, cost=part(box.cost), reference=part(box.reference))
        some = pick(self.columns[..., :columns], place)
        q, d, no_rows = part(self.q), part(self.d), place[:, :0]
        return _Pool(some, q, d, bounds, target, no_rows, self.kinks, self.factors)


@dataclass(frozen=True)
class _Pool:
    """Names at work (T, F), all kinks among the first ``kinks``, and the ``rows`` at work (T, R).

    ``columns`` (T, F, k + e + R) has factors, equalities and the rows; ``target`` is what the
    names have to add up to, after what the others hold.
    """

    columns: Tensor
    q: Tensor
    d: Tensor
    box: Box
    target: Tensor
    rows: Tensor
    kinks: int
    factors: int

    def start(self, ones: int) -> Tensor:
        """θ (T, k + ones) of the solution whose Σ is diagonal, without the rows."""
        k, B = self.factors, self.columns[..., : self.factors]
        if ones:
            return diagonal_start(B, self.q, self.d, self.box, pad(-self.target[:, k:], (k, 0)), k)
        return transposed(B, self.box.prox(self.q, self.d + B.square().sum(-1)))

    def with_rows(self, w: Tensor, at: int) -> _Pool:
        """Only the rows that weights ``w`` (T, F) violate or come nearest to."""
        m = self.columns.shape[-1] - at
        if m <= _ROWS:
            return replace(self, rows=torch.arange(m, device=w.device).expand(len(w), -1))
        over = transposed(self.columns[..., at:], w) - self.target[:, at:]
        count = max(_ROWS, int((over > 0).sum(-1).amax()) + _MORE_ROWS)
        rows = over.topk(min(count, m), sorted=False).indices
        some = rows.unsqueeze(1).expand(-1, self.q.shape[-1], -1)
        some = self.columns[..., at:].gather(-1, some)
        target = torch.cat([self.target[:, :at], self.target[:, at:].gather(-1, rows)], -1)
        columns = torch.cat([self.columns[..., :at], some], -1)
        return replace(self, columns=columns, target=target, rows=rows)

    def split(self, w: Tensor) -> tuple[_Pool, Tensor]:
        """Names with a kink as two without, what is bought u and what is sold v; and so ``w``.

        Since uv = 0 at the optimum, ½d(u² + v²) does for ½d(u − v)².
        """
        box, H = self.box, self.kinks
        if box.cost is None or box.reference is None:
            return self, w
        q, d, cost = self.q[:, :H], self.d[:, :H], box.cost[:, :H]
        kink = cost > 0
        base = torch.where(kink, box.reference[:, :H], 0.0)
        slope = torch.where(kink, q + d * base, 0.0)
        lower = torch.where(kink, 0.0, box.lower[:, :H])
        room = torch.where(kink, base - box.lower[:, :H], 0.0)

        def joined(bought: Tensor, rest: Tensor, sold: Tensor) -> Tensor:
            return torch.cat([bought, rest[:, H:], sold], 1)

        w = joined(w[:, :H] - base, w, (base - w[:, :H]) * kink)
        pool = _Pool(
            columns=torch.cat([self.columns, -self.columns[:, :H]], 1),
            q=joined(torch.where(kink, slope + cost, q), self.q, cost - slope),
            d=joined(d, self.d, d),
            box=Box(
                joined(lower, box.lower, torch.zeros_like(room)),
                joined(box.upper[:, :H] - base, box.upper, room),
            ),
            target=self.target - transposed(self.columns[:, :H], base),
            rows=self.rows,
            kinks=0,
            factors=self.factors,
        )
        return pool, w


def _interior(pool: _Pool, start: Tensor, w: Tensor) -> tuple[Tensor, Tensor, int]:
    """θ (T, K), which rows' multipliers exceed their slack (T, R), and the steps taken.

    Distances s and multipliers z (T, P) are those of lower bounds, upper bounds and rows.
    """
    pool, w = pool.split(w)
    columns, d, k = pool.columns, pool.d, pool.factors
    F, R = d.shape[-1], pool.rows.shape[-1]
    at = columns.shape[-1] - R
    low, high, row = slice(0, F), slice(F, 2 * F), slice(2 * F, None)
    moving = pool.box.upper > pool.box.lower
    w, theta, s, z, valid = _first_point(pool, start, w, moving, at)
    count = valid.sum(-1).clamp_min(1)
    own = pad(d.new_ones(k), (0, columns.shape[-1] - k))
    ridge = torch.where(own > 0, own, _LEAST_ROW)
    rows = columns.mT
    for taken in range(_STEPS + 1):
        # Step 1: gap and residuals.
        gap = (s * z).sum(-1) / count
        residual = transposed(columns, w) - torch.addcmul(pool.target, own, theta)
        residual[:, at:] += s[:, row]
        slope = torch.addcmul(pool.q, d, w) + times(columns, theta) - z[:, low] + z[:, high]
        slope = slope * moving
        error = torch.maximum(residual.abs().amax(-1), slope.abs().amax(-1))
        if taken == _STEPS or not bool((torch.maximum(error, gap) > _NEAR).any()):
            break
        # Step 2: the normal matrix, once for both directions.
        steep, ease = z / s, s[:, row] / z[:, row]
        inverse = moving / (d + steep[:, low] + steep[:, high])
        normal = rows @ (columns * inverse.unsqueeze(-1))
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        diagonal += ridge
        diagonal[:, at:] += ease
        factor, _ = torch.linalg.cholesky_ex(normal)

        def step(shift: Tensor, move: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Δw, Δθ, Δs, Δz for shift = aim/s − z, and move = aim/z − s of the rows."""
            shifted = slope - shift[:, low] + shift[:, high]  # noqa: B023
            rhs = residual - transposed(columns, shifted * inverse)  # noqa: B023
            rhs[:, at:] += move
            dt = solve(factor, rhs)  # noqa: B023
            dw = (shifted + times(columns, dt)) * -inverse  # noqa: B023
            ds = torch.cat([dw, -dw, move - ease * dt[:, at:]], -1) * valid  # noqa: B023
            return dw, dt, ds, shift - steep * ds  # noqa: B023

        # Step 3: the predictor, which chooses the centring, and the corrector.
        *_, ds, dz = step(-z, -s[:, row])
        reach = _longest(s, z, ds, dz)
        ahead = (torch.addcmul(s, reach, ds) * torch.addcmul(z, reach, dz)).sum(-1) / count
        centring = (ahead / gap.clamp_min(_TINY)).clamp(0, 1) ** 3
        aim = ((centring * gap).unsqueeze(-1) - ds * dz) * valid
        dw, dt, ds, dz = step(aim / s - z, aim[:, row] / z[:, row] - s[:, row])
        length = (1 - gap).clamp(_LEAST_REACH, _MOST_REACH).unsqueeze(-1) * _longest(s, z, ds, dz)
        w, theta = torch.addcmul(w, length, dw), torch.addcmul(theta, length, dt)
        s, z = torch.addcmul(s, length, ds), torch.addcmul(z, length, dz)
    return theta, s[:, row] < z[:, row], taken


def _first_point(
    pool: _Pool, start: Tensor, w: Tensor, moving: Tensor, at: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """w (T, F), θ (T, K), s, z, and which of these pairs there are, (T, P), from ``start``."""
    columns, k, lower, upper = pool.columns, pool.factors, pool.box.lower, pool.box.upper
    margin = (0.1 * (upper - lower)).clamp_max(_FIRST_DISTANCE)
    w = torch.minimum(torch.maximum(w, lower + margin), upper - margin)
    slack = (pool.target[:, at:] - transposed(columns[..., at:], w)).clamp_min(_FIRST_DISTANCE)
    theta = pad(start, (0, columns.shape[-1] - start.shape[-1]))
    theta[:, :k] = transposed(columns[..., :k], w)
    slope = pool.d * w + pool.q + times(columns, theta)
    theta[:, at:] = _FIRST_DUAL
    bounded = moving & lower.isfinite(), moving & upper.isfinite()
    valid = torch.cat([*bounded, torch.ones_like(slack, dtype=torch.bool)], -1)
    s = torch.where(valid, torch.cat([w - lower, upper - w, slack], -1), 1.0)
    z = torch.cat([slope.clamp_min(0), (-slope).clamp_min(0), 0 * slack], -1) + _FIRST_DUAL
    return w, theta, s, z * valid, valid


def _longest(s: Tensor, z: Tensor, ds: Tensor, dz: Tensor) -> Tensor:
    """The longest step (T, 1), at most 1, that leaves every s and z non-negative."""
    shrink = torch.maximum(-ds / s, -dz / z.clamp_min(_TINY))
    return 1 / shrink.amax(-1, keepdim=True).clamp_min(1.0)
