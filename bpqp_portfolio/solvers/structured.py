"""Batches of portfolio QPs with a factor-model covariance: n names cost O(n (k+p+m)²), never n².

For every day of a batch, with n names (masked where padded), k factors, p equalities and m
inequalities,

    min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|
    s.t.  1ᵀw = budget,  A w = b,  G w ≤ h,  l ≤ w ≤ u.

Without inequalities and with d > 0, semismooth Newton on the dual of dimension k + 1 + p
(:mod:`.structured_newton`) takes some five steps that touch free names only. Other days, and days
that are not solved soon, go to an interior point (:mod:`.structured_interior`) whose iterates
propose active sets. Both end by solving directly on the active set (:mod:`.structured_active`), so
a name at a bound is exactly there, and a name that does not trade is exactly at its reference.

Where d = 0 leaves several optimal weights, the answer is the proximal limit: the optimum to which
ρ/2 ‖w − centre‖² leads as the centre follows w, from the analytic centre of the optimal set that
the interior point approaches. It treats identical names alike.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .structured_batch import Batch, Box, Rows, power_of_two, times, transposed
from .structured_interior import interior
from .structured_light import LIGHT, LIGHT_STEPS, light
from .structured_newton import Points, newton

SOLVED = 0
INACCURATE = 1
INFEASIBLE = 2
BAD_DATA = 5

# Newton steps before a day is handed to the interior point, its steps, and those after it.
_NEWTON_STEPS, _INTERIOR_STEPS, _LAST_STEPS = 12, 60, 60
# How near the first ν comes to the budget, in units of it, and in how many steps at most.
_START_GAP, _START_STEPS = 0.1, 60
# Pull towards the centre, in units of the batch, where nothing else sets a scale.
_PULL = 1e-3
# Weights this near to a bound are on it.
_SNAP = 1e-14
_LEAST_D = 1e-12


@dataclass(frozen=True)
class FactorSolution:
    """Primal-dual points of a batch of T factor QPs.

    The Lagrangian is f + ν(1ᵀw − budget) + ν_Aᵀ(Aw − b) + λᵀ(Gw − h) + λ_lbᵀ(l − w) + λ_ubᵀ(w − u).

    ``w`` (T, n); ``nu`` (T,) dual of the budget; ``x`` (T, k) Bᵀw; ``free`` (T, n) names strictly
    between their bounds that trade; ``kkt_norm`` (T,) scaled KKT residual; ``iterations`` (T,);
    ``status`` (T,) of ``SOLVED``, ``INACCURATE`` (the iteration limit came first), ``INFEASIBLE``
    and ``BAD_DATA`` (both NaN weights); ``nu_rows`` (T, p); ``lam`` (T, m); ``lam_lb``, ``lam_ub``
    (T, n).

    On an infeasible day the duals hold the certificate, largest entry 1 (in units of each row's
    largest entry): ν1 + Aᵀν_A + Gᵀλ − λ_lb + λ_ub = 0 and ν budget + bᵀν_A + hᵀλ − lᵀλ_lb + uᵀλ_ub
    is negative.
    """

    w: Tensor
    nu: Tensor
    x: Tensor
    free: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    status: Tensor
    nu_rows: Tensor
    lam: Tensor
    lam_lb: Tensor
    lam_ub: Tensor

    def days(self, index: Tensor) -> FactorSolution:
        """The solution of some days, such as a warm start for them."""
        return FactorSolution(*(getattr(self, f.name)[index] for f in fields(self)))


def _lifted(
    q: Tensor,
    loadings: Tensor,
    d: Tensor,
    lower: Tensor,
    upper: Tensor,
    budget: Tensor | None,
    mask: Tensor,
    equalities: Rows | None,
    inequalities: Rows | None,
    cost: Tensor | None,
    reference: Tensor | None,
) -> tuple[Batch, Tensor]:
    """The batch in scaled form, and what was taken off q (T,) along the budget's row."""
    (T, n), k = q.shape, loadings.shape[-1]
    whole = bool(mask.all())

    def inside(value: Tensor) -> Tensor:
        return value if whole else torch.where(mask, value, 0.0)

    middle = q.new_zeros(T)
    if budget is not None:
        # With 1ᵀw fixed a constant in q only moves ν; without it the digits that differ are kept.
        largest = torch.where(mask, q, -torch.inf).amax(-1)
        middle = 0.5 * (largest + torch.where(mask, q, torch.inf).amin(-1))
    q, d = inside(q - middle.unsqueeze(-1)), inside(d)
    lower, upper = inside(lower), inside(upper)
    rows = [r for r in (equalities, inequalities) if r is not None]
    ones = 0 if budget is None else 1
    p = 0 if equalities is None else equalities.value.shape[-1]
    m = 0 if inequalities is None else inequalities.value.shape[-1]
    target = (
        torch.cat(([] if budget is None else [budget.unsqueeze(-1)]) + [r.value for r in rows], -1)
        if ones + p + m
        else q.new_zeros(T, 0)
    )
    row_unit = torch.ones_like(target)
    for at, r in zip((ones, ones + p), (equalities, inequalities), strict=True):
        if r is not None and r.value.shape[-1]:
            size = torch.where(mask.unsqueeze(-2), r.matrix, 0.0).abs().amax(-1)
            row_unit[:, at : at + r.value.shape[-1]] = power_of_two(size)
    target = target / row_unit
    fixed = target[:, : ones + p].abs().amax(-1) if ones + p else q.new_zeros(T)
    bounds = torch.maximum(lower.abs(), upper.abs())
    bounds = torch.where(bounds.isfinite(), bounds, 0.0).amax(-1)
    weight_unit = power_of_two(torch.where(fixed > 0, fixed, bounds))
    unit = weight_unit.unsqueeze(-1)

    start = _start(lower, upper, budget, mask)
    columns = q.new_zeros(T, n + m, k + ones + p + m)
    columns[:, :n, :k] = loadings if whole else torch.where(mask.unsqueeze(-1), loadings, 0.0)
    spread = transposed(columns[:, :n, :k], start).square().sum(-1) / weight_unit
    gradient_unit = torch.maximum((d * unit).amax(-1), torch.maximum(spread, q.abs().amax(-1)))
    if cost is not None:
        cost = inside(cost)
        gradient_unit = torch.maximum(gradient_unit, cost.amax(-1))
    gradient_unit = power_of_two(gradient_unit)
    gradient = gradient_unit.unsqueeze(-1)
    columns[:, :n, :k] *= (weight_unit / gradient_unit).sqrt()[:, None, None]
    if ones:
        columns[:, :n, k] = mask.to(q)
    for at, r in zip((ones, ones + p), (equalities, inequalities), strict=True):
        if r is not None:
            to = slice(k + at, k + at + r.value.shape[-1])
            scaled = (r.matrix / row_unit[:, at : at + r.value.shape[-1], None]).mT
            columns[:, :n, to] = torch.where(mask.unsqueeze(-1), scaled, 0.0)
    if m:
        columns[:, n:, -m:] = torch.eye(m, dtype=q.dtype, device=q.device)

    def with_slacks(value: Tensor, slack: float) -> Tensor:
        return torch.cat([value, value.new_full((T, m), slack)], -1) if m else value

    batch = Batch(
        q=with_slacks(q / gradient, 0.0),
        columns=columns,
        d=with_slacks(d * (unit / gradient), 0.0),
        box=Box(
            with_slacks(lower / unit, 0.0),
            with_slacks(upper / unit, torch.inf),
            None if cost is None else with_slacks(cost / gradient, 0.0),
            None if reference is None else with_slacks(inside(reference) / unit, 0.0),
        ),
        target=target / unit,
        weight_unit=weight_unit,
        gradient_unit=gradient_unit,
        row_unit=row_unit,
        factors=k,
    )
    return batch, middle


