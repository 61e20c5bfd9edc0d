"""The structured portfolio QP as a differentiable function of all its parameters."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ProblemError
from ..problems.solution import SolveStatus
from ..solvers.factor.active_set import backward
from ..solvers.factor.batch import Batch, transposed
from ..solvers.factor.few_days import MOST_DAYS
from ..solvers.factor.problem import FactorSolution, Rows
from ..solvers.factor.redundant_rows import dependent_days, settled
from ..solvers.factor.solver import solve_factor_qp
from .factor_days import solve_few
from .factor_second_order import Held, gradients_again
from .transforms import eager, refuse_forward_mode, refuse_transforms

# Fewer iterations than the short way may take are for the general one.
_FEW_STEPS = 50


def _broadcast(value: Tensor | float, like: Tensor, name: str) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    try:
        return value.expand(like.shape) if value.ndim else value.repeat(like.shape)
    except RuntimeError:
        raise ProblemError(
            f"{name}: shape {tuple(value.shape)} does not broadcast to {tuple(like.shape)}."
        ) from None


def _rows(
    rows: tuple[Tensor, Tensor | float] | None, like: Tensor, names: tuple[str, str]
) -> tuple[Tensor, Tensor] | None:
    """A matrix (T, p, n) and its values (T, p), from shapes that broadcast to these."""
    if rows is None:
        return None
    matrix = torch.as_tensor(rows[0], dtype=torch.float64, device=like.device)
    if matrix.ndim < 2:
        raise ProblemError(f"{names[0]}: expected (T, rows, n), got {tuple(matrix.shape)}.")
    shape = (len(like), matrix.shape[-2], like.shape[1])
    matrix = _broadcast(matrix, like.new_empty(shape), names[0])
    return matrix, _broadcast(rows[1], like.new_empty(shape[:2]), names[1])


def _bad_days(given: dict[str, Tensor | None], mask: Tensor, throw: bool) -> Tensor:
    """Days (T,) with bad numbers; with ``throw`` an error that names argument, day and name."""
    d, lower, upper = given["specific"], given["lower"], given["upper"]
    assert d is not None and lower is not None and upper is not None
    if bool(_all_good(given, d, lower, upper, mask)):
        return torch.zeros_like(mask[:, 0])
    checks: dict[str, Tensor] = {}
    for name, value in given.items():
        if value is None or name in ("lower", "upper"):
            continue
        finite = torch.isfinite(value)
        if name == "loadings":
            finite = finite.all(-1)
        elif name in ("A", "G"):
            finite = finite.all(-2)
        checks[name] = ~finite
    flat = d == 0
    checks |= {
        "specific (must not be negative)": d < 0,
        "lower": lower.isnan() | (lower == torch.inf),
        "upper": upper.isnan() | (upper == -torch.inf),
        "lower (must be finite where specific is 0)": flat & lower.isinf(),
        "upper (must be finite where specific is 0)": flat & upper.isinf(),
        "bounds (lower must not exceed upper)": lower > upper,
    }
    if given["cost"] is not None:
        checks["cost (must not be negative)"] = given["cost"] < 0
    bad = torch.zeros_like(mask[:, 0])
    for name, wrong in checks.items():
        if name in ("budget", "b", "h"):
            days = wrong if wrong.ndim == 1 else wrong.any(-1)
            where, place = torch.nonzero(days), "value for day {}"
        else:
            inside = wrong & mask
            days = inside.any(-1)
            where, place = torch.nonzero(inside), "value for name {1} of day {0}"
        if throw and bool(days.any()):
            text = place.format(*where[0].tolist())
            raise ProblemError(f"{name}: bad {text} ({len(where)} in all).")
        bad |= days
    empty = torch.nonzero(~mask.any(-1))
    if throw and len(empty):
        raise ProblemError(f"mask: day {int(empty[0])} has no name ({len(empty)} days in all).")
    return bad | ~mask.any(-1)


def _all_good(
    given: dict[str, Tensor | None], d: Tensor, lower: Tensor, upper: Tensor, mask: Tensor
) -> Tensor:
    """Whether every number, masked ones too, is fine (): a sum is finite if all its terms are."""
    rest = [v for k, v in given.items() if v is not None and k not in ("lower", "upper")]
    total = torch.stack([v.sum() for v in rest]).sum() + (upper - lower).sum()
    sign = d.amin() if given["cost"] is None else torch.minimum(d.amin(), given["cost"].amin())
    return total.isfinite() & (sign >= 0) & (upper >= lower).all() & mask.any(-1).all()


class _FactorQP(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, q, loadings, d, lower, upper, budget, A, b, G, h, cost, reference, mask, options
    ):
        solution, batch, lifted = solve_factor_qp(
            q,
            loadings,
            d,
            lower,
            upper,
            budget,
            mask,
            equalities=None if A is None else Rows(A, b),
            inequalities=None if G is None else Rows(G, h),
            cost=cost,
            reference=reference,
            **options,
        )
        ctx.batch, ctx.lifted, ctx.solution = batch, lifted, solution
        given = (q, loadings, d, lower, upper, budget, A, b, G, h, cost, reference)
        ctx.save_for_backward(*given, mask)
        ctx.sizes = int(budget is not None), 0 if A is None else A.shape[-2]
        rest = tuple(getattr(solution, f.name) for f in fields(solution))[1:]
        ctx.mark_non_differentiable(*rest)
        return (solution.w.clone(), *rest)

    jvp = refuse_forward_mode("factor_qp")

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any):  # type: ignore[override]
        refuse_transforms("factor_qp", (grad,))
        *given, mask = ctx.saved_tensors
        values = dict(zip(_ARGUMENTS, given, strict=True))
        if torch.is_grad_enabled():
            return *_again(ctx, values, mask, grad), None, None
        loadings, lower, upper = values["loadings"], values["lower"], values["upper"]
        cost, reference = values["cost"], values["reference"]
        batch: Batch = ctx.batch
        solution: FactorSolution = ctx.solution
        n = grad.shape[-1]
        # A failed day has NaN weights and gives no gradient.
        solved = torch.isfinite(solution.w).all(-1, keepdim=True)
        inside = mask & solved
        w = torch.where(inside, solution.w, 0.0)
        r = torch.zeros_like(ctx.lifted)
        r[:, :n] = torch.where(inside, grad, 0.0)
        needed = dict(zip(_ARGUMENTS, ctx.needs_input_grad, strict=False))
        free = batch.box.free(ctx.lifted) & solved
        z, y, slope = backward(batch, free, r)
        nu_rows, lam = solution.nu_rows, solution.lam
        # Gradients in the objective do not depend on the choice.
        days = dependent_days(batch, free) if any(needed[k] for k in _CONSTRAINTS) else None
        if days is not None and len(days):
            days = days[solved[days, 0]]
            y, slope, nu_rows, lam = _settled(batch, ctx.lifted, days, y, slope, solution)
        unit = (batch.weight_unit / batch.gradient_unit).unsqueeze(-1)
        z = torch.where(inside, z[:, :n] * unit, 0.0)
        y, slope = torch.where(solved, y / batch.row_unit, 0.0), slope[:, :n]
        out: dict[str, Tensor | None] = {"q": z, "d": z * w}
        if needed["loadings"]:
            loadings = torch.where(inside.unsqueeze(-1), loadings, 0.0)
            exposure, tilt = transposed(loadings, w), transposed(loadings, z)
            out["loadings"] = z.unsqueeze(-1) * exposure.unsqueeze(-2) + w.unsqueeze(
                -1
            ) * tilt.unsqueeze(-2)
        still = torch.zeros_like(inside)
        if cost is not None:
            # A tie of bound and reference belongs to the bound only where that is felt.
            free_of_bounds = (solution.lam_lb == 0) & (solution.lam_ub == 0)
            still = inside & (w == reference) & (cost > 0) & free_of_bounds
            out["cost"] = z * (w - reference).sign()
            out["reference"] = torch.where(still, slope, 0.0)
        if needed["lower"] or needed["upper"]:
            at_lower, at_upper = inside & ~still & (w <= lower), inside & ~still & (w >= upper)
            # A pinned name (l = u) moves with both of its bounds: each gets half.
            share = slope / (1.0 + (at_lower & at_upper))
            out["lower"] = torch.where(at_lower, share, 0.0)
            out["upper"] = torch.where(at_upper, share, 0.0)
        ones, p = ctx.sizes
        if ones:
            out["budget"] = -y[:, 0]
        parts = {"A": (slice(ones, ones + p), nu_rows)}
        parts["G"] = slice(ones + p, None), lam
        for name, (at, dual) in parts.items():
            tilde = y[:, at]
            dual = torch.where(solved, dual, 0.0)
            if needed[name]:
                out[name] = tilde.unsqueeze(-1) * w.unsqueeze(-2) + dual.unsqueeze(
                    -1
                ) * z.unsqueeze(-2)
            out["b" if name == "A" else "h"] = -tilde
        return *(out.get(k) if needed[k] else None for k in _ARGUMENTS), None, None


def _settled(
    batch: Batch,
    w: Tensor,
    days: Tensor,
    y: Tensor,
    slope: Tensor,
    solution: FactorSolution,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (T, r), slope (T, N), ν_A (T, p) and λ (T, m) as dependent rows have them on ``days``."""
    p, n = solution.nu_rows.shape[-1], solution.w.shape[-1]
    duals = torch.cat([solution.nu.unsqueeze(-1), solution.nu_rows, solution.lam], -1)
    ones = y.shape[-1] + 1 - duals.shape[-1]
    duals = duals[:, 1 - ones :].clone()
    unit = batch.gradient_unit.unsqueeze(-1)
    own, pull = batch.row_unit / unit, (solution.lam_lb - solution.lam_ub) / unit
    y, slope = y.clone(), slope.clone()
    for day in days.tolist():
        at = duals[day] * own[day]
        points = ((y[day], slope[day, :n]), (at, pull[day]))
        found = settled(batch, w, day, at, pull[day], points)
        (y[day], slope[day, :n]), (at, _) = found
        duals[day] = at / own[day]
    return y, slope, duals[:, ones : ones + p], duals[:, ones + p :]


