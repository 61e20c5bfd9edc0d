"""The multipliers of a mandate's cones and of its turnover limit, by nested root finding.

A tracking-error limit has one multiplier θ, a turnover limit one price λ; at given
(θ, λ) the rest is a factor QP. With θ the best for a given λ, and so on, each limit is a monotone
equation in its own multiplier, since the dual function is concave; the robust term κ‖Σ^½w‖ is a
risk aversion ρ more with ρ‖Σ^½w‖ = κ, monotone as well. Newton's method within a bracket solves
them, the price innermost; slopes come of the QP's sensitivities, a backward QP for each multiplier.

Where the equations h(x, w(x)) = 0 of the multipliers x hold, the implicit function theorem gives
dx = −J⁻¹ dh: the gradient in every parameter is that of w(x) with one linear step of x added, a
step that also takes the limits below rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ...layers.second_order import first_order
from ...problems.solution import SolveStatus
from ...solvers.factor.problem import FactorSolution
from .qp_form import TRACKING, TURNOVER, Setup

_ROUNDS = 100
# Relative violation at which Newton's method ends, and what is kept after the linear step.
_NEAR, _KEPT = 1e-9, 1e-9
# Smallest unit in which a norm is judged.
_LEAST_NORM = 1e-3
# The part of the account that tells the size of a portfolio's risk, at least.
_LEAST_BUDGET = 0.1
# By how much a row may be missed that takes no part, in its unit.
_MISSED = 1e-11
# How far, in units of the problem, a multiplier goes before the search gives its limit up.
_WIDEST = 1e5


@dataclass
class Trial:
    """T days at multipliers x (T, K): the relative violations ``h`` (T, K), their Jacobian ``J``
    (T, K, K), and the sensitivities ``moves`` = dw/dx (T, K, n).
    """

    raw: FactorSolution
    h: Tensor
    J: Tensor
    moves: Tensor

    def put(self, days: Tensor, other: Trial) -> None:
        """Replace some days."""
        for f in fields(self.raw):
            getattr(self.raw, f.name)[days] = getattr(other.raw, f.name)
        for name in ("h", "J", "moves"):
            getattr(self, name)[days] = getattr(other, name)


@dataclass
class Problem:
    """A setup at risk aversion γ (T,), tracking penalty (T,) and κ (T,), if any.

    Its multipliers x (T, K) are those of ρ, θ and λ that it has, in this order.
    """

    setup: Setup
    gamma: Tensor
    penalty: Tensor
    kappa: Tensor | None = None

    def __post_init__(self) -> None:
        robust, tracked = self.kappa is not None, self.setup.draft.tracking is not None
        self.rho = 0 if robust else None
        self.theta = int(robust) if tracked else None
        self.price = int(robust) + int(tracked) if self.setup.turnover is not None else None
        self.size = int(robust) + int(tracked) + int(self.price is not None)

    def days(self, index: Tensor) -> Problem:
        """Some of the days, without gradients."""
        kappa = None if self.kappa is None else self.kappa.detach()[index]
        gamma, penalty = self.gamma.detach()[index], self.penalty.detach()[index]
        return Problem(self.setup.days(index), gamma, penalty, kappa)

    def at(
        self, x: Tensor, warm: FactorSolution | None, *, sensitive: bool = False
    ) -> tuple[FactorSolution, Tensor]:
        """The QP at multipliers ``x`` (T, K), and its linear term."""
        gamma = self.gamma if self.rho is None else self.gamma + x[:, self.rho]
        theta = self.penalty if self.theta is None else self.penalty + x[:, self.theta]
        price = None if self.price is None else x[:, self.price]
        if price is not None and warm is None and not bool(price.any()):
            # Without a price the first solve takes a shorter way.
            price = None
        return self.setup.solve(gamma, theta, price, warm, sensitive=sensitive)

    def misses(self, w: Tensor, x: Tensor) -> Tensor:
        """h (T, K) at weights ``w`` (T, n): above zero where the multiplier must rise."""
        setup, out = self.setup, [w.new_zeros(len(w), 0)]
        if self.kappa is not None and self.rho is not None:
            out.append((self.kappa / (setup.distance(w) * x[:, self.rho]) - 1.0).unsqueeze(-1))
        if setup.draft.tracking is not None:
            # 1/distance is nearly linear in θ, as in trust-region methods.
            found = setup.distance(w, setup.bench)
            out.append((1.0 - setup.draft.tracking / found).unsqueeze(-1))
        if setup.turnover is not None:
            unit = setup.turnover.detach().clamp_min(_LEAST_NORM)
            out.append(((setup.traded(w) - setup.turnover) / unit).unsqueeze(-1))
        return torch.cat(out, -1)

    def _pulls(self, w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a unit of each multiplier adds to the gradient of the objective, and the scale of
        ∂h/∂w as a multiple of that: (T, K, n), (T, K)."""
        setup, pulls, scales = self.setup, [w.new_zeros(len(w), 0, w.shape[1])], []
        if self.kappa is not None and self.rho is not None:
            pulls.append((setup.times(w) * setup.mask).unsqueeze(1))
            scales.append(-self.kappa / (setup.distance(w) ** 3 * x[:, self.rho]))
        if setup.draft.tracking is not None:
            pulls.append((setup.times(w - setup.bench) * setup.mask).unsqueeze(1))
            scales.append(setup.draft.tracking / setup.distance(w, setup.bench) ** 3)
        if setup.turnover is not None:
            pulls.append(torch.where(setup.mask, w - setup.previous, 0.0).sign().unsqueeze(1))
            scales.append(1.0 / setup.turnover.clamp_min(_LEAST_NORM))
        return torch.cat(pulls, 1), torch.stack(scales, -1) if scales else w.new_zeros(len(w), 0)

    def trial(self, x: Tensor, warm: FactorSolution | None) -> Trial:
        """Solve without gradients in the parameters, and differentiate in x."""
        with torch.enable_grad():
            raw, q = self.at(x, warm, sensitive=True)
            w = torch.where(self.setup.mask, self.setup.weights(raw), 0.0)
        at = w.detach()
        pulls, scales = self._pulls(at, x)
        each = [torch.autograd.grad(w, q, v, retain_graph=True)[0] for v in pulls.unbind(1)]
        moves = torch.stack(each, 1) if each else pulls
        J = scales.unsqueeze(-1) * (pulls @ moves.mT)
        if self.kappa is not None and self.rho is not None:
            J[:, 0, 0] -= self.kappa / (self.setup.distance(at) * x[:, self.rho] ** 2)
        return Trial(replace(raw, w=raw.w.detach()), self.misses(at, x), J, moves)