def _start(lower: Tensor, upper: Tensor, budget: Tensor | None, mask: Tensor) -> Tensor:
    """Equal weights, within the bounds."""
    even = torch.zeros_like(lower)
    if budget is not None:
        even = mask * (budget / mask.sum(-1).clamp_min(1)).unsqueeze(-1)
    return torch.minimum(torch.maximum(even, lower), upper)


def _budget_dual(batch: Batch, linear: Tensor, n: int, near: float) -> Tensor:
    """A ν (T,) whose weights come near the budget, by Newton's method kept inside a bracket."""
    whole = batch.box
    box = Box(whole.lower[:, :n], whole.upper[:, :n])
    if whole.cost is not None and whole.reference is not None:
        box = Box(box.lower, box.upper, whole.cost[:, :n], whole.reference[:, :n])
    linear, d = linear[:, :n], batch.d[:, :n]
    d = torch.where(d > _LEAST_D, d, d.amax(-1, keepdim=True).clamp_min(_PULL))
    target = batch.target[:, 0]
    reach = 1 + target.abs().unsqueeze(-1)
    cost = 0.0 if box.cost is None else box.cost
    high = (cost - linear - d * torch.maximum(box.lower, -reach)).amax(-1)
    low = (-cost - linear - d * torch.minimum(box.upper, reach)).amin(-1)
    nu = 0.5 * (low + high)
    done = torch.zeros_like(nu, dtype=torch.bool)
    for _ in range(_START_STEPS):
        w = box.prox(linear + nu.unsqueeze(-1), d)
        gap = w.sum(-1) - target
        # A day that is done stays as it is, however long the others of its batch take.
        done |= gap.abs() <= near
        if bool(done.all()):
            break
        slope = (box.free(w) / d).sum(-1)
        low, high = torch.where(gap > 0, nu, low), torch.where(gap < 0, nu, high)
        step = nu + gap / slope.clamp_min(1e-300)
        new = torch.where((step > low) & (step < high) & (slope > 0), step, 0.5 * (low + high))
        done |= (new - nu).abs() <= 4e-16 * nu.abs()
        nu = torch.where(done, nu, new)
    return nu


