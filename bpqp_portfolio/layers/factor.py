"""The factor-model portfolio QP as a differentiable function of all its parameters.

With the solution's active set the optimum w solves KKT equations that are linear in w. Their
derivative is the backward QP: for the gradient r of a loss in w,

    min ½ z̃ᵀ(B Bᵀ + diag(d)) z̃ + rᵀz̃   s.t.  1ᵀz̃ = 0,  A z̃ = 0,  G_i z̃ = 0 for binding i,

and z̃ = 0 for names at a bound or at their reference. Then ∂L/∂q = z̃, ∂L/∂d = z̃∘w,
∂L/∂B = z̃(Bᵀw)ᵀ + w(Bᵀz̃)ᵀ, and for a row gᵀw ≤ h with multipliers λ and, backward, λ̃:
∂L/∂g = λ̃ w + λ z̃, ∂L/∂h = −λ̃ (arXiv:2411.19285, Theorem 1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..config import check_number
from ..errors import ConfigError
from ..solvers.factor.active_set import backward
from ..solvers.factor.few_days import MOST_DAYS
from ..solvers.factor.problem import PARAMETERS, FactorQP, FactorSolution
from ..solvers.factor.redundant_rows import dependent_days, settle_multipliers
from ..solvers.factor.solver import solve_factor_qp
from ..solvers.factor.standard_form import StandardForm, transposed
from .base import NAN, RAISE
from .factor_arguments import (
    bad_days,
    check_initial_point,
    read_problem,
    refuse_unsolved,
    solution_without_names,
    without_bad_days,
    without_unlimited,
)
from .factor_days import solve_few
from .factor_second_order import Held, gradients_again
from .transforms import eager, refuse_forward_mode, refuse_transforms

# Fewer iterations than the method for a few days may take are for the general one.
_FEW_STEPS = 50
# Gradients in the others do not depend on the choice among dependent rows' multipliers.
_CONSTRAINTS = ("lb", "ub", "budget", "A", "b", "G", "h")


class _FactorQP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: Tensor, options: dict[str, Any], *given: Tensor | None) -> Any:  # type: ignore[override]
        problem = FactorQP(mask=mask, **dict(zip(PARAMETERS, given, strict=True)))  # type: ignore[arg-type]
        solution, form, weights = solve_factor_qp(problem, **options)
        ctx.form, ctx.weights, ctx.solution = form, weights, solution
        ctx.save_for_backward(*given, mask)
        rest = solution.tensors[1:]
        ctx.mark_non_differentiable(*rest)
        return (solution.w.clone(), *rest)

    jvp = refuse_forward_mode("factor_qp")

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:  # type: ignore[override]
        refuse_transforms("factor_qp", (grad,))
        *given, mask = ctx.saved_tensors
        problem = FactorQP(mask=mask, **dict(zip(PARAMETERS, given, strict=True)))
        needed = dict(zip(PARAMETERS, ctx.needs_input_grad[2:], strict=True))
        if torch.is_grad_enabled():
            held, solved = _held(ctx, problem)
            solved = solved.squeeze(-1)
            again = gradients_again(problem.parameters, held, solved, grad, [*needed.values()])
            return None, None, *again
        found = _gradients(ctx, problem, grad, needed)
        return None, None, *(found.get(name) if needed[name] else None for name in PARAMETERS)


def _held(ctx: Any, problem: FactorQP) -> tuple[Held, Tensor]:
    """How every name stands at the solution, and which days have one, (T, 1)."""
    form: StandardForm = ctx.form
    solution: FactorSolution = ctx.solution
    # A failed day has NaN weights and gives no gradient.
    solved = torch.isfinite(solution.w).all(-1, keepdim=True)
    inside, n = problem.mask & solved, solution.w.shape[-1]
    w = torch.where(inside, solution.w, 0.0)
    free = form.box.free(ctx.weights)
    still, side = torch.zeros_like(inside), torch.zeros_like(w)
    if problem.cost is not None and problem.reference is not None:
        # A tie of bound and reference belongs to the bound only where that is felt.
        free_of_bounds = (solution.lam_lb == 0) & (solution.lam_ub == 0)
        still = inside & (w == problem.reference) & (problem.cost > 0) & free_of_bounds
        side = (w - problem.reference).sign()
    held = Held(
        free=free[:, :n] & inside,
        at_lower=inside & ~still & (w <= problem.lb),
        at_upper=inside & ~still & (w >= problem.ub),
        reference=still,
        side=side,
        binding=~free[:, n:],
    )
    return held, solved


def _gradients(
    ctx: Any, problem: FactorQP, grad: Tensor, needed: dict[str, bool]
) -> dict[str, Tensor]:
    """The gradients in the parameters of ``problem``; costly ones only where ``needed``."""
    form: StandardForm = ctx.form
    solution: FactorSolution = ctx.solution
    held, solved = _held(ctx, problem)
    inside, n = problem.mask & solved, grad.shape[-1]
    w = torch.where(inside, solution.w, 0.0)
    # Step 1: the backward QP, in the solver's units.
    r = torch.zeros_like(ctx.weights)
    r[:, :n] = torch.where(inside, grad, 0.0)
    free = form.box.free(ctx.weights) & solved
    z, y, slope = backward(form, free, r)
    nu_rows, lam = solution.nu_rows, solution.lam
    # Step 2: where active rows depend on each other, the multipliers that a derivative has.
    if any(needed[name] for name in _CONSTRAINTS):
        days = dependent_days(form, free)
        if len(days):
            days = days[solved[days, 0]]
            y, slope, nu_rows, lam = _settled(form, ctx.weights, days, y, slope, solution)
    # Step 3: the caller's units.
    unit = (form.weight_unit / form.gradient_unit).unsqueeze(-1)
    z = torch.where(inside, z[:, :n] * unit, 0.0)
    y, slope = torch.where(solved, y / form.row_unit, 0.0), slope[:, :n]
    # Step 4: the gradient in each parameter.
    out = {"q": z, "d": z * w}
    if needed["loadings"]:
        B = torch.where(inside.unsqueeze(-1), problem.loadings, 0.0)
        out["loadings"] = _outer(z, transposed(B, w)) + _outer(w, transposed(B, z))
    if problem.cost is not None:
        out["cost"] = z * held.side
        out["reference"] = torch.where(held.reference, slope, 0.0)
    if needed["lb"] or needed["ub"]:
        # A pinned name (lb = ub) moves with both of its bounds: each gets half.
        share = slope / (1.0 + (held.at_lower & held.at_upper))
        out["lb"] = torch.where(held.at_lower, share, 0.0)
        out["ub"] = torch.where(held.at_upper, share, 0.0)
    ones, p = form.budget_rows, nu_rows.shape[-1]
    if ones:
        out["budget"] = -y[:, 0]
    rows = ("A", "b", slice(ones, ones + p), nu_rows), ("G", "h", slice(ones + p, None), lam)
    for matrix, value, at, dual in rows:
        if needed[matrix]:
            dual = torch.where(solved, dual, 0.0)
            out[matrix] = _outer(y[:, at], w) + _outer(dual, z)
        out[value] = -y[:, at]
    return out


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """(T, a), (T, b) → (T, a, b)."""
    return left.unsqueeze(-1) * right.unsqueeze(-2)


def _settled(
    form: StandardForm, w: Tensor, days: Tensor, y: Tensor, slope: Tensor, solution: FactorSolution
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (T, r), slope (T, N), ν_A (T, p) and λ (T, m) as dependent rows have them on ``days``."""
    p, n = solution.nu_rows.shape[-1], solution.w.shape[-1]
    duals = torch.cat([solution.nu.unsqueeze(-1), solution.nu_rows, solution.lam], -1)
    ones = y.shape[-1] + 1 - duals.shape[-1]
    duals = duals[:, 1 - ones :].clone()
    unit = form.gradient_unit.unsqueeze(-1)
    own, pull = form.row_unit / unit, (solution.lam_lb - solution.lam_ub) / unit
    y, slope = y.clone(), slope.clone()
    for day in days.tolist():
        at = duals[day] * own[day]
        points = ((y[day], slope[day, :n]), (at, pull[day]))
        found = settle_multipliers(form, w, day, at, pull[day], points)
        (y[day], slope[day, :n]), (at, _) = found
        duals[day] = at / own[day]
    return y, slope, duals[:, ones : ones + p], duals[:, ones + p :]


