"""Batches of portfolio QPs with a factor-model covariance: n names cost O(n (k+p+m)²), never n².

For every day of a batch, with n names (masked where padded), k factors, p equalities and m
inequalities,

    min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|
    s.t.  1ᵀw = budget,  A w = b,  G w ≤ h,  lb ≤ w ≤ ub.

Without inequalities and with d > 0, semismooth Newton on the dual of dimension k + 1 + p
(:mod:`.dual_newton`; :mod:`.dual_newton_box` for a budget and bounds alone) takes some five steps
that touch free names only. With inequalities a short interior point on the names and rows that
matter (:mod:`.interior_start`) comes near, and Newton with the binding rows in its system
(:mod:`.dual_newton_rows`) ends. Other days, and days that are not solved soon, go to an interior
point (:mod:`.interior_point`) whose iterates propose active sets; what even that leaves is solved
day by day (:mod:`.single_days`). All end by solving directly on the active set
(:mod:`.active_set`), so a name at a bound is exactly there, and a name that does not trade is
exactly at its reference.

Where d = 0 leaves several optimal weights, the answer is the proximal limit: the optimum to which
ρ/2 ‖w − centre‖² leads as the centre follows w, from the analytic centre of the optimal set that
the interior point approaches. It treats identical names alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...problems.solution import SolveStatus
from .dual_newton import dual_newton
from .dual_newton_box import BOX_STEPS, dual_newton_box
from .dual_newton_rows import dual_newton_rows
from .initial_point import LEAST_D, cold_start, warm_start
from .interior_point import interior_point
from .interior_start import interior_start
from .problem import FactorQP, FactorSolution, Points
from .single_days import solve_single_days
from .standard_form import StandardForm, times, to_standard_form

# Newton steps before a day is handed to the interior point, its steps, and those after it.
_NEWTON_STEPS, _INTERIOR_STEPS, _LAST_STEPS = 12, 60, 60
# Pull towards the centre, in units of the batch, where nothing else sets a scale.
_PULL = 1e-3
# Weights this near to a bound are on it.
_SNAP = 1e-14


def solve_factor_qp(
    problem: FactorQP,
    *,
    skip: Tensor | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    initial_point: FactorSolution | Tensor | None = None,
) -> tuple[FactorSolution, StandardForm, Tensor]:
    """Solve a batch of factor QPs.

    No error is raised here: a failure is a status.

    Parameters
    ----------
    skip : (T,) bool, days with bad data: not solved, status ``BAD_DATA``.
    tolerance : scaled KKT residual at which a day is solved.
    max_iterations : below 13 only Newton's method is tried, for so many steps.
    initial_point : an earlier solution of similar problems, or its ``x`` (T, k).

    Returns
    -------
    The solution; the scaled batch and its weights (T, N) for :func:`~.active_set.backward`.

    Examples
    --------
    >>> one = torch.ones(1, 2, dtype=torch.float64)
    >>> problem = FactorQP(
    ...     q=torch.tensor([[-0.2, 0.0]], dtype=torch.float64),
    ...     loadings=torch.zeros(1, 2, 0, dtype=torch.float64),
    ...     d=one,
    ...     lb=0 * one,
    ...     ub=one,
    ...     mask=one > 0,
    ...     budget=one[:, 0],
    ... )
    >>> solution, *_ = solve_factor_qp(problem)
    >>> solution.w.tolist()
    [[0.6, 0.4]]
    """
    form = to_standard_form(problem)
    points = _unsolved(form)
    bad = torch.zeros_like(points.infeasible) if skip is None else skip
    days = torch.nonzero(~points.infeasible & ~bad).squeeze(-1)
    flat = bool(((form.d <= LEAST_D) & (form.box.upper > form.box.lower))[:, : form.names].any())
    enough = max_iterations > _NEWTON_STEPS
    # Step 1: Newton's method, which seldom ends soon with inequalities, unless it starts near.
    only_budget = form.columns.shape[-1] == form.factors + form.budget_rows == form.factors + 1
    plain = only_budget and form.box.cost is None and not flat and len(days) == len(form.q)
    box_first = plain and max_iterations >= BOX_STEPS
    newton_first = initial_point is not None or not form.slacks or not enough
    if isinstance(initial_point, FactorSolution):
        warm_start(form, points, initial_point)
    elif initial_point is not None or (newton_first and not box_first):
        cold_start(form, points, days, problem.mask, initial_point)
    if box_first:
        days = dual_newton_box(form, points, tolerance, started=initial_point is not None)
    if newton_first and len(days):
        rho = _pull(form) if flat or form.slacks else None
        steps = min(_NEWTON_STEPS, max_iterations)
        days = dual_newton(form, points, days, rho=rho, tolerance=tolerance, max_iterations=steps)
    days = days[~points.infeasible[days]]
    # Step 2: with inequalities, Newton from a start that has most of them right.
    if form.slacks and enough and not flat and len(days):
        some = form if len(days) == len(form.q) else form.take(days)
        points.theta[days], steps = interior_start(some)
        points.iterations[days] += steps
        days = dual_newton_rows(form, points, days, tolerance)
    # Step 3: what is left by the methods that are slow and sure.
    if enough and len(days):
        _solve_hard(form, points, days, tolerance)
    points.w = form.box.snapped(points.w, _SNAP)
    return _in_callers_units(form, points, bad, tolerance), form, points.w


def _unsolved(form: StandardForm) -> Points:
    """Points of all days at zero; infeasible those whose bounds alone exclude any weights.

    The budget is moved into what the bounds allow, by a rounding where it was outside.
    """
    T, N, K = form.columns.shape
    points = Points(
        w=form.q.new_zeros(T, N),
        theta=form.q.new_zeros(T, K),
        norm=form.q.new_full((T,), torch.nan),
        iterations=torch.zeros(T, dtype=torch.int64, device=form.q.device),
        infeasible=(form.box.lower > form.box.upper).any(-1),
    )
    if form.budget_rows:
        least, most = form.box.lower.sum(-1), form.box.upper[:, : form.names].sum(-1)
        budget, slack = form.target[:, 0], 1e-12
        points.infeasible |= (least > budget + slack) | (most < budget - slack)
        # The budget's dual is the certificate.
        proof = torch.where(most < budget, -1.0, 1.0)
        points.theta[:, form.factors] = torch.where(points.infeasible, proof, 0.0)
        form.target[:, 0] = torch.minimum(torch.maximum(budget, least), most)
    return points


def _solve_hard(form: StandardForm, points: Points, days: Tensor, tolerance: float) -> None:
    """Solve ``days`` by the interior point, what that leaves by the proximal point, then singly."""
    days = interior_point(form, points, days, tolerance=tolerance, max_iterations=_INTERIOR_STEPS)
    if len(days):
        rho = torch.full_like(form.q, _PULL)
        days = dual_newton(
            form, points, days, rho=rho, tolerance=tolerance, max_iterations=_LAST_STEPS
        )
        solve_single_days(form, points, days[~points.infeasible[days]], tolerance)


def _pull(form: StandardForm) -> Tensor:
    """ρ (T, N) for names without curvature of their own: small beside that of the others."""
    curved = form.d > LEAST_D
    mean = form.d.sum(-1) / curved.sum(-1).clamp_min(1)
    small = torch.where(mean > 0, 1e-3 * mean, _PULL).unsqueeze(-1)
    return torch.where(curved, 0.0, small)


def _in_callers_units(
    form: StandardForm, points: Points, bad: Tensor, tolerance: float
) -> FactorSolution:
    """The solution in the caller's units; of infeasible days the certificate."""
    k, n, m, ones = form.factors, form.names, form.slacks, form.budget_rows
    infeasible = points.infeasible & ~bad
    proof, failed, blank = infeasible.unsqueeze(-1), infeasible | bad, bad.unsqueeze(-1)
    solved, inaccurate = SolveStatus.SOLVED.code, SolveStatus.INACCURATE.code
    status = torch.where(points.norm <= tolerance, solved, inaccurate)
    status = status.masked_fill(infeasible, SolveStatus.PRIMAL_INFEASIBLE.code)
    status = status.masked_fill(bad, SolveStatus.BAD_DATA.code)
    w, x, y = points.w, points.theta[:, :k], points.theta[:, k:]
    # Infeasible days have a direction of the duals instead of a point.
    objective = form.d * w + form.q + times(form.columns[..., :k], x)
    if y.shape[-1]:
        largest = y.abs().amax(-1, keepdim=True).clamp_min(1e-300)
        y = torch.where(proof, y / largest, y)
    gradient = torch.where(proof, 0.0, objective) + times(form.columns[..., k:], y)
    # The bounds' duals are what the gradient has left at a bound.
    low = high = gradient
    if form.box.cost is not None and form.box.reference is not None:
        # A certificate of infeasibility has no objective, and so no cost.
        cost = torch.where(proof, 0.0, form.box.cost)
        low = gradient + torch.where(w < form.box.reference, -cost, cost)
        high = gradient + torch.where(w > form.box.reference, cost, -cost)
    at_lower, at_upper = (w <= form.box.lower) | proof, (w >= form.box.upper) | proof
    unit = torch.where(infeasible, 1.0, form.gradient_unit).unsqueeze(-1)
    lam_lb = torch.where(at_lower, high.clamp_min(0), 0.0)[:, :n] * unit
    lam_ub = torch.where(at_upper, (-low).clamp_min(0), 0.0)[:, :n] * unit
    y = y * unit / form.row_unit
    nu = torch.zeros_like(form.q_shift)
    if ones:
        nu = y[:, 0] - torch.where(infeasible, 0.0, form.q_shift)
    nan = failed.unsqueeze(-1)
    scale = (form.weight_unit * form.gradient_unit).sqrt().unsqueeze(-1)
    return FactorSolution(
        w=(w[:, :n] * form.weight_unit.unsqueeze(-1)).masked_fill(nan, torch.nan),
        nu=nu.masked_fill(bad, torch.nan),
        x=(x * scale).masked_fill(nan, 0.0),
        free=form.box.free(w)[:, :n] & ~nan,
        kkt_norm=points.norm.masked_fill(failed, torch.nan),
        iterations=points.iterations,
        codes=status,
        nu_rows=y[:, ones : y.shape[-1] - m].masked_fill(blank, torch.nan),
        lam=y[:, y.shape[-1] - m :].masked_fill(blank, torch.nan),
        lam_lb=lam_lb.masked_fill(blank, torch.nan),
        lam_ub=lam_ub.masked_fill(blank, torch.nan),
    )