def solve_factor_qp(
    q: Tensor,
    loadings: Tensor,
    d: Tensor,
    lower: Tensor,
    upper: Tensor,
    budget: Tensor | None,
    mask: Tensor,
    *,
    equalities: Rows | None = None,
    inequalities: Rows | None = None,
    cost: Tensor | None = None,
    reference: Tensor | None = None,
    skip: Tensor | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    warm_start: FactorSolution | Tensor | None = None,
) -> tuple[FactorSolution, Batch, Tensor]:
    """Solve a batch of factor QPs.

    Parameters
    ----------
    q, d, lower, upper : (T, n) float64; ``d`` ≥ 0, bounds finite where it is 0.
    loadings : (T, n, k).
    budget : (T,), or None for no row 1ᵀw = budget.
    mask : (T, n) bool; a masked-out name is exactly zero.
    equalities, inequalities : rows A (T, p, n), b (T, p) and G (T, m, n), h (T, m).
    cost, reference : c ≥ 0 and w⁰ (T, n), both or neither.
    skip : (T,) bool, days with bad data: not solved, status ``BAD_DATA``.
    tolerance : scaled KKT residual at which a day is solved.
    warm_start : an earlier solution of similar problems, or its ``x`` (T, k).

    Returns
    -------
    The solution; the scaled batch and its weights (T, N) for
    :func:`~.structured_active.backward`.

    Notes
    -----
    The caller vouches for shapes and finiteness (``layers.factor`` checks them). No error is
    raised here: a failure is a status.
    """
    n = q.shape[-1]
    if cost is None:
        reference = None
    batch, middle = _lifted(
        q, loadings, d, lower, upper, budget, mask, equalities, inequalities, cost, reference
    )
    T, N, K = batch.columns.shape
    k, ones, m = batch.factors, int(budget is not None), N - n
    points = Points(
        w=batch.q.new_zeros(T, N),
        theta=batch.q.new_zeros(T, K),
        norm=batch.q.new_full((T,), torch.nan),
        iterations=torch.zeros(T, dtype=torch.int64, device=q.device),
        infeasible=(batch.box.lower > batch.box.upper).any(-1),
    )
    if ones:
        least, most = batch.box.lower.sum(-1), batch.box.upper[:, :n].sum(-1)
        wanted, slack = batch.target[:, 0], 1e-12
        points.infeasible |= (least > wanted + slack) | (most < wanted - slack)
        short = most < wanted
        points.theta[:, k] = torch.where(points.infeasible, torch.where(short, -1.0, 1.0), 0.0)
        batch.target[:, 0] = torch.minimum(torch.maximum(wanted, least), most)
    bad = torch.zeros_like(points.infeasible) if skip is None else skip
    days = torch.nonzero(~points.infeasible & ~bad).squeeze(-1)
    if isinstance(warm_start, FactorSolution):
        _warm(points, batch, warm_start, middle, ones, n)
    else:
        _cold(points, batch, mask, days, ones, warm_start)
    flat = bool(((batch.d <= _LEAST_D) & (batch.box.upper > batch.box.lower)).any())
    plain = ones and k + 1 == K and cost is None and not flat and len(days) == T
    if plain and batch.columns.numel() <= LIGHT and max_iterations >= LIGHT_STEPS:
        days = light(batch, points, tolerance)
    left = days
    if len(days):
        left = newton(
            batch,
            points,
            days,
            rho=_pull(batch) if flat else None,
            tolerance=tolerance,
            max_iterations=min(_NEWTON_STEPS, max_iterations),
        )
    left = left[~points.infeasible[left]]
    if max_iterations > _NEWTON_STEPS and len(left):
        left = interior(batch, points, left, tolerance=tolerance, max_iterations=_INTERIOR_STEPS)
        if len(left):
            pull = torch.full_like(batch.q, _PULL)
            newton(batch, points, left, rho=pull, tolerance=tolerance, max_iterations=_LAST_STEPS)
    points.w = batch.box.snapped(points.w, _SNAP)
    return _unscaled(batch, points, bad, middle, ones, n, m, tolerance), batch, points.w