@eager
def factor_qp(
    q: Tensor,
    loadings: Tensor,
    specific: Tensor | float,
    *,
    A: Tensor | None = None,
    b: Tensor | float | None = None,
    G: Tensor | None = None,
    h: Tensor | float | None = None,
    lb: Tensor | float = 0.0,
    ub: Tensor | float = 1.0,
    budget: Tensor | float | None = 1.0,
    cost: Tensor | float | None = None,
    reference: Tensor | float | None = None,
    mask: Tensor | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    on_failure: str = RAISE,
    initial_point: FactorSolution | Tensor | None = None,
) -> FactorSolution:
    """Solve a batch of portfolio QPs over a factor model, differentiable in all parameters.

        min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|
        s.t.  1ᵀw = budget,  A w = b,  G w ≤ h,  lb ≤ w ≤ ub

    The gradient is the backward QP (arXiv:2411.19285, Theorem 1) in the same structure. A name that
    does not trade is held by its reference as by a bound: its gradient goes to w⁰; where w⁰ lies
    on a bound, to the bound only if that has a positive multiplier. Where active rows and bounds
    depend on each other, inequalities give way
    (:mod:`bpqp_portfolio.solvers.common.redundant_rows`).

    Parameters
    ----------
    q : (T, n), in whose dtype the weights come back; the solve is in float64.
    loadings : B, (T, n, k).
    specific : d ≥ 0, broadcastable to (T, n).
    A, b : broadcastable to (T, p, n), (T, p), both or neither.
    G, h : broadcastable to (T, m, n), (T, m), both or neither. Where h is plus infinity there is no
        limit.
    lb, ub : lb ≤ ub, broadcastable to (T, n); finite where d = 0.
    budget : broadcastable to (T,), or None for no such row.
    cost, reference : c ≥ 0 and w⁰ (zero unless given), broadcastable to (T, n).
    mask : (T, n) bool, names in the problem; the others are exactly zero, gradients included.
    tolerance : scaled KKT residual at which a day is solved, free of all units.
    max_iterations : see :func:`~bpqp_portfolio.solvers.factor.solver.solve_factor_qp`.
    on_failure : "raise", or "nan": a day with bad values or without weights is NaN with its status,
        an inaccurate one is kept; such days leave the others as they are, and a NaN one has zero
        gradient.
    initial_point : an earlier solution of similar problems, or only its ``x`` (T, k); it changes
        the time, not the answer.

    Returns
    -------
    FactorSolution, of which ``w`` carries gradients.

    Raises
    ------
    ProblemError
        Shapes that do not match; with "raise", non-finite values, d < 0, c < 0, lb > ub, an
        infinite bound where d = 0, a day without a name.
    SolverError
        With "raise", a day that was not solved.
    ConfigError
        ``tolerance``, ``max_iterations`` or ``on_failure`` outside its range.

    Examples
    --------
    >>> q = torch.tensor([[-0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    >>> w = factor_qp(q, torch.zeros(1, 2, 0), specific=1.0).w
    >>> w.tolist()
    [[0.6, 0.4]]
    >>> w[0, 0].backward()
    >>> q.grad.tolist()
    [[-0.5, 0.5]]
    """
    _check_settings(tolerance, max_iterations, on_failure)
    given = read_problem(q, loadings, specific, lb, ub, budget, A, b, G, h, cost, reference, mask)
    check_initial_point(initial_point, given)
    problem, unlimited = without_unlimited(given)
    if not q.numel():
        solution = solution_without_names(problem, on_failure == RAISE)
    else:
        solution = _solve(problem, tolerance, max_iterations, on_failure == RAISE, initial_point)
        if on_failure == RAISE:
            refuse_unsolved(solution)
    if unlimited is not None:
        solution = replace(solution, lam=solution.lam.masked_fill(unlimited, 0.0))
    return replace(solution, w=solution.w.to(q.dtype))


