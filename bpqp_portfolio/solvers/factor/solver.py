"""Batches of portfolio QPs with a factor-model covariance: n names cost O(n (k+p+m)²), never n².

For every day of a batch, with n names (masked where padded), k factors, p equalities and m
inequalities,

    min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|
    s.t.  1ᵀw = budget,  A w = b,  G w ≤ h,  l ≤ w ≤ u.

Without inequalities and with d > 0, semismooth Newton on the dual of dimension k + 1 + p
(:mod:`.structured_newton`) takes some five steps that touch free names only. With inequalities a
short interior point on the names and rows that matter (:mod:`.structured_approach`) comes near, and
Newton with the binding rows in its system (:mod:`.structured_rows`) ends. Other days, and days that
are not solved soon, go to an interior point (:mod:`.structured_interior`) whose iterates propose
active sets; what even that leaves is solved day by day (:mod:`.structured_single`). All end by
solving directly on the active set (:mod:`.structured_active`), so a name at a bound is exactly
there, and a name that does not trade is exactly at its reference.

Where d = 0 leaves several optimal weights, the answer is the proximal limit: the optimum to which
ρ/2 ‖w − centre‖² leads as the centre follows w, from the analytic centre of the optimal set that
the interior point approaches. It treats identical names alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .batch import Batch, times
from .dual_newton import Points, newton
from .dual_newton_box import LIGHT_STEPS, light
from .dual_newton_rows import newton_rows
from .initial_point import LEAST_D, cold, warm
from .interior_point import interior
from .interior_start import approach
from .problem import FactorSolution, Rows
from .single_days import one_by_one
from .standard_form import lifted

# Newton steps before a day is handed to the interior point, its steps, and those after it.
_NEWTON_STEPS, _INTERIOR_STEPS, _LAST_STEPS = 12, 60, 60
# Pull towards the centre, in units of the batch, where nothing else sets a scale.
_PULL = 1e-3
# Weights this near to a bound are on it.
_SNAP = 1e-14


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
    batch, middle = lifted(
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
    started = warm_start is not None
    enough = max_iterations > _NEWTON_STEPS
    flat = bool(((batch.d <= LEAST_D) & (batch.box.upper > batch.box.lower))[:, :n].any())
    plain = ones and k + 1 == K and cost is None and not flat and len(days) == T
    light_first = plain and max_iterations >= LIGHT_STEPS
    # Newton's method seldom ends soon with inequalities, unless it starts near the end.
    newton_first = started or not m or not enough
    if isinstance(warm_start, FactorSolution):
        warm(points, batch, warm_start, middle, ones, n)
    elif started or (newton_first and not light_first):
        cold(points, batch, mask, days, ones, warm_start)
    if light_first:
        days = light(batch, points, tolerance, started=started)
    if newton_first and len(days):
        days = newton(
            batch,
            points,
            days,
            rho=_pull(batch) if flat or m else None,
            tolerance=tolerance,
            max_iterations=min(_NEWTON_STEPS, max_iterations),
        )
    days = days[~points.infeasible[days]]
    if m and enough and not flat and len(days):
        some = batch if len(days) == T else batch.take(days)
        points.theta[days], steps = approach(some, ones)
        points.iterations[days] += steps
        days = newton_rows(batch, points, days, tolerance)
    if enough and len(days):
        days = interior(batch, points, days, tolerance=tolerance, max_iterations=_INTERIOR_STEPS)
    if enough and len(days):
        pull = torch.full_like(batch.q, _PULL)
        days = newton(
            batch, points, days, rho=pull, tolerance=tolerance, max_iterations=_LAST_STEPS
        )
        one_by_one(batch, points, days[~points.infeasible[days]], tolerance)
    points.w = batch.box.snapped(points.w, _SNAP)
    return _unscaled(batch, points, bad, middle, ones, n, m, tolerance), batch, points.w


def _pull(batch: Batch) -> Tensor:
    """ρ (T, N) for names without curvature of their own: small beside that of the others."""
    curved = batch.d > LEAST_D
    mean = batch.d.sum(-1) / curved.sum(-1).clamp_min(1)
    small = torch.where(mean > 0, 1e-3 * mean, _PULL).unsqueeze(-1)
    return torch.where(curved, 0.0, small)


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
    solved, inaccurate = SolveStatus.SOLVED.code, SolveStatus.INACCURATE.code
    status = torch.where(points.norm <= tolerance, solved, inaccurate)
    status = status.masked_fill(infeasible, SolveStatus.PRIMAL_INFEASIBLE.code)
    status = status.masked_fill(bad, SolveStatus.BAD_DATA.code)
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
        # A certificate of infeasibility has no objective, and so no cost.
        cost = torch.where(infeasible.unsqueeze(-1), 0.0, batch.box.cost)
        low = gradient + torch.where(w < batch.box.reference, -cost, cost)
        high = gradient + torch.where(w > batch.box.reference, cost, -cost)
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