def _pull(batch: Batch) -> Tensor:
    """ρ (T, N) for names without curvature of their own: small beside that of the others."""
    curved = batch.d > _LEAST_D
    mean = batch.d.sum(-1) / curved.sum(-1).clamp_min(1)
    small = torch.where(mean > 0, 1e-3 * mean, _PULL).unsqueeze(-1)
    return torch.where(curved, 0.0, small)


def _slack(batch: Batch, w: Tensor) -> Tensor:
    """Names' weights (T, n) with the slacks that they leave, (T, N)."""
    n, m = w.shape[-1], batch.q.shape[-1] - w.shape[-1]
    if not m:
        return w
    used = transposed(batch.columns[:, :n, -m:], w)
    return torch.cat([w, (batch.target[:, -m:] - used).clamp_min(0)], -1)


def _cold(
    points: Points, batch: Batch, mask: Tensor, days: Tensor, ones: int, x: Tensor | None
) -> None:
    """Start from equal weights, or from an earlier x = Bᵀw, with the ν that meets the budget."""
    k, n = batch.factors, mask.shape[-1]
    budget = batch.target[:, 0] if ones else None
    start = _start(batch.box.lower[:, :n], batch.box.upper[:, :n], budget, mask)
    points.w.copy_(_slack(batch, start))
    cold = x is None
    if x is None:
        x = transposed(batch.columns[:, :n, :k], start)
    else:
        x = x / (batch.weight_unit * batch.gradient_unit).sqrt().unsqueeze(-1)
    points.theta[days, :k] = x[days]
    if ones and len(days):
        near = _START_GAP if cold else 1e-15
        nu = _budget_dual(batch, batch.q + times(batch.columns[..., :k], x), n, near)
        points.theta[days, k] = nu[days]


