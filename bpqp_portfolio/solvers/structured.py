"""Batches of portfolio QPs with a factor-model covariance, by semismooth Newton on the dual.

For every day of a batch, with k factors, n names and a mask for padding,

    min ½ wᵀ(B Bᵀ + diag(d)) w + qᵀw    s.t.  1ᵀw = c,  l ≤ w ≤ u.

With y = Bᵀw as a variable of its own and x the dual of that definition, the minimiser over w is
w(x, ν) = clip(−(q + Bx + ν)/d, l, u). The budget's dual ν(x) is the root of a monotone,
piecewise linear function of one variable, and what is left is to maximise a concave function of x
alone, whose gradient is Bᵀw − x and whose generalised Hessian is −(I + B̃ᵀ diag(free/d) B̃), with
B̃ the loadings centred on the free names. That matrix is at least I, so Newton's method with a
backtracking line search always makes progress, and it ends at the exact point once the free names
are the right ones. A day and iteration costs O(n k²); no n × n matrix is formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SOLVED = 0
INACCURATE = 1
INFEASIBLE = 2

_ROOT_STEPS = 100
_LINE_SEARCH_STEPS = 30


@dataclass(frozen=True)
class FactorSolution:
    """Primal-dual points of a batch of T factor QPs.

    ``w`` (T, n); ``nu`` (T,) dual of the budget; ``x`` (T, k) Bᵀw, the dual of y = Bᵀw and a
    start for a similar problem; ``free`` (T, n) names strictly between their bounds;
    ``kkt_norm`` (T,) scaled KKT residual; ``iterations`` (T,); ``status`` (T,) of ``SOLVED``,
    ``INACCURATE`` (the iteration limit came first) and ``INFEASIBLE`` (NaN weights).
    """

    w: Tensor
    nu: Tensor
    x: Tensor
    free: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    status: Tensor


def _clip(a: Tensor, d: Tensor, nu: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Minimiser over w for given duals, and which names are strictly inside their bounds."""
    raw = -(a + nu.unsqueeze(-1)) / d
    free = (raw > lower) & (raw < upper)
    return torch.minimum(torch.maximum(raw, lower), upper), free


def _budget_dual(
    a: Tensor, d: Tensor, lower: Tensor, upper: Tensor, budget: Tensor, nu: Tensor
) -> Tensor:
    """Root ν (T,) of Σ clip(−(a+ν)/d, l, u) = c, by Newton's method kept inside a bracket."""
    low = (-a - d * upper).amin(-1)
    high = (-a - d * lower).amax(-1)
    nu = torch.minimum(torch.maximum(nu, low), high)
    noise = 4 * torch.finfo(a.dtype).eps
    done = torch.zeros_like(nu, dtype=torch.bool)
    for _ in range(_ROOT_STEPS):
        w, free = _clip(a, d, nu, lower, upper)
        gap = w.sum(-1) - budget
        low = torch.where(gap > 0, nu, low)
        high = torch.where(gap < 0, nu, high)
        slope = (free / d).sum(-1)
        step = nu + gap / slope.clamp_min(torch.finfo(a.dtype).tiny)
        inside = (step > low) & (step < high)
        # Where no name is free the function is flat and only the bracket knows the way.
        new = torch.where(inside & (slope > 0), step, 0.5 * (low + high))
        done |= gap.abs() <= noise * (1 + budget.abs())
        settled = (new - nu).abs() <= noise * nu.abs()
        # A day that is done stays as it is, however long the others of its batch take.
        nu = torch.where(done, nu, new)
        done |= settled
        if bool(done.all()):
            break
    return nu


