"""``factor_qp`` for a few days of the plain problem on the CPU, without torch's calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problems.solution import SolveStatus
from ..solvers.common.redundant_rows import redundancy
from ..solvers.factor.few_days import Days, solve_days
from ..solvers.factor.problem import PARAMETERS, FactorQP, FactorSolution
from .factor_second_order import Held, gradients_again
from .transforms import refuse_forward_mode, refuse_transforms

# The plain problem's parameters.
_GIVEN = PARAMETERS[:6]


def solve_few(
    problem: FactorQP, tolerance: float, start: FactorSolution | Tensor | None
) -> FactorSolution | None:
    """The solution, differentiable in q, B, d, bounds and budget, of a problem with no other parts.

    On the CPU. None where the general method should see it.
    """
    given = tuple(getattr(problem, name) for name in _GIVEN)
    q, mask = problem.q, problem.mask
    x = start.x if isinstance(start, FactorSolution) else start
    first = None if x is None else x.detach().double().numpy()
    linear, B, variance, low, high, total = (value.detach().numpy() for value in given)
    days = solve_days(linear, B, variance, low, high, total, mask.numpy(), tolerance, first)
    if days is None:
        return None
    w = _Weights.apply(*given, days, mask)
    unit, inside = days.unit, mask.numpy()
    at_lower = inside & (days.weights <= low)
    at_upper = inside & (days.weights >= high)
    gradient = unit[:, None] * days.gradient
    T = len(q)
    empty = q.new_empty(T, 0)
    return FactorSolution(
        w=w,
        nu=torch.from_numpy(days.nu),
        x=torch.from_numpy(unit[:, None] ** 0.5 * days.theta[:, :-1]),
        free=torch.from_numpy(days.free),
        kkt_norm=torch.from_numpy(days.norm),
        iterations=torch.from_numpy(days.iterations),
        codes=torch.full((T,), SolveStatus.SOLVED.code, device=q.device),
        nu_rows=empty,
        lam=empty,
        lam_lb=torch.from_numpy(np.where(at_lower, np.maximum(gradient, 0.0), 0.0)),
        lam_ub=torch.from_numpy(np.where(at_upper, np.maximum(-gradient, 0.0), 0.0)),
    )


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, loadings, d, lower, upper, budget, days: Days, mask):  # type: ignore[override]
        ctx.days = days
        ctx.save_for_backward(q, loadings, d, lower, upper, budget, mask)
        return torch.from_numpy(days.weights).clone()

    jvp = refuse_forward_mode("factor_qp")

    @staticmethod
    def backward(ctx: Any, grad: Tensor):  # type: ignore[override]
        refuse_transforms("factor_qp", (grad,))
        q, loadings, d, lower, upper, budget, mask = ctx.saved_tensors
        days: Days = ctx.days
        if torch.is_grad_enabled():
            given = (q, loadings, d, lower, upper, budget)
            values = dict(zip(_GIVEN, given, strict=True))
            w, free = torch.from_numpy(days.weights), torch.from_numpy(days.free) & mask
            none = torch.zeros_like(mask)
            at_lower, at_upper = mask & (w <= lower), mask & (w >= upper)
            held = Held(free, at_lower, at_upper, none, torch.zeros_like(w), none[:, :0])
            every = torch.ones_like(mask[:, 0])
            return *gradients_again(values, held, every, grad, ctx.needs_input_grad), None, None
        r = torch.where(mask, grad, 0.0).numpy()
        z, y, slope = (torch.from_numpy(part) for part in days.backward(r))
        vertices = np.flatnonzero(~days.free.any(-1)).tolist()
        # Gradients in the objective do not depend on the choice.
        for day in vertices if any(ctx.needs_input_grad[3:6]) else ():
            y[day], slope[day] = _at_vertex(days, day, y[day], slope[day], lower, upper, mask)
        w = torch.from_numpy(days.weights)
        needed = ctx.needs_input_grad
        out: list[Tensor | None] = [z if needed[0] else None, None, None, None, None, None]
        if needed[1]:
            inside = torch.where(mask.unsqueeze(-1), loadings, 0.0)
            exposure, tilt = w.unsqueeze(-2) @ inside, z.unsqueeze(-2) @ inside
            out[1] = z.unsqueeze(-1) * exposure + w.unsqueeze(-1) * tilt
        if needed[2]:
            out[2] = z * w
        if needed[3] or needed[4]:
            at_lower, at_upper = mask & (w <= lower), mask & (w >= upper)
            # A pinned name (l = u) moves with both of its bounds: each gets half.
            share = slope / (1.0 + (at_lower & at_upper))
            out[3] = torch.where(at_lower, share, 0.0)
            out[4] = torch.where(at_upper, share, 0.0)
        if needed[5]:
            out[5] = -y
        return *out, None, None


def _at_vertex(
    days: Days, day: int, y: Tensor, slope: Tensor, lower: Tensor, upper: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """ỹ and slope (n,) of a day without a free name, whose budget depends on the bounds."""
    inside, gradient = mask[day].numpy(), days.gradient[day]
    w, low, high = days.weights[day], lower[day].numpy(), upper[day].numpy()
    sides = np.where(inside, (w <= low).astype(int) - (w >= high), 0)
    row, none = inside[None].astype(float), np.zeros(len(w), dtype=bool)
    spare = redundancy(row, none, np.array([True]), sides, days.theta[day, -1:], gradient)
    assert spare is not None
    before = y.reshape(1).numpy()
    change = spare.settle(before, slope.numpy())[0] - before[0]
    return y + change, slope + change * mask[day]