def _warm(
    points: Points, batch: Batch, start: FactorSolution, middle: Tensor, ones: int, n: int
) -> None:
    """Start from an earlier solution; days that had none start from zero."""
    k, unit = batch.factors, batch.weight_unit.unsqueeze(-1)
    points.theta[:, :k] = start.x / (unit * batch.gradient_unit.unsqueeze(-1)).sqrt()
    nu = [(start.nu + middle).unsqueeze(-1)] if ones else []
    y = torch.cat([*nu, start.nu_rows, start.lam], -1) * batch.row_unit
    points.theta[:, k:] = y / batch.gradient_unit.unsqueeze(-1)
    points.theta.nan_to_num_(nan=0.0)
    points.w.copy_(_slack(batch, start.w.to(batch.q).nan_to_num(nan=0.0) / unit))


def _unscaled(
    batch: Batch,
    points: Points,
    bad: Tensor,
    middle: Tensor,
    ones: int,
    n: int,
    m: int,
    tolerance: float,
) -> FactorSolution:
    """The solution in the caller's units."""
    k = batch.factors
    infeasible = points.infeasible & ~bad
    failed = infeasible | bad
    status = torch.where(points.norm <= tolerance, SOLVED, INACCURATE)
    status = torch.where(infeasible, INFEASIBLE, torch.where(bad, BAD_DATA, status))
    w, x, y = points.w, points.theta[:, :k], points.theta[:, k:]
    # Infeasible days have a direction of the duals instead of a point.
    objective = batch.d * w + batch.q + times(batch.columns[..., :k], x)
    if y.shape[-1]:
        largest = y.abs().amax(-1, keepdim=True).clamp_min(1e-300)
        y = torch.where(infeasible.unsqueeze(-1), y / largest, y)
    rows = times(batch.columns[..., k:], y)
    gradient = torch.where(infeasible.unsqueeze(-1), 0.0, objective) + rows
    low = high = gradient
    if batch.box.cost is not None and batch.box.reference is not None:
        low = gradient + torch.where(w < batch.box.reference, -batch.box.cost, batch.box.cost)
        high = gradient + torch.where(w > batch.box.reference, batch.box.cost, -batch.box.cost)
    at_lower = (w <= batch.box.lower) | infeasible.unsqueeze(-1)
    at_upper = (w >= batch.box.upper) | infeasible.unsqueeze(-1)
    unit = torch.where(infeasible, torch.ones_like(middle), batch.gradient_unit).unsqueeze(-1)
    lam_lb = torch.where(at_lower, high.clamp_min(0), 0.0)[:, :n] * unit
    lam_ub = torch.where(at_upper, (-low).clamp_min(0), 0.0)[:, :n] * unit
    y = y * unit / batch.row_unit
    nu = y[:, 0] - torch.where(infeasible, 0.0, middle) if ones else torch.zeros_like(middle)
    nan = failed.unsqueeze(-1)
    blank = bad.unsqueeze(-1)
    scale = (batch.weight_unit * batch.gradient_unit).sqrt().unsqueeze(-1)
    return FactorSolution(
        w=(w[:, :n] * batch.weight_unit.unsqueeze(-1)).masked_fill(nan, torch.nan),
        nu=nu.masked_fill(bad, torch.nan),
        x=(x * scale).masked_fill(nan, 0.0),
        free=batch.box.free(w)[:, :n] & ~nan,
        kkt_norm=points.norm.masked_fill(failed, torch.nan),
        iterations=points.iterations,
        status=status,
        nu_rows=y[:, ones : y.shape[-1] - m].masked_fill(blank, torch.nan),
        lam=y[:, y.shape[-1] - m :].masked_fill(blank, torch.nan),
        lam_lb=lam_lb.masked_fill(blank, torch.nan),
        lam_ub=lam_ub.masked_fill(blank, torch.nan),
    )