def _again(
    ctx: Any, values: dict[str, Tensor | None], mask: Tensor, grad: Tensor
) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    batch, solution = ctx.batch, ctx.solution
    lower, upper = values["lower"], values["upper"]
    cost, reference = values["cost"], values["reference"]
    assert lower is not None and upper is not None
    solved = torch.isfinite(solution.w).all(-1, keepdim=True)
    inside, w, n = mask & solved, solution.w.nan_to_num(), grad.shape[-1]
    free = batch.box.free(ctx.lifted)
    still, side = torch.zeros_like(mask), torch.zeros_like(w)
    if cost is not None and reference is not None:
        free_of_bounds = (solution.lam_lb == 0) & (solution.lam_ub == 0)
        still = inside & (w == reference) & (cost > 0) & free_of_bounds
        side = (w - reference).sign()
    held = Held(
        free[:, :n] & inside,
        inside & ~still & (w <= lower),
        inside & ~still & (w >= upper),
        still,
        side,
        ~free[:, n:],
    )
    return gradients_again(values, held, solved.squeeze(-1), grad, ctx.needs_input_grad)


_ARGUMENTS = (
    "q",
    "loadings",
    "d",
    "lower",
    "upper",
    "budget",
    "A",
    "b",
    "G",
    "h",
    "cost",
    "reference",
)