def _linear(J: Tensor, h: Tensor, open_: Tensor) -> Tensor:
    """The step (T, K) of the ``open_`` multipliers with h + J step = 0 in their rows."""
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    J = torch.where(open_.unsqueeze(-1) & open_.unsqueeze(-2), J, eye)
    step, _ = torch.linalg.solve_ex(J, torch.where(open_, -h, 0.0).unsqueeze(-1))
    return step.squeeze(-1)


def _open(x: Tensor, cap: Tensor, J: Tensor) -> Tensor:
    """Multipliers (T, K) within their bounds that w answers to."""
    return (x > 0) & (x < cap) & (J.diagonal(dim1=-2, dim2=-1) < 0)


def _nested(
    problem: Problem,
    level: int,
    cap: Tensor,
    unit: Tensor,
    x: Tensor,
    warm: FactorSolution | None,
) -> tuple[Tensor, Trial, Tensor]:
    """Multipliers (T, K) in [0, cap] of which those from ``level`` on are found; the point there;
    and which days (T,) are settled. ``unit`` (T, K) are the multipliers' sizes.
    """
    if level == problem.size:
        best = problem.trial(x, warm)
        return x, best, best.raw.usable & best.h.isfinite().all(-1)
    x, best, good = _nested(problem, level + 1, cap, unit, x, warm)
    x = x.clone()
    own, size, most = x[:, level], unit[:, level], cap[:, level]
    low, high = torch.zeros_like(own), torch.full_like(own, torch.inf)
    part, last = problem, None
    # ρ of the robust term is never zero.
    settled, tried = torch.zeros_like(good), torch.full_like(good, level == problem.rho)
    for _ in range(_ROUNDS):
        h = best.h[:, level]
        tried |= own <= 0
        settled = (h.abs() <= _NEAR) | ((own <= 0) & (h <= 0)) | ((own >= most) & (h >= 0))
        low, high = torch.where(h > 0, own, low), torch.where(h < 0, own, high)
        tight = high.isfinite() & ((high - low) <= 1e-14 * high)
        days = torch.nonzero(good & ~settled & ~tight).squeeze(-1)
        if not len(days):
            break
        # The inner multipliers answer to this one.
        J, inner = best.J, slice(level + 1, None)
        open_ = _open(x, cap, J)[:, inner]
        answer = _linear(J[:, inner, inner], J[:, inner, level], open_)
        slope = J[:, level, level] + (J[:, level, inner] * answer).sum(-1)
        new = own - h / slope
        wide = torch.minimum(torch.where(slope < 0, 9 * own + size, 2 * own + 0.1 * size), most)
        middle = torch.where(low > 0, (low * high).sqrt(), 0.1 * high)
        middle = torch.where(high.isinf(), wide, middle)
        inside = new.isfinite() & (slope < 0) & (new > low) & (new < high) & (new <= wide)
        # A limit that has become slack has the multiplier 0, which halving never reaches.
        slack = (slope < 0) & (new <= 0) & (low <= 0) & ~tried
        new = torch.where(slack, 0.0, torch.where(inside, new, middle))
        at = x.clone()
        at[:, inner] += answer * (new - own).unsqueeze(-1)
        at[:, level] = new
        at = torch.minimum(at.clamp_min(0.0), cap)
        if last is None or len(last) != len(days):
            part, last = problem.days(days), days
        x[days], trial, good[days] = _nested(
            part, level + 1, cap[days], unit[days], at[days], _days(best.raw, days)
        )
        best.put(days, trial)
    return x, best, good & settled


