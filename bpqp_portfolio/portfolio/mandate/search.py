"""The multipliers of a program by nested root finding, and the point that they lead to.

With the inner multipliers the best for a given outer one, each limit is a monotone equation in its
own multiplier (:mod:`.multipliers`). Newton's method within a bracket solves them, the prices of
trades innermost; slopes come of the QP's sensitivities, a backward QP for each multiplier.

Where the equations h(x, w(x)) = 0 of the multipliers x hold, the implicit function theorem gives
dx = −J⁻¹ dh: the gradient in every parameter is that of w(x) with one linear step of x added, a
step that also takes the limits below rounding.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...layers.second_order import first_order
from ...problems.solution import SolveStatus
from ...solvers.factor.problem import FactorSolution
from .multipliers import Equations, Trial
from .point import Point
from .program import MandateProgram

_ROUNDS = 100
# Relative violation at which Newton's method ends, and what is kept after the linear step.
_NEAR, _KEPT = 1e-9, 1e-9
# By how much a row may be missed that takes no part, in its size.
_MISSED = 1e-11


def structured(program: MandateProgram) -> Point:
    """The optimum of a program whose data are good, differentiable in all of its tensors."""
    equations = Equations(program)
    with torch.no_grad():
        fixed = equations.detached()
        cap, unit, x, soft = fixed.ranges()
        x, best, settled, rows = _find(fixed, cap, unit, x)
    equations, fixed = equations.with_rows(rows), fixed.with_rows(rows)
    raw = best.raw
    form = equations.form
    w = form.weights(equations.at(x, raw)[0] if torch.is_grad_enabled() else raw)
    # One linear step of the multipliers carries their gradients.
    there = torch.where(w.isfinite(), w, 0.0)
    open_ = _open(x, cap, best.J) & w.detach().isfinite().all(-1, keepdim=True)
    step = _linear(best.J, equations.misses(there, x), open_)
    w = w + (best.moves * step.unsqueeze(-1)).sum(1)
    low, high = program.lower.detach(), program.upper.detach()
    w = w + (torch.minimum(torch.maximum(w.detach(), low), high) - w.detach())
    if equations.size:
        why = "with a limit of turnover or tracking error, or a robust objective"
        w = first_order(w, "Mandate", why)
    at = w.detach()
    rows_dual = raw.lam.new_zeros(len(w), len(program.rows))
    rows_dual[:, list(rows)] = raw.lam
    duals = [m.dual(at, x[:, k]) for k, m in enumerate(fixed.multipliers)]
    each = torch.stack(duals, -1) if duals else x
    lower, upper = form.bound_duals(raw)
    return Point(
        w=w,
        status=_status(fixed, raw, at, x, cap, soft, settled),
        kkt_norm=raw.kkt_norm,
        iterations=raw.iterations,
        rows=rows_dual,
        trades=each[:, equations.of_trades],
        cones=each[:, equations.of_cones],
        lower=lower,
        upper=upper,
        budget=form.budget_dual(raw),
    )


def _status(
    equations: Equations,
    raw: FactorSolution,
    w: Tensor,
    x: Tensor,
    cap: Tensor,
    soft: Tensor,
    settled: Tensor,
) -> Tensor:
    """Status (T,) of the QPs, inaccurate where a limit is missed that is not soft."""
    h, status = equations.misses(w, x), raw.codes.clone()
    # A soft limit is missed at its price.
    kept = ((h <= _KEPT) | ((x >= cap) & soft)).all(-1) & settled
    usable = raw.usable
    status[usable & ~kept] = SolveStatus.INACCURATE.code
    for k, multiplier in enumerate(equations.multipliers):
        if multiplier.positive:
            # Without limit, as where the optimum holds nothing: it is at the apex of the term.
            status[usable & (x >= cap)[:, k] & (h[:, k] > _KEPT)] = SolveStatus.ITERATION_LIMIT.code
    return status


def _find(
    equations: Equations, cap: Tensor, unit: Tensor, x: Tensor
) -> tuple[Tensor, Trial, Tensor, tuple[int, ...]]:
    """All multipliers (T, K), the point there, which days (T,) are settled, and the rows that take
    part in the end: those of the program that are missed join."""
    rows = equations.rows
    x, best, settled = _nested(equations, 0, cap, unit, x, None)
    x = x.clone()
    while len(rows) < len(equations.program.rows):
        missed = equations.form.missed(equations.form.weights(best.raw)) > _MISSED
        missed[:, list(rows)] = False
        days = torch.nonzero(missed.any(-1)).squeeze(-1)
        if not len(days):
            break
        more = torch.nonzero(missed.any(0)).squeeze(-1).tolist()
        rows = (*rows, *more)
        equations = equations.with_rows(rows)
        lam = best.raw.lam
        best.raw = replace(best.raw, lam=torch.cat([lam, lam.new_zeros(len(lam), len(more))], -1))
        part, start = equations.days(days), best.raw.days(days)
        x[days], trial, settled[days] = _nested(part, 0, cap[days], unit[days], x[days], start)
        best.put(days, trial)
    return x, best, settled, rows


def _nested(
    equations: Equations,
    level: int,
    cap: Tensor,
    unit: Tensor,
    x: Tensor,
    warm: FactorSolution | None,
) -> tuple[Tensor, Trial, Tensor]:
    """Multipliers (T, K) in [0, cap] of which those from ``level`` on are found; the point there;
    and which days (T,) are settled. ``unit`` (T, K) are the multipliers' sizes.
    """
    if level == equations.size:
        best = equations.trial(x, warm)
        return x, best, best.raw.usable & best.h.isfinite().all(-1)
    x, best, good = _nested(equations, level + 1, cap, unit, x, warm)
    x = x.clone()
    own, size, most = x[:, level], unit[:, level], cap[:, level]
    low, high = torch.zeros_like(own), torch.full_like(own, torch.inf)
    part, last = equations, None
    settled = torch.zeros_like(good)
    # Whether 0 was tried, or need not be.
    tried = torch.full_like(good, equations.multipliers[level].positive)
    for _ in range(_ROUNDS):
        # Step 1: which days are settled, and what their brackets are.
        h = best.h[:, level]
        tried |= own <= 0
        settled = (h.abs() <= _NEAR) | ((own <= 0) & (h <= 0)) | ((own >= most) & (h >= 0))
        low, high = torch.where(h > 0, own, low), torch.where(h < 0, own, high)
        tight = high.isfinite() & ((high - low) <= 1e-14 * high)
        days = torch.nonzero(good & ~settled & ~tight).squeeze(-1)
        if not len(days):
            break
        # Step 2: the slope, with the inner multipliers answering to this one.
        J, inner = best.J, slice(level + 1, None)
        open_ = _open(x, cap, J)[:, inner]
        answer = _linear(J[:, inner, inner], J[:, inner, level], open_)
        slope = J[:, level, level] + (J[:, level, inner] * answer).sum(-1)
        # Step 3: Newton's step where it stays in the bracket, else the bracket's middle.
        new = own - h / slope
        wide = torch.minimum(torch.where(slope < 0, 9 * own + size, 2 * own + 0.1 * size), most)
        middle = torch.where(low > 0, (low * high).sqrt(), 0.1 * high)
        middle = torch.where(high.isinf(), wide, middle)
        inside = new.isfinite() & (slope < 0) & (new > low) & (new < high) & (new <= wide)
        # A limit that has become slack has the multiplier 0, which halving never reaches.
        slack = (slope < 0) & (new <= 0) & (low <= 0) & ~tried
        new = torch.where(slack, 0.0, torch.where(inside, new, middle))
        # Step 4: the inner multipliers anew, for the days that go on.
        at = x.clone()
        at[:, inner] += answer * (new - own).unsqueeze(-1)
        at[:, level] = new
        at = torch.minimum(at.clamp_min(0.0), cap)
        if last is None or len(last) != len(days):
            part, last = equations.days(days), days
        x[days], trial, good[days] = _nested(
            part, level + 1, cap[days], unit[days], at[days], _some(best.raw, days)
        )
        best.put(days, trial)
    return x, best, good & settled


def _linear(J: Tensor, h: Tensor, open_: Tensor) -> Tensor:
    """The step (T, K) of the ``open_`` multipliers with h + J step = 0 in their rows."""
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    J = torch.where(open_.unsqueeze(-1) & open_.unsqueeze(-2), J, eye)
    step, _ = torch.linalg.solve_ex(J, torch.where(open_, -h, 0.0).unsqueeze(-1))
    return step.squeeze(-1)


def _open(x: Tensor, cap: Tensor, J: Tensor) -> Tensor:
    """Multipliers (T, K) within their bounds that w answers to."""
    return (x > 0) & (x < cap) & (J.diagonal(dim1=-2, dim2=-1) < 0)


def _some(raw: FactorSolution, days: Tensor) -> FactorSolution:
    return raw if len(days) == len(raw.w) else raw.days(days)