def _newton_matrix(loadings: Tensor, d: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """I + B̃ᵀ diag(free/d) B̃ (T, k, k), the free names' weights 1/d (T, n) and the centre (T, k)."""
    inverse = free / d
    total = inverse.sum(-1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)
    centre = (inverse.unsqueeze(-2) @ loadings).squeeze(-2) / total
    centred = loadings - centre.unsqueeze(-2)
    matrix = (centred * inverse.unsqueeze(-1)).mT @ centred
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    return matrix, inverse, centre


def _solve_spd(matrix: Tensor, rhs: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(matrix)
    return torch.cholesky_solve(rhs.unsqueeze(-1), factor).squeeze(-1)


def _matvec_t(loadings: Tensor, w: Tensor) -> Tensor:
    """Bᵀw for a batch: (T, n, k), (T, n) → (T, k)."""
    return (w.unsqueeze(-2) @ loadings).squeeze(-2)


def _matvec(loadings: Tensor, x: Tensor) -> Tensor:
    """Bx for a batch: (T, n, k), (T, k) → (T, n)."""
    return (loadings @ x.unsqueeze(-1)).squeeze(-1)


def kkt_norm(
    q: Tensor,
    loadings: Tensor,
    d: Tensor,
    lower: Tensor,
    upper: Tensor,
    budget: Tensor,
    mask: Tensor,
    w: Tensor,
    nu: Tensor,
) -> Tensor:
    """Scaled KKT residual (T,) of weights ``w`` with the budget's dual ``nu``.

    The larger of the violation of budget and bounds, divided by the budget where that is above 1,
    and of the reduced gradient's wrong-signed part, divided by the largest of |q|, |Σw| and |ν|
    so that it has no unit.
    """
    risk = _matvec(loadings, _matvec_t(loadings, w)) + d * w
    gradient = risk + q + nu.unsqueeze(-1)
    down = torch.where(w < upper, (-gradient).clamp_min(0), torch.zeros_like(gradient))
    up = torch.where(w > lower, gradient.clamp_min(0), torch.zeros_like(gradient))
    wrong = (torch.maximum(down, up) * mask).amax(-1)
    scale = torch.maximum((risk.abs() * mask).amax(-1), (q.abs() * mask).amax(-1))
    scale = torch.maximum(scale, nu.abs()).clamp_min(torch.finfo(w.dtype).tiny)
    outside = (torch.maximum(lower - w, w - upper) * mask).amax(-1).clamp_min(0)
    primal = torch.maximum((w.sum(-1) - budget).abs(), outside)
    return torch.maximum(wrong / scale, primal / budget.abs().clamp_min(1))


def solve_factor_qp(
    q: Tensor,
    loadings: Tensor,
    d: Tensor,
    lower: Tensor,
    upper: Tensor,
    budget: Tensor,
    mask: Tensor,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 100,
    warm_start: Tensor | None = None,
) -> FactorSolution:
    """Solve a batch of factor QPs.

    Parameters
    ----------
    q, d, lower, upper : (T, n) float64; ``d`` > 0 where ``mask`` holds.
    loadings : (T, n, k).
    budget : (T,).
    mask : (T, n) bool; a masked-out name is exactly zero.
    tolerance : scaled KKT residual at which a day is solved.
    warm_start : (T, k), ``x`` of an earlier solution of similar problems.

    Notes
    -----
    The caller vouches for shapes and finiteness (``layers.factor`` checks them). No error is
    raised here: a day whose bounds cannot meet the budget has status ``INFEASIBLE``.
    """
    zero, one = torch.zeros_like(q), torch.ones_like(q)
    # With 1ᵀw = c a constant in q moves only ν; taking it off keeps the digits for what differs.
    largest = torch.where(mask, q, -torch.inf).amax(-1)
    middle = 0.5 * (largest + torch.where(mask, q, torch.inf).amin(-1))
    q = q - middle.unsqueeze(-1)
    q, lower, upper = (torch.where(mask, t, zero) for t in (q, lower, upper))
    d = torch.where(mask, d, one)
    loadings = torch.where(mask.unsqueeze(-1), loadings, 0.0)
    slack = 1e-12 * (1 + budget.abs())
    infeasible = (lower.sum(-1) > budget + slack) | (upper.sum(-1) < budget - slack)
    infeasible |= (lower > upper).any(-1)
    budget = torch.minimum(torch.maximum(budget, lower.sum(-1)), upper.sum(-1))

    if warm_start is None:
        start = torch.minimum(
            torch.maximum(mask * (budget / mask.sum(-1).clamp_min(1)).unsqueeze(-1), lower), upper
        )
        x = _matvec_t(loadings, start)
    else:
        x = warm_start.clone()
    days = q.shape[0]
    out_w, out_nu = zero.clone(), budget.new_zeros(days)
    out_free = torch.zeros_like(mask)
    out_kkt = torch.full_like(budget, torch.nan)
    out_x = x.clone()
    iterations = torch.zeros(days, dtype=torch.int64, device=q.device)

    live = torch.nonzero(~infeasible).squeeze(-1)
    data: list[Tensor] = [t[live] for t in (q, loadings, d, lower, upper, budget, mask)]
    x = x[live]
    nu = -(data[0] * data[6]).sum(-1) / data[6].sum(-1).clamp_min(1)

    def evaluate(x: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
        """ν(x), w, the free names, the dual's gradient and value, and the size of its terms."""
        q, loadings, d, lower, upper, budget, _ = data
        a = q + _matvec(loadings, x)
        nu = _budget_dual(a, d, lower, upper, budget, nu)
        w, free = _clip(a, d, nu, lower, upper)
        # Rounding in a + ν is magnified by 1/d; what it leaves of the budget goes to free names.
        share = free / d
        gap = (budget - w.sum(-1)).unsqueeze(-1)
        w = w + share * gap / share.sum(-1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)
        w = torch.minimum(torch.maximum(w, lower), upper)
        residual = _matvec_t(loadings, w) - x
        terms, norm = (0.5 * d * w + a) * w, 0.5 * (x * x).sum(-1)
        return nu, w, free, residual, terms.sum(-1) - norm, terms.abs().sum(-1) + norm

    if len(live):
        nu, w, free, residual, value, size = evaluate(x, nu)
    for iteration in range(max_iterations + 1):
        if not len(live):
            break
        norm = kkt_norm(*data, w, nu)  # type: ignore[call-arg]
        finished = (norm <= tolerance) | (iteration == max_iterations)
        if bool(finished.any()):
            done = live[finished]
            out_w[done], out_nu[done], out_free[done] = w[finished], nu[finished], free[finished]
            out_kkt[done], out_x[done] = norm[finished], (x + residual)[finished]
            iterations[done] = iteration
            keep = torch.nonzero(~finished).squeeze(-1)
            live, data = live[keep], [t[keep] for t in data]
            x, nu, w, free = x[keep], nu[keep], w[keep], free[keep]
            residual, value, size = residual[keep], value[keep], size[keep]
            if not len(live):
                break
        matrix, _, _ = _newton_matrix(data[1], data[2], free)
        step = _solve_spd(matrix, residual)
        slope = (residual * step).sum(-1)
        length = torch.ones_like(value)
        # Near the solution the dual's rounding error hides its increase: accept a smaller residual.
        target, noise = 0.5 * residual.norm(dim=-1), 1e-14 * size
        for _ in range(_LINE_SEARCH_STEPS):
            trial = evaluate(x + length.unsqueeze(-1) * step, nu)
            enough = trial[4] >= value + 1e-4 * length * slope
            enough |= (trial[3].norm(dim=-1) <= target) & (trial[4] >= value - noise)
            enough |= length * slope <= noise
            if bool(enough.all()):
                break
            length = torch.where(enough, length, 0.5 * length)
        x = x + length.unsqueeze(-1) * step
        nu, w, free, residual, value, size = trial

    status = torch.where(out_kkt <= tolerance, SOLVED, INACCURATE)
    status = torch.where(infeasible, INFEASIBLE, status)
    nan = infeasible.unsqueeze(-1)
    return FactorSolution(
        w=out_w.masked_fill(nan, torch.nan),
        nu=(out_nu - middle).masked_fill(infeasible, torch.nan),
        x=out_x.masked_fill(nan, 0.0),
        free=out_free,
        kkt_norm=out_kkt,
        iterations=iterations,
        status=status,
    )


def backward_factor_qp(
    r: Tensor, loadings: Tensor, d: Tensor, free: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the backward QP of a batch of factor QPs, at the cost of one Newton step.

    min ½ z̃ᵀ(B Bᵀ + diag(d)) z̃ + rᵀz̃  s.t.  1ᵀz̃ = 0 and z̃ = 0 outside ``free``.

    Parameters
    ----------
    r : (T, n) gradient of the loss in w.
    loadings, d, free : as in the forward solution; zero or False where masked.

    Returns
    -------
    z̃ (T, n); ν̃ (T,), zero on a day without a free name, where no move is possible; and
    P z̃ + r + ν̃ (T, n), zero at free names: at names on a bound, the gradient in that bound.
    """
    matrix, inverse, centre = _newton_matrix(loadings, d, free)
    total = inverse.sum(-1)
    some = total > 0
    safe = torch.where(some, total, torch.ones_like(total))
    mean_r = (inverse * r).sum(-1) / safe
    centred_r = r - mean_r.unsqueeze(-1)
    rhs = -_matvec_t(loadings - centre.unsqueeze(-2), inverse * centred_r)
    y = _solve_spd(matrix, rhs)
    nu = torch.where(some, -mean_r - (centre * y).sum(-1), torch.zeros_like(mean_r))
    slope = _matvec(loadings, y) + r + nu.unsqueeze(-1)
    z = -inverse * slope
    return z, nu, slope + d * z
