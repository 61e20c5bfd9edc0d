"""A batch of structured QPs in one scaled form: every row an equality, slacks as further names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...problems.solution import CANCELLED, ZERO

# Weights this far out, in units of the batch, are none.
_FARTHEST = 1e8


@dataclass(frozen=True)
class Box:
    """Bounds and costs, name by name: ``lower``, ``upper``, and ``cost`` c with ``reference`` w⁰.

    All (T, N); the last two are None where c = 0.
    """

    lower: Tensor
    upper: Tensor
    cost: Tensor | None = None
    reference: Tensor | None = None

    def take(self, days: Tensor) -> Box:
        """Some of the days."""
        if self.cost is None or self.reference is None:
            return Box(self.lower[days], self.upper[days])
        tensors = (self.lower, self.upper, self.cost, self.reference)
        return Box(*(t[days] for t in tensors))

    def prox(self, linear: Tensor, d: Tensor) -> Tensor:
        """The minimiser of ½ d w² + linear w + c|w − w⁰| over the bounds."""
        if self.cost is None or self.reference is None:
            w = linear / -d
        else:
            bought, sold = (linear + self.cost) / -d, (self.cost - linear) / d
            w = torch.maximum(bought, torch.minimum(sold, self.reference))
        return torch.minimum(torch.maximum(w, self.lower), self.upper)

    def free(self, w: Tensor) -> Tensor:
        """Names strictly between their bounds that trade."""
        free = (w > self.lower) & (w < self.upper)
        if self.cost is not None and self.reference is not None:
            free &= (w != self.reference) | (self.cost == 0)
        return free

    def snapped(self, w: Tensor, near: float) -> Tensor:
        """``w`` with free names that are within ``near`` of a bound or reference put there."""
        free = self.free(w)
        for at in (self.reference, self.upper, self.lower):
            if at is not None:
                w = torch.where(free & ((w - at).abs() <= near), at, w)
        return w

    def slopes(self, w: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The derivatives of the cost to the left and to the right of w."""
        if self.cost is None or self.reference is None:
            return 0.0, 0.0
        left = torch.where(w > self.reference, self.cost, -self.cost)
        return left, torch.where(w < self.reference, -self.cost, self.cost)


@dataclass(frozen=True)
class Batch:
    """min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|  s.t.  E w = e,  l ≤ w ≤ u, for T days.

    N names, the last ``slacks`` of them those of as many inequalities, the last rows (no objective,
    l = 0, u = ∞). ``columns``
    (T, N, K) holds B and Eᵀ side by side, K = k + r: with the duals θ = (x, y) of x = Bᵀw and of
    E w = e, the gradient is d w + q + columns θ. A name outside the problem has l = u = 0 and zero
    columns.

    Weights are in units of ``weight_unit`` (T,), a power of two so that bounds stay exact, the
    gradient in units of ``gradient_unit`` (T,), and each row in units of its largest entry,
    ``row_unit`` (T, r), both powers of two as well. ``curvature`` (T,) is the largest variance of
    a name, in these units.
    """

    q: Tensor
    columns: Tensor
    d: Tensor
    box: Box
    target: Tensor
    weight_unit: Tensor
    gradient_unit: Tensor
    row_unit: Tensor
    curvature: Tensor
    factors: int
    slacks: int = 0

    def take(self, days: Tensor) -> Batch:
        """Some of the days; the columns are copied, so use it sparingly."""
        return Batch(
            self.q[days],
            self.columns[days],
            self.d[days],
            self.box.take(days),
            self.target[days],
            self.weight_unit[days],
            self.gradient_unit[days],
            self.row_unit[days],
            self.curvature[days],
            self.factors,
            self.slacks,
        )

    def residual(self, w: Tensor, theta: Tensor) -> Tensor:
        """(Bᵀw − x, E w − e) (T, K), the gradient of the dual function."""
        value = transposed(self.columns, w)
        value[:, : self.factors] -= theta[:, : self.factors]
        value[:, self.factors :] -= self.target
        return value


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(T, N, K), (T, K) → (T, N)."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def transposed(matrix: Tensor, vector: Tensor) -> Tensor:
    """(T, N, K), (T, N) → (T, K)."""
    return (vector.unsqueeze(-2) @ matrix).squeeze(-2)