_CONSTRAINTS = ("lower", "upper", "budget", "A", "b", "G", "h")


@eager
def factor_qp(
    q: Tensor,
    loadings: Tensor,
    specific: Tensor,
    *,
    lower: Tensor | float = 0.0,
    upper: Tensor | float = 1.0,
    budget: Tensor | float | None = 1.0,
    equalities: tuple[Tensor, Tensor | float] | None = None,
    inequalities: tuple[Tensor, Tensor | float] | None = None,
    cost: Tensor | float | None = None,
    reference: Tensor | float | None = None,
    mask: Tensor | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    warm_start: FactorSolution | Tensor | None = None,
    throw: bool = True,
) -> FactorSolution:
    """Solve a batch of portfolio QPs over a factor model, differentiable in all parameters.

        min ½ wᵀ(B Bᵀ + diag(d))w + qᵀw + Σ cᵢ|wᵢ − w⁰ᵢ|
        s.t.  1ᵀw = budget,  A w = b,  G w ≤ h,  l ≤ w ≤ u

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
    lower, upper : l ≤ u, broadcastable to (T, n); finite where d = 0.
    budget : broadcastable to (T,), or None for no such row.
    equalities, inequalities : (A, b) and (G, h), broadcastable to (T, p, n), (T, p) and (T, m, n),
        (T, m). Where h is plus infinity there is no limit.
    cost, reference : c ≥ 0 and w⁰ (zero unless given), broadcastable to (T, n).
    mask : (T, n) bool, names in the problem; the others are exactly zero, gradients included.
    tolerance, max_iterations : see :func:`~bpqp_portfolio.solvers.factor.solver.solve_factor_qp`.
    warm_start : an earlier solution of similar problems, or only its ``x`` (T, k).
    throw : raise for bad values; otherwise a day that has any is NaN with status ``BAD_DATA``, has
        zero gradient, and leaves the other days as they are.

    Returns
    -------
    FactorSolution; NaN weights on infeasible days.

    Raises
    ------
    ProblemError
        Shapes that do not match; with ``throw``, non-finite values, d < 0, c < 0, l > u, an
        infinite bound where d = 0, a day without a name.
    """
    if q.ndim != 2 or loadings.ndim != 3 or loadings.shape[:2] != q.shape:
        raise ProblemError(
            f"q must be (T, n) and loadings (T, n, k); got {tuple(q.shape)} and "
            f"{tuple(loadings.shape)}."
        )
    if not q.is_floating_point():
        raise ProblemError(f"q must be floating point; got {q.dtype}.")
    if mask is None:
        mask = torch.ones_like(q, dtype=torch.bool)
    if mask.shape != q.shape or mask.dtype != torch.bool:
        raise ProblemError(f"mask must be bool {tuple(q.shape)}; got {tuple(mask.shape)}.")
    like = q.double()
    A, b = _rows(equalities, like, ("A", "b")) or (None, None)
    G, h = _rows(inequalities, like, ("G", "h")) or (None, None)
    unlimited = None
    if G is not None and h is not None and bool((h == torch.inf).any()):
        unlimited = h == torch.inf
        G, h = torch.where(unlimited.unsqueeze(-1), 0.0, G), torch.where(unlimited, 1.0, h)
    _check_start(warm_start, like, loadings, A, G)
    factors, variance = loadings.double(), _broadcast(specific, like, "specific")
    low, high = _broadcast(lower, like, "lower"), _broadcast(upper, like, "upper")
    total = None if budget is None else _broadcast(budget, like.new_empty(len(like)), "budget")
    given: dict[str, Tensor | None] = {
        "q": like,
        "loadings": factors,
        "specific": variance,
        "lower": low,
        "upper": high,
        "budget": total,
        "A": A,
        "b": b,
        "G": G,
        "h": h,
        "cost": None if cost is None else _broadcast(cost, like, "cost"),
        "reference": None,
    }
    if cost is not None:
        given["reference"] = _broadcast(0.0 if reference is None else reference, like, "reference")
    if not q.numel():
        sizes = loadings.shape[-1], *(0 if M is None else M.shape[-2] for M in (A, G))
        return _nothing(q, *sizes, throw=throw)
    few = len(q) <= MOST_DAYS and like.device.type == "cpu" and max_iterations >= _FEW_STEPS
    if few and A is None and G is None and cost is None and total is not None:
        solution = solve_few(like, factors, variance, low, high, total, mask, tolerance, warm_start)
        if solution is not None:
            return replace(solution, w=solution.w.to(q.dtype))
    if not factors.shape[-1] and total is None and A is None and G is None:
        # Without factors and rows there is no dual to move along: a factor without risk will do.
        given["loadings"], warm_start = torch.nn.functional.pad(factors, (0, 1)), None
    bad = _bad_days({k: v if v is None else v.detach() for k, v in given.items()}, mask, throw)
    options: dict[str, Any] = {
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "warm_start": warm_start.double() if isinstance(warm_start, Tensor) else warm_start,
    }
    if not throw and bool(bad.any()):
        options["skip"] = bad
        mask = mask & ~bad.unsqueeze(-1)
        for name in ("budget", "b", "h"):
            value = given[name]
            if value is not None:
                shaped = bad.reshape(-1, *(1,) * (value.ndim - 1))
                given[name] = torch.where(shaped, torch.zeros_like(value), value)
    solution = FactorSolution(*_FactorQP.apply(*given.values(), mask, options))
    solution = replace(solution, w=solution.w.to(q.dtype), x=solution.x[:, : factors.shape[-1]])
    if unlimited is not None:
        solution = replace(solution, lam=solution.lam.masked_fill(unlimited, 0.0))
    return solution


