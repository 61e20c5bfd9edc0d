"""A few interior-point steps on the names and rows that matter: duals near the optimum, cheaply.

With limits and costs few names are free and the dual is nearly piecewise linear, so Newton's method
on it needs a start near the end. Most names stay at their lower bound and most rows slack: Mehrotra's
predictor and corrector with a pool of both comes near at a fraction of the price of the whole, and
what the pool left out is seen to by :mod:`.structured_rows`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .structured_active import pick, solve
from .structured_batch import Batch, Box, times, transposed
from .structured_start import diagonal_start

_STEPS = 9
# Size of gap and residuals at which Newton's method takes over.
_NEAR = 1e-5
# Names in the pool besides those held before, and the share of all from which all take part.
_NAMES, _WORTH = 48, 0.6
# Rows in the pool, and how many more than those that the first weights violate.
_ROWS, _MORE_ROWS = 12, 4
_FIRST_DUAL, _FIRST_DISTANCE = 0.1, 1e-2
_LEAST_ROW, _TINY = 1e-11, 1e-300
_LEAST_REACH, _MOST_REACH = 0.95, 0.9999


def approach(batch: Batch, ones: int) -> tuple[Tensor, int]:
    """θ (T, K) near the optimum, with zero for the duals of rows that look slack; steps taken.

    For d > 0; ``ones`` is 1 if the first row is the budget. A day that has no solution gets
    whatever it had come to.
    """
    k, K, names = batch.factors, batch.columns.shape[-1], _Names.of(batch)
    start = names.pool(names.q, k + ones).start(ones)
    gradient = names.q + times(names.columns[..., : k + ones], start)
    pool = names.pool(gradient, K)
    weights = pool.box().prox(pool.q + times(pool.columns[..., : k + ones], start), pool.d)
    pool = pool.with_rows(weights, K - batch.slacks)
    theta, binding, steps = _interior(pool, start, weights)
    return pool.spread(theta, binding, K), steps


@dataclass(frozen=True)
class _Names:
    """All names (T, n): costs at or outside a bound are slopes, and belong to ``q``.

    ``kink`` marks the others that cost, ``kinks`` is the most of them in a day.
    """

    columns: Tensor
    q: Tensor
    d: Tensor
    lower: Tensor
    upper: Tensor
    cost: Tensor | None
    reference: Tensor | None
    kink: Tensor
    kinks: int
    target: Tensor
    factors: int

    @classmethod
    def of(cls, batch: Batch) -> _Names:
        box, k, n = batch.box, batch.factors, batch.q.shape[-1] - batch.slacks
        lower, upper, q, d = box.lower[:, :n], box.upper[:, :n], batch.q[:, :n], batch.d[:, :n]
        kink, kinks = torch.zeros_like(lower, dtype=torch.bool), 0
        cost = reference = None
        if box.cost is not None and box.reference is not None:
            cost, reference = box.cost[:, :n], box.reference[:, :n]
            above, below = reference <= lower, reference >= upper
            q = q + torch.where(above, cost, torch.where(below, -cost, 0.0))
            kink = ~(above | below) & (cost > 0)
            kinks = int(kink.sum(-1).amax())
        target = torch.nn.functional.pad(batch.target, (k, 0))
        # A name outside the problem has d = 0, and stays at zero whatever its d.
        d = d.masked_fill(d == 0, 1.0)
        columns = batch.columns[:, :n]
        return cls(columns, q, d, lower, upper, cost, reference, kink, kinks, target, k)

    def pool(self, gradient: Tensor, columns: int) -> _Pool:
        """The names with a kink and those with the lowest ``gradient`` (T, n); all if near that."""
        n, width = self.q.shape[-1], self.kinks + _NAMES
        if width > _WORTH * n or not bool(self.lower.isfinite().all()):
            width = n
        score = gradient.masked_fill(self.kink, -torch.inf)
        score = score.masked_fill(self.upper <= self.lower, torch.inf)
        place = score.topk(width, largest=False).indices
        target = self.target[:, :columns]
        if width < n and bool(self.lower.any()):
            held = self.lower.scatter(-1, place, 0.0)
            target = target - transposed(self.columns[..., :columns], held)
        first, none = place[:, : self.kinks], self.q[:, :0]
        if self.cost is None or self.reference is None:
            cost = reference = none
        else:
            cost = (self.cost * self.kink).gather(-1, first)
            reference = self.reference.gather(-1, first)
        q, d, lower, upper = (
            value.gather(-1, place) for value in (self.q, self.d, self.lower, self.upper)
        )
        some = pick(self.columns[..., :columns], place)
        rows = torch.arange(0, device=q.device).expand(len(q), -1)
        return _Pool(some, q, d, lower, upper, cost, reference, target, rows, place, self.factors)


@dataclass(frozen=True)
class _Pool:
    """Names at work (T, F), the first H with a kink inside their bounds, and rows (T, R).

    ``columns`` (T, F, k + e + R) has factors, equalities and the rows; ``target`` is what the
    names have to add up to, after what the others hold. ``cost`` and ``reference`` (T, H).
    """

    columns: Tensor
    q: Tensor
    d: Tensor
    lower: Tensor
    upper: Tensor
    cost: Tensor
    reference: Tensor
    target: Tensor
    rows: Tensor
    place: Tensor
    factors: int

    def box(self) -> Box:
        more = self.q.shape[-1] - self.cost.shape[-1]
        if more == self.q.shape[-1]:
            return Box(self.lower, self.upper)
        pad = torch.nn.functional.pad
        return Box(
            self.lower, self.upper, pad(self.cost, (0, more)), pad(self.reference, (0, more))
        )

    def start(self, ones: int) -> Tensor:
        """θ (T, k + ones) of the solution whose Σ is diagonal, without the rows."""
        k, B = self.factors, self.columns[..., : self.factors]
        if ones:
            fixed = torch.nn.functional.pad(-self.target[:, k:], (k, 0))
            return diagonal_start(B, self.q, self.d, self.box(), fixed, k)
        return transposed(B, self.box().prox(self.q, self.d + B.square().sum(-1)))

    def with_rows(self, w: Tensor, at: int) -> _Pool:
        """Only the rows that weights ``w`` (T, F) violate or come nearest to."""
        m = self.columns.shape[-1] - at
        if m <= _ROWS:
            rows = torch.arange(m, device=w.device).expand(len(w), -1)
            return replace(self, rows=rows)
        over = transposed(self.columns[..., at:], w) - self.target[:, at:]
        count = max(_ROWS, int((over > 0).sum(-1).amax()) + _MORE_ROWS)
        rows = over.topk(min(count, m), sorted=False).indices
        some = rows.unsqueeze(1).expand(-1, self.q.shape[-1], -1)
        some = self.columns[..., at:].gather(-1, some)
        return replace(
            self,
            columns=torch.cat([self.columns[..., :at], some], -1),
            target=torch.cat([self.target[:, :at], self.target[:, at:].gather(-1, rows)], -1),
            rows=rows,
        )

    def spread(self, theta: Tensor, binding: Tensor, size: int) -> Tensor:
        """θ of all rows (T, K)."""
        R = self.rows.shape[-1]
        at = theta.shape[-1] - R
        out = theta.new_zeros(len(theta), size)
        out[:, :at] = theta[:, :at]
        out[:, at:].scatter_(-1, self.rows, theta[:, at:] * binding)
        return out


def _interior(pool: _Pool, start: Tensor, w: Tensor) -> tuple[Tensor, Tensor, int]:
    """θ (T, K), which rows' multipliers exceed their slack (T, R), and the steps taken.

    Pairs (T, P) of distances s and multipliers z: names' lower and upper bounds, then, for names
    with a kink, what is bought and sold, whose multipliers are c − v and c + v for the cost's
    subgradient v, then the rows.
    """
    columns, d, k = pool.columns, pool.d, pool.factors
    F, H, R = d.shape[-1], pool.cost.shape[-1], pool.rows.shape[-1]
    at = columns.shape[-1] - R
    low, high = slice(0, F), slice(F, 2 * F)
    bought, sold = slice(2 * F, 2 * F + H), slice(2 * F + H, 2 * F + 2 * H)
    row = slice(2 * F + 2 * H, None)
    moving, kink = pool.upper > pool.lower, pool.cost > 0
    margin = (0.1 * (pool.upper - pool.lower)).clamp_max(_FIRST_DISTANCE)
    w = torch.minimum(torch.maximum(w, pool.lower + margin), pool.upper - margin)
    slack = (pool.target[:, at:] - transposed(columns[..., at:], w)).clamp_min(_FIRST_DISTANCE)
    trade = w[:, :H] - pool.reference
    spent, earned = trade.clamp_min(0), (-trade).clamp_min(0)
    s = torch.cat([w - pool.lower, pool.upper - w, spent + 1e-2, earned + 1e-2, slack], -1)
    bounded = moving & pool.lower.isfinite(), moving & pool.upper.isfinite()
    valid = torch.cat([*bounded, kink, kink, slack > 0], -1)
    theta = torch.zeros_like(pool.target)
    theta[:, : start.shape[-1]] = start
    theta[:, :k] = transposed(columns[..., :k], w)
    slope = d * w + pool.q + times(columns, theta)
    up, down = slope.clamp_min(0) + _FIRST_DUAL, (-slope).clamp_min(0) + _FIRST_DUAL
    theta[:, at:] = _FIRST_DUAL
    z = torch.cat([up, down, pool.cost, pool.cost, theta[:, at:]], -1)
    s, z = torch.where(valid, s, 1.0), torch.where(valid, z, 0.0)
    count = valid.sum(-1).clamp_min(1)
    own = torch.cat([d.new_ones(k), d.new_zeros(columns.shape[-1] - k)])
    ridge = torch.where(own > 0, own, _LEAST_ROW)
    for taken in range(_STEPS + 1):
        gap = (s * z).sum(-1) / count
        residual = transposed(columns, w) - own * theta - pool.target
        residual[:, at:] += s[:, row]
        slope = d * w + pool.q + times(columns, theta) - z[:, low] + z[:, high]
        slope[:, :H] += 0.5 * (z[:, sold] - z[:, bought])
        slope = slope * moving
        error = torch.maximum(residual.abs().amax(-1), slope.abs().amax(-1))
        if taken == _STEPS or not bool((torch.maximum(error, gap) > _NEAR).any()):
            break
        inverse_z = 1 / z.clamp_min(_TINY)
        ease, steep = s * inverse_z, z / s
        soft = torch.where(kink, 1 / (ease[:, bought] + ease[:, sold]), 0.0)
        curvature = d + steep[:, low] + steep[:, high]
        curvature[:, :H] += soft
        inverse = moving / curvature
        normal = columns.mT @ (columns * inverse.unsqueeze(-1))
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        diagonal += ridge
        diagonal[:, at:] += ease[:, row]
        factor, _ = torch.linalg.cholesky_ex(normal)

        def step(aim: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Δw, Δθ, Δs, Δz towards s·z = ``aim``, zero if None."""
            shift = -z if aim is None else aim / s - z  # noqa: B023
            move = -s if aim is None else aim * inverse_z - s  # noqa: B023
            shifted = slope - shift[:, low] + shift[:, high]  # noqa: B023
            lag = torch.where(kink, move[:, bought] - move[:, sold], 0.0)
            shifted[:, :H] -= lag * soft  # noqa: B023
            rhs = residual - transposed(columns, shifted * inverse)  # noqa: B023
            rhs[:, at:] += move[:, row]
            dt = solve(factor, rhs)  # noqa: B023
            dw = -(shifted + times(columns, dt)) * inverse  # noqa: B023
            dv, dy = (dw[:, :H] - lag) * soft, dt[:, at:]  # noqa: B023
            dz = [shift[:, :F] - steep[:, low] * dw, shift[:, high] + steep[:, high] * dw]  # noqa: B023
            ds = [
                dw,
                -dw,
                move[:, bought] + ease[:, bought] * dv,  # noqa: B023
                move[:, sold] - ease[:, sold] * dv,  # noqa: B023
                move[:, row] - ease[:, row] * dy,  # noqa: B023
            ]
            return dw, dt, torch.cat(ds, -1) * valid, torch.cat([*dz, -dv, dv, dy], -1) * valid

        def longest(ds: Tensor, dz: Tensor) -> Tensor:
            """The longest step (T,), at most 1, that leaves every s and z non-negative."""
            shrink = torch.maximum((-ds / s).amax(-1), (-dz * inverse_z).amax(-1))  # noqa: B023
            return 1 / shrink.clamp_min(1.0)

        *_, ds, dz = step(None)
        reach = longest(ds, dz).unsqueeze(-1)
        ahead = ((s + reach * ds) * (z + reach * dz) * valid).sum(-1) / count
        centring = (ahead / gap.clamp_min(_TINY)).clamp(0, 1) ** 3
        aim = ((centring * gap).unsqueeze(-1) - ds * dz) * valid
        dw, dt, ds, dz = step(aim)
        length = ((1 - gap).clamp(_LEAST_REACH, _MOST_REACH) * longest(ds, dz)).unsqueeze(-1)
        w, theta, s, z = w + length * dw, theta + length * dt, s + length * ds, z + length * dz
    return theta, s[:, row] < z[:, row], taken