def power_of_two(value: Tensor) -> Tensor:
    """The power of two next to positive values, 1 for zero."""
    return torch.exp2(torch.where(value > 0, value, torch.ones_like(value)).log2().round())


def point_units(batch: Batch, w: Tensor, risk: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The units (T,) of the weights and of the gradient at ``w`` (T, N), as those of a dense QP.

    ``risk`` is Pw and ``rows`` Eᵀy, both (T, N). The latter counts at free names alone: where rows
    and bounds imply each other their duals, which cancel at a bound, may be of any size.
    """
    n = w.shape[-1] - batch.slacks
    rows = rows * batch.box.free(w)
    length = w[:, :n].abs().amax(-1).clamp_min(ZERO)
    scale = torch.maximum(risk.abs().amax(-1), batch.q.abs().amax(-1))
    scale = torch.maximum(scale, rows[:, :n].abs().amax(-1))
    return length, torch.maximum(scale, CANCELLED * batch.curvature * length).clamp_min(ZERO)


def kkt_norm(batch: Batch, w: Tensor, y: Tensor) -> Tensor:
    """Scaled KKT residual (T,) of weights ``w`` (T, N) with the rows' duals ``y`` (T, r).

    The larger of the violation of a row or bound, divided by the largest weight, and of the
    derivative of the Lagrangian with the wrong sign, divided by the largest of |Pw|, |q| and |Eᵀy|;
    both of them no less than ``problems.solution.point_units`` has them.
    """
    k = batch.factors
    exposure = transposed(batch.columns, w)
    risk = times(batch.columns[..., :k], exposure[:, :k]) + batch.d * w
    rows = times(batch.columns[..., k:], y)
    gradient = risk + batch.q + rows
    left, right = batch.box.slopes(w)
    zero = torch.zeros_like(w)
    wrong = torch.where(w > batch.box.lower, (gradient + left).clamp_min(0), zero)
    uphill = torch.where(w < batch.box.upper, -(gradient + right).clamp_max(0), zero)
    wrong = torch.maximum(wrong, uphill)
    outside = torch.maximum(batch.box.lower - w, w - batch.box.upper).amax(-1).clamp_min(0)
    length, scale = point_units(batch, w, risk, rows)
    if y.shape[-1]:
        outside = torch.maximum(outside, (exposure[:, k:] - batch.target).abs().amax(-1))
    return torch.maximum(wrong.amax(-1) / scale, outside / length)


def proves_infeasible(batch: Batch, y: Tensor) -> Tensor:
    """Whether yᵀ(E w − e) > 0 for all weights within the bounds (T,): no weights meet E w = e.

    Where there is no bound that is asked of weights below ``_FARTHEST`` units.
    """
    if not y.shape[-1]:
        return torch.zeros_like(batch.curvature, dtype=torch.bool)
    y = y / y.abs().amax(-1, keepdim=True).clamp_min(1e-300)
    slope = times(batch.columns[..., batch.factors :], y)
    open_ = torch.where(slope > 0, batch.box.lower, batch.box.upper).isinf() & (slope != 0)
    error = (slope.abs() * open_).sum(-1)
    slope = slope.masked_fill(open_, 0.0)
    down, up = slope * batch.box.lower, slope * batch.box.upper
    least = torch.where(slope > 0, down, torch.where(slope < 0, up, torch.zeros_like(slope)))
    value = least.sum(-1) - (batch.target * y).sum(-1)
    size = least.abs().sum(-1) + (batch.target * y).abs().sum(-1)
    return (value > 1e-11 * size) & (value > _FARTHEST * error)