def _check_settings(tolerance: float, max_iterations: int, on_failure: str) -> None:
    check_number(tolerance, "tolerance", low=0, open_low=True)
    check_number(max_iterations, "max_iterations", low=0, integer=True)
    if on_failure not in (RAISE, NAN):
        raise ConfigError(f"on_failure: expected {RAISE!r} or {NAN!r}, got {on_failure!r}.")


def _solve(
    problem: FactorQP,
    tolerance: float,
    max_iterations: int,
    raises: bool,
    initial_point: FactorSolution | Tensor | None,
) -> FactorSolution:
    """The solution of days with names, by the method for a few days where that serves."""
    bare = problem.A is None and problem.G is None
    few = len(problem.q) <= MOST_DAYS and problem.q.device.type == "cpu"
    plain = bare and problem.cost is None and problem.budget is not None
    if few and plain and max_iterations >= _FEW_STEPS:
        solution = solve_few(problem, tolerance, initial_point)
        if solution is not None:
            return solution
    k = problem.loadings.shape[-1]
    bad, message = bad_days(problem, raises)
    options: dict[str, Any] = {"tolerance": tolerance, "max_iterations": max_iterations}
    if not k and problem.budget is None and bare:
        # Without factors and rows there is no dual to move along: a factor without risk will do.
        problem = replace(problem, loadings=torch.nn.functional.pad(problem.loadings, (0, 1)))
        initial_point = None
    if isinstance(initial_point, Tensor):
        initial_point = initial_point.double()
    if bool(bad.any()):
        problem, options["skip"] = without_bad_days(problem, bad), bad
    options["initial_point"] = initial_point
    found = _FactorQP.apply(problem.mask, options, *problem.parameters.values())
    solution = FactorSolution(*found)
    return replace(solution, x=solution.x[:, :k], message=message)
