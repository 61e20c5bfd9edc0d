"""How far a point of a batch of factor QPs is from optimal, and when duals prove there is none."""

from __future__ import annotations

import torch
from torch import Tensor

from ...problems.solution import CANCELLED, ZERO
from .standard_form import StandardForm, times, transposed

# Weights this far out, in units of the batch, are none.
_FARTHEST = 1e8


def point_units(form: StandardForm, w: Tensor, risk: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The units (T,) of the weights and of the gradient at ``w`` (T, N), as those of a dense QP.

    ``risk`` is Pw and ``rows`` Eᵀy, both (T, N). The latter counts at free names alone: where rows
    and bounds imply each other their duals, which cancel at a bound, may be of any size.
    """
    n = w.shape[-1] - form.slacks
    rows = rows * form.box.free(w)
    length = w[:, :n].abs().amax(-1).clamp_min(ZERO)
    scale = torch.maximum(risk.abs().amax(-1), form.q.abs().amax(-1))
    scale = torch.maximum(scale, rows[:, :n].abs().amax(-1))
    return length, torch.maximum(scale, CANCELLED * form.curvature * length).clamp_min(ZERO)


def kkt_norm(form: StandardForm, w: Tensor, y: Tensor) -> Tensor:
    """Scaled KKT residual (T,) of weights ``w`` (T, N) with the rows' duals ``y`` (T, r).

    The larger of the violation of a row or bound, divided by the largest weight, and of the
    derivative of the Lagrangian with the wrong sign, divided by the largest of |Pw|, |q| and |Eᵀy|;
    both of them no less than ``problems.solution.point_units`` has them.
    """
    k = form.factors
    exposure = transposed(form.columns, w)
    risk = times(form.columns[..., :k], exposure[:, :k]) + form.d * w
    rows = times(form.columns[..., k:], y)
    gradient = risk + form.q + rows
    left, right = form.box.slopes(w)
    zero = torch.zeros_like(w)
    wrong = torch.where(w > form.box.lower, (gradient + left).clamp_min(0), zero)
    uphill = torch.where(w < form.box.upper, -(gradient + right).clamp_max(0), zero)
    wrong = torch.maximum(wrong, uphill)
    outside = torch.maximum(form.box.lower - w, w - form.box.upper).amax(-1).clamp_min(0)
    length, scale = point_units(form, w, risk, rows)
    if y.shape[-1]:
        outside = torch.maximum(outside, (exposure[:, k:] - form.target).abs().amax(-1))
    return torch.maximum(wrong.amax(-1) / scale, outside / length)


def proves_infeasible(form: StandardForm, y: Tensor) -> Tensor:
    """Whether yᵀ(E w − e) > 0 for all weights within the bounds (T,): no weights meet E w = e.

    Where there is no bound that is asked of weights below ``_FARTHEST`` units.
    """
    if not y.shape[-1]:
        return torch.zeros_like(form.curvature, dtype=torch.bool)
    y = y / y.abs().amax(-1, keepdim=True).clamp_min(1e-300)
    slope = times(form.columns[..., form.factors :], y)
    open_ = torch.where(slope > 0, form.box.lower, form.box.upper).isinf() & (slope != 0)
    error = (slope.abs() * open_).sum(-1)
    slope = slope.masked_fill(open_, 0.0)
    down, up = slope * form.box.lower, slope * form.box.upper
    least = torch.where(slope > 0, down, torch.where(slope < 0, up, torch.zeros_like(slope)))
    value = least.sum(-1) - (form.target * y).sum(-1)
    size = least.abs().sum(-1) + (form.target * y).abs().sum(-1)
    return (value > 1e-11 * size) & (value > _FARTHEST * error)