def _nothing(q: Tensor, k: int, p: int, m: int, *, throw: bool) -> FactorSolution:
    """The solution of no days; or of days without names, which are bad data."""
    if throw and len(q):
        raise ProblemError(f"mask: day 0 has no name ({len(q)} days in all).")
    none = q.detach().double()
    unknown = none.new_full((len(q),), torch.nan)
    zero = torch.zeros_like(unknown, dtype=torch.int64)
    return FactorSolution(
        w=q.clone(),
        nu=unknown,
        x=none.new_full((len(q), k), torch.nan),
        free=torch.zeros_like(none, dtype=torch.bool),
        kkt_norm=unknown.clone(),
        iterations=zero,
        status=zero + SolveStatus.BAD_DATA.code,
        nu_rows=none.new_full((len(q), p), torch.nan),
        lam=none.new_full((len(q), m), torch.nan),
        lam_lb=none,
        lam_ub=none.clone(),
    )


def _check_start(
    start: FactorSolution | Tensor | None,
    q: Tensor,
    loadings: Tensor,
    A: Tensor | None,
    G: Tensor | None,
) -> None:
    if start is None:
        return
    T, k = len(q), loadings.shape[-1]
    x = start if isinstance(start, Tensor) else start.x
    if x.shape != (T, k):
        raise ProblemError(
            f"warm_start must be (T, k) = {(T, k)}, the x of an earlier solution, or that "
            f"solution; got {tuple(x.shape)}."
        )
    if isinstance(start, FactorSolution):
        wanted = q.shape[1], 0 if A is None else A.shape[-2], 0 if G is None else G.shape[-2]
        sizes = start.w.shape[-1], start.nu_rows.shape[-1], start.lam.shape[-1]
        if sizes != wanted:
            raise ProblemError(
                f"warm_start has {sizes} names, equalities and inequalities; expected {wanted}."
            )