def _days(raw: FactorSolution, days: Tensor) -> FactorSolution:
    return raw if len(days) == len(raw.w) else raw.days(days)


def find(problem: Problem, cap: Tensor, unit: Tensor, x: Tensor) -> tuple[Tensor, Trial, Tensor]:
    """All multipliers, with rows of the setup that are missed joining those that take part."""
    setup, rows = problem.setup, problem.setup.rows
    x, best, settled = _nested(problem, 0, cap, unit, x, None)
    x = x.clone()
    while len(rows) < len(setup.words):
        missed = setup.missed(setup.weights(best.raw)) > _MISSED
        missed[:, rows] = False
        days = torch.nonzero(missed.any(-1)).squeeze(-1)
        if not len(days):
            break
        more = torch.nonzero(missed.any(0)).squeeze(-1).tolist()
        rows.extend(more)
        lam = best.raw.lam
        best.raw = replace(best.raw, lam=torch.cat([lam, lam.new_zeros(len(lam), len(more))], -1))
        part, start = problem.days(days), best.raw.days(days)
        x[days], trial, settled[days] = _nested(part, 0, cap[days], unit[days], x[days], start)
        best.put(days, trial)
    return x, best, settled


@dataclass
class Point:
    """Weights (T, n) of a batch with status (T,), and duals by kind in units of return.

    A day whose limits of tracking error or turnover are out of the multipliers' reach is
    ``INACCURATE``, and misses them.
    """

    w: Tensor
    status: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    rows: Tensor
    turnover: Tensor
    tracking: Tensor
    lower: Tensor
    upper: Tensor
    budget: Tensor

    @classmethod
    def bad(cls, setup: Setup) -> Point:
        """A point of every day of ``setup`` without weights: its data are bad."""
        q = setup.q.detach()
        none, names = q.new_full((len(q),), torch.nan), torch.full_like(q, torch.nan)
        zero = torch.zeros_like(none, dtype=torch.int64)
        bad = zero + SolveStatus.BAD_DATA.code
        rows = q.new_full((len(q), len(setup.words)), torch.nan)
        return cls(names, bad, none, zero, rows, none, none, names, names.clone(), none)

    def put(self, days: Tensor, other: Point) -> Point:
        """This point with ``days`` (d,) replaced by those of ``other``, gradients included."""
        values = {}
        for f in fields(self):
            own, new = getattr(self, f.name), getattr(other, f.name)
            values[f.name] = own.index_copy(0, days, new.to(own.dtype))
        return Point(**values)


