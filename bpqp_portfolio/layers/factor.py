"""The structured portfolio QP as a differentiable function of all its parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import ProblemError
from ..solvers.structured import FactorSolution, backward_factor_qp, solve_factor_qp


def _broadcast(value: Tensor | float, like: Tensor, name: str) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    try:
        return value.expand(like.shape) if value.ndim else value.repeat(like.shape)
    except RuntimeError:
        raise ProblemError(
            f"{name}: shape {tuple(value.shape)} does not broadcast to {tuple(like.shape)}."
        ) from None


def _check(
    q: Tensor,
    loadings: Tensor,
    specific: Tensor,
    lower: Tensor,
    upper: Tensor,
    budget: Tensor,
    mask: Tensor,
) -> None:
    """Refuse bad numbers, naming the argument, the day and the name."""
    checks = {
        "q": ~torch.isfinite(q),
        "loadings": ~torch.isfinite(loadings).all(-1),
        "specific": ~torch.isfinite(specific),
        "specific (must be positive)": specific <= 0,
        "lower (must be finite)": ~torch.isfinite(lower),
        "upper (must be finite)": ~torch.isfinite(upper),
        "bounds (lower must not exceed upper)": ~(lower <= upper),
    }
    for name, bad in checks.items():
        where = torch.nonzero(bad & mask)
        if len(where):
            day, item = where[0].tolist()
            raise ProblemError(
                f"{name}: bad value for name {item} of day {day} ({len(where)} in all)."
            )
    wrong = torch.nonzero(~torch.isfinite(budget))
    if len(wrong):
        raise ProblemError(f"budget: bad value for day {int(wrong[0])} ({len(wrong)} in all).")
    empty = torch.nonzero(~mask.any(-1))
    if len(empty):
        raise ProblemError(f"mask: day {int(empty[0])} has no name ({len(empty)} days in all).")


class _FactorQP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q, loadings, d, lower, upper, budget, mask, options):  # type: ignore[override]
        solution = solve_factor_qp(q, loadings, d, lower, upper, budget, mask, **options)
        ctx.save_for_backward(loadings, d, lower, upper, mask, solution.w, solution.free)
        point = (solution.nu, solution.x, solution.free)
        rest = (*point, solution.kkt_norm, solution.iterations, solution.status)
        ctx.mark_non_differentiable(*rest)
        return (solution.w, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any):  # type: ignore[override]
        loadings, d, lower, upper, mask, w, free = ctx.saved_tensors
        # A failed day has NaN weights and gives no gradient.
        mask = mask & torch.isfinite(w).all(-1, keepdim=True)
        w, grad = torch.where(mask, w, 0.0), torch.where(mask, grad, 0.0)
        loadings = torch.where(mask.unsqueeze(-1), loadings, 0.0)
        d = torch.where(mask, d, 1.0)
        z, nu, slope = backward_factor_qp(grad, loadings, d, free & mask)
        grad_loadings = grad_lower = grad_upper = None
        if ctx.needs_input_grad[1]:
            exposure, tilt = w.unsqueeze(-2) @ loadings, z.unsqueeze(-2) @ loadings
            grad_loadings = z.unsqueeze(-1) * exposure + w.unsqueeze(-1) * tilt
        if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
            at_lower, at_upper = mask & (w <= lower), mask & (w >= upper)
            # A pinned name (l = u) moves with both of its bounds: each gets half.
            share = slope / (1.0 + (at_lower & at_upper))
            grad_lower, grad_upper = share * at_lower, share * at_upper
        return z, grad_loadings, z * w, grad_lower, grad_upper, -nu, None, None


def factor_qp(
    q: Tensor,
    loadings: Tensor,
    specific: Tensor,
    *,
    lower: Tensor | float = 0.0,
    upper: Tensor | float = 1.0,
    budget: Tensor | float = 1.0,
    mask: Tensor | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 100,
    warm_start: Tensor | None = None,
) -> FactorSolution:
    """Solve min ½ wᵀ(B Bᵀ + diag(d)) w + qᵀw, 1ᵀw = c, l ≤ w ≤ u for a batch of days.

    Differentiable in ``q``, ``loadings``, ``specific``, ``lower``, ``upper`` and ``budget`` by
    the backward QP (arXiv:2411.19285, Theorem 1) in the same structure.

    Parameters
    ----------
    q : (T, n).
    loadings : B, (T, n, k).
    specific : d > 0, (T, n).
    lower, upper : finite, broadcastable to (T, n).
    budget : c, broadcastable to (T,).
    mask : (T, n) bool, names in the problem; the others are exactly zero, gradients included.
    tolerance, max_iterations : see :func:`~bpqp_portfolio.solvers.structured.solve_factor_qp`.
    warm_start : (T, k), ``x`` of an earlier solution of similar problems.

    Returns
    -------
    FactorSolution with ``w`` in the dtype of ``q``; NaN weights on infeasible days.

    Raises
    ------
    ProblemError
        Shapes that do not match, non-finite values, d ≤ 0, l > u, a day without a name.
    """
    if q.ndim != 2 or loadings.ndim != 3 or loadings.shape[:2] != q.shape:
        raise ProblemError(
            f"q must be (T, n) and loadings (T, n, k); got {tuple(q.shape)} and "
            f"{tuple(loadings.shape)}."
        )
    if not q.is_floating_point():
        raise ProblemError(f"q must be floating point; got {q.dtype}.")
    if warm_start is not None and warm_start.shape != (len(q), loadings.shape[-1]):
        raise ProblemError(
            f"warm_start must be (T, k) = {(len(q), loadings.shape[-1])}, the x of an earlier "
            f"solution; got {tuple(warm_start.shape)}."
        )
    if mask is None:
        mask = torch.ones_like(q, dtype=torch.bool)
    if mask.shape != q.shape or mask.dtype != torch.bool:
        raise ProblemError(f"mask must be bool {tuple(q.shape)}; got {tuple(mask.shape)}.")
    like = q.double()
    lower, upper = _broadcast(lower, like, "lower"), _broadcast(upper, like, "upper")
    budget = _broadcast(budget, like[:, 0], "budget")
    d = _broadcast(specific, like, "specific")
    _check(like, loadings, d, lower, upper, budget, mask)
    options = {
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "warm_start": None if warm_start is None else warm_start.double(),
    }
    w, *rest = _FactorQP.apply(like, loadings.double(), d, lower, upper, budget, mask, options)
    return FactorSolution(w.to(q.dtype), *rest)