def solve(setup: Setup, gamma: Tensor, kappa: Tensor | None = None) -> Point:
    """The optimum of a draft at risk aversion ``gamma`` (T,), with κ (T,) of the robust term.

    A limit that is soft has its multiplier capped by the penalty, which is what a price of the
    excess comes to (for the tracking error T of limit t, the price of (T² − t²)/2t).
    """
    d = setup.draft
    penalty = torch.zeros_like(d.budget) if d.penalty is None else d.penalty
    problem = Problem(setup, gamma, penalty, kappa)
    with torch.no_grad():
        fixed = problem.days(torch.arange(len(gamma), device=gamma.device))
        cap, unit, x, soft = _sizes(fixed)
        x, best, settled = find(fixed, cap, unit, x)
    raw = best.raw
    w = setup.weights(problem.at(x, raw)[0] if torch.is_grad_enabled() else raw)
    there = torch.where(w.isfinite(), w, 0.0)
    open_ = _open(x, cap, best.J) & w.detach().isfinite().all(-1, keepdim=True)
    step = _linear(best.J, problem.misses(there, x), open_)
    w = w + (best.moves * step.unsqueeze(-1)).sum(1)
    low, high = d.lower.detach(), d.upper.detach()
    w = w + (torch.minimum(torch.maximum(w.detach(), low), high) - w.detach())
    if problem.size:
        why = "with a limit of turnover or tracking error, or a robust objective"
        w = first_order(w, "Mandate", why)
    h = fixed.misses(w.detach(), x)
    status = raw.status.clone()
    # A soft limit is missed at its price.
    kept = ((h <= _KEPT) | ((x >= cap) & soft)).all(-1) & settled
    usable = raw.usable
    status[usable & ~kept] = SolveStatus.INACCURATE.code
    if problem.rho is not None:
        # Without limit, as where the optimum holds nothing: it is at the apex of the robust term.
        lost = (x >= cap)[:, problem.rho] & (h[:, problem.rho] > _KEPT)
        status[usable & lost] = SolveStatus.ITERATION_LIMIT.code
    none = torch.zeros_like(d.budget)
    tracking = price = none
    if problem.theta is not None:
        error = setup.distance(w.detach(), setup.bench).detach()
        tracking = x[:, problem.theta] * error / d.tracking_unit
    if problem.price is not None:
        price = x[:, problem.price]
    rows = raw.lam.new_zeros(len(w), len(setup.words))
    rows[:, setup.rows] = raw.lam
    lower, upper = setup.bound_duals(raw)
    return Point(
        w=w,
        status=status,
        kkt_norm=raw.kkt_norm,
        iterations=raw.iterations,
        rows=rows,
        turnover=2 * price,
        tracking=tracking,
        lower=lower,
        upper=upper,
        budget=setup.budget_dual(raw),
    )


def _sizes(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Largest multipliers, their sizes, where they start (T, K), and which are soft (K,)."""
    setup, d = problem.setup, problem.setup.draft
    mask = setup.mask
    even = mask * (1.0 / mask.sum(-1, keepdim=True).clamp_min(1))
    risk = setup.times(even).abs().amax(-1)
    spread = torch.where(mask, setup.q, -torch.inf).amax(-1)
    spread = spread - torch.where(mask, setup.q, torch.inf).amin(-1)
    gamma = problem.gamma + problem.penalty
    size = spread + gamma * risk
    if d.buy is not None and d.sell is not None:
        size = size + (d.buy + d.sell).amax(-1)
    size = torch.where(size.isfinite() & (size > 0), size, 1.0)
    found: list[tuple[Tensor, Tensor, Tensor, bool]] = []
    if problem.kappa is not None:
        invested = d.budget.abs().clamp_min(_LEAST_BUDGET).unsqueeze(-1)
        start = problem.kappa / setup.distance(even * invested)
        found.append((_WIDEST * start, start, start, False))
    if d.tracking is not None:
        unit = gamma + size / risk.clamp_min(1e-300)
        unit = torch.where(unit.isfinite(), unit, 1.0)
        soft = TRACKING in setup.soft
        price = setup.penalty * d.tracking_unit / d.tracking
        found.append((price if soft else _WIDEST * unit, unit, 0 * unit, soft))
    if setup.turnover is not None:
        soft = TURNOVER in setup.soft
        price = torch.full_like(size, setup.penalty / 2)
        found.append((price if soft else _WIDEST * size, size, 0 * size, soft))
    if not found:
        none = size.new_zeros(len(size), 0)
        return none, none, none, torch.zeros(0, dtype=torch.bool, device=size.device)
    cap, unit, start = (torch.stack(parts, -1) for parts in list(zip(*found, strict=True))[:3])
    return cap, unit, start, torch.tensor([soft for *_, soft in found], device=size.device)
