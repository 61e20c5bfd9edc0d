"""The multipliers of a mandate's cones and of its limit of trading, found by Newton's method.

A tracking-error limit has one multiplier θ, a limit of turnover or leverage one price λ; at given
(θ, λ) the rest is a factor QP. They maximise the concave dual function, whose gradient is
(½(‖Σ^½(w−w_b)‖² − t²), ‖w−r‖₁ − limit) at that QP's optimum w, and whose Hessian comes of the QP's
sensitivities, one backward QP for each multiplier. The robust term κ‖Σ^½w‖ is a risk aversion
ρ = κ/‖Σ^½w‖ more, a scalar equation around them.

Where the equations F(x; w(x)) = 0 of the multipliers x hold, the implicit function theorem gives
dx = −J⁻¹ dF: the gradient in every parameter is that of w(x) with one linear step of x added, a
step that also takes the limits below rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..solvers.structured import INACCURATE, INFEASIBLE, SOLVED, FactorSolution
from .draft_qp import Setup

_ROUNDS = 60
# Relative violation at which Newton's method ends, and what is kept after the linear step.
_NEAR, _KEPT = 1e-9, 1e-9
# Smallest unit in which a norm is judged.
_LEAST_NORM = 1e-3
# By how much a row may be missed that takes no part.
_MISSED = 1e-11
# A step is shortened if the dual function falls at its end by more than this part of its rise.
_FALL = 0.5
# How far, in units of the problem, a multiplier goes before its limit counts as out of reach.
_WIDEST = 1e6


@dataclass
class Trial:
    """T days at multipliers x (T, D): the dual function's gradient ``g`` and scaled violations
    ``h`` (T, D), the Jacobian ``J`` (T, D, D) of h, and sensitivities ``moves`` = dw/dx (T, K, n).
    """

    raw: FactorSolution
    g: Tensor
    h: Tensor
    J: Tensor
    moves: Tensor

    def days(self, index: Tensor) -> Trial:
        """The trial of some days."""
        values = (self.g[index], self.h[index], self.J[index], self.moves[index])
        return Trial(self.raw.days(index), *values)

    def put(self, days: Tensor, other: Trial) -> None:
        """Replace some days."""
        for f in fields(self.raw):
            getattr(self.raw, f.name)[days] = getattr(other.raw, f.name)
        for name in ("g", "h", "J", "moves"):
            getattr(self, name)[days] = getattr(other, name)


@dataclass
class Problem:
    """A setup at risk aversion γ (T,) and tracking penalty (T,): what the multipliers act on.

    With κ (T,) the last sensitivity is that to the risk aversion.
    """

    setup: Setup
    gamma: Tensor
    penalty: Tensor
    kappa: Tensor | None = None

    def __post_init__(self) -> None:
        self.tracked = self.setup.draft.tracking is not None
        self.normed = self.setup.norm_limit is not None
        self.size = int(self.tracked) + int(self.normed)

    def days(self, index: Tensor) -> Problem:
        """Some of the days, without gradients."""
        kappa = None if self.kappa is None else self.kappa.detach()[index]
        gamma, penalty = self.gamma.detach()[index], self.penalty.detach()[index]
        return Problem(self.setup.days(index), gamma, penalty, kappa)

    def at(
        self, x: Tensor, warm: FactorSolution | None, *, sensitive: bool = False
    ) -> tuple[FactorSolution, Tensor]:
        """The QP at multipliers ``x`` (T, D), and its linear term."""
        theta = self.penalty + x[:, 0] if self.tracked else self.penalty
        # Without a price the first solve takes a shorter way.
        priced = self.normed and (warm is not None or bool(x[:, -1].any()))
        price = x[:, -1] if priced else None
        return self.setup.solve(self.gamma, theta, price, warm, sensitive=sensitive)

    def excess(self, w: Tensor) -> Tensor:
        """How far w (T, n) exceeds each limit (T, D), differentiable in all of them."""
        setup, out = self.setup, w.new_zeros(len(w), 0)
        if setup.draft.tracking is not None:
            gap = setup.distance(w, setup.bench) - setup.draft.tracking
            out = torch.cat([out, gap.unsqueeze(-1)], -1)
        if setup.norm_limit is not None:
            out = torch.cat([out, (setup.norm(w) - setup.norm_limit).unsqueeze(-1)], -1)
        return out

    def pulls(self, w: Tensor) -> Tensor:
        """What a unit of each multiplier adds to the gradient of the objective (T, K, n)."""
        setup, out = self.setup, [w.new_zeros(len(w), 0, w.shape[1])]
        if self.tracked:
            out.append((setup.times(w - setup.bench) * setup.mask).unsqueeze(1))
        if self.normed:
            out.append(torch.where(setup.mask, w - setup.centre, 0.0).sign().unsqueeze(1))
        if self.kappa is not None:
            out.append((setup.times(w) * setup.mask).unsqueeze(1))
        return torch.cat(out, 1)

    def trial(self, x: Tensor, warm: FactorSolution | None) -> Trial:
        """Solve without gradients in the parameters, and differentiate in x."""
        with torch.enable_grad():
            raw, q = self.at(x, warm, sensitive=True)
            w = torch.where(self.setup.mask, raw.w[:, : q.shape[1]], 0.0)
        pulls = self.pulls(w.detach())
        moves = [torch.autograd.grad(w, q, v, retain_graph=True)[0] for v in pulls.unbind(1)]
        moves = torch.stack(moves, 1) if moves else pulls
        excess = self.excess(w.detach())
        own = pulls[:, : self.size]
        J, g, h = own @ moves[:, : self.size].mT, excess.clone(), excess.clone()
        if self.setup.draft.tracking is not None:
            limit = self.setup.draft.tracking
            found = excess[:, 0] + limit
            g[:, 0] = 0.5 * excess[:, 0] * (found + limit)
            # 1/distance is nearly linear in θ, as in trust-region methods.
            h[:, 0] = excess[:, 0] / found
            J[:, 0] *= (limit / found**3).unsqueeze(-1)
        if self.setup.norm_limit is not None:
            unit = self.setup.norm_limit.clamp_min(_LEAST_NORM)
            h[:, -1] /= unit
            J[:, -1] /= unit.unsqueeze(-1)
        return Trial(replace(raw, w=raw.w.detach()), g, h, J, moves)


def _linear(J: Tensor, h: Tensor, open_: Tensor, step: Tensor) -> Tensor:
    """``step`` (T, D) with the ``open_`` entries such that h + J step = 0 in their rows."""
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    fixed = torch.where(open_, 0.0, step)
    rhs = -h - (J @ fixed.unsqueeze(-1)).squeeze(-1)
    J = torch.where(open_.unsqueeze(-1) & open_.unsqueeze(-2), J, eye)
    solved, _ = torch.linalg.solve_ex(J, torch.where(open_, rhs, 0.0).unsqueeze(-1))
    return torch.where(open_, solved.squeeze(-1), fixed)


def _newton_step(x: Tensor, trial: Trial, held: Tensor, cap: Tensor, unit: Tensor) -> Tensor:
    """A step of x (T, D) within [0, cap] along which the dual function rises."""
    low, high = -x, torch.minimum(cap - x, 9 * x + unit)

    def within(step: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(step, low), high)

    own = trial.J.diagonal(dim1=-2, dim2=-1)
    # Where w does not move with a multiplier, that has far to go.
    flat = ~(own < 0) & ~held
    far = torch.where(trial.g > 0, torch.minimum(high, 2 * x + 0.1 * unit), -0.5 * x)
    alone = torch.where(held, 0.0, within(torch.where(flat, far, -trial.h / own)))
    open_ = ~held & ~flat
    step = _linear(trial.J, trial.h, open_, torch.where(flat, alone, 0.0))
    cut = open_ & (within(step) != step)
    step = _linear(trial.J, trial.h, open_ & ~cut, torch.where(cut, within(step), step))
    step = within(step)
    rises = step.isfinite().all(-1) & ((trial.g * step).sum(-1) > 0)
    return torch.where(rises.unsqueeze(-1), step, alone)


def _newton(
    problem: Problem,
    cap: Tensor,
    unit: Tensor,
    x: Tensor,
    warm: FactorSolution | None,
) -> tuple[Tensor, Trial, Tensor]:
    """Multipliers (T, D) in [0, cap] from ``x`` on, what is found there, and days (T,) settled.

    Newton's method on the dual function, all days at once; a step that goes far beyond the
    function's maximum along it is shortened by secants.
    """
    x = x.clone()
    best = problem.trial(x, warm)
    step, rise = torch.zeros_like(x), x.new_zeros(len(x))
    length, fresh = x.new_ones(len(x)), torch.ones(len(x), dtype=torch.bool, device=x.device)
    failed = (best.raw.status > INACCURATE) | ~best.h.isfinite().all(-1)
    settled = failed
    part, last = problem, None
    for _ in range(_ROUNDS):
        held = ((x <= 0) & (best.g <= 0)) | ((x >= cap) & (best.g >= 0))
        settled = settled | (fresh & ((best.h.abs() <= _NEAR) | held).all(-1))
        new = _newton_step(x, best, held, cap, unit)
        step = torch.where(fresh.unsqueeze(-1), new, step)
        rise = torch.where(fresh, (best.g * step).sum(-1), rise)
        days = torch.nonzero(~settled & (rise > 0)).squeeze(-1)
        if not len(days):
            break
        if last is None or len(last) != len(days):
            part, last = problem.days(days), days
        at = x[days] + length[days].unsqueeze(-1) * step[days]
        trial = part.trial(at, best.raw.days(days))
        slope = (trial.g * step[days]).sum(-1)
        over = ~(slope >= -_FALL * rise[days])
        shorter = (rise[days] / (rise[days] - slope)).nan_to_num(0.1).clamp(0.1, 0.8)
        length[days] = torch.where(over, length[days] * shorter, 1.0)
        fresh[days] = ~over
        took = torch.nonzero(~over).squeeze(-1)
        x[days[took]] = at[took]
        best.put(days[took], trial.days(took))
    return x, best, settled & ~failed


def find(
    problem: Problem,
    cap: Tensor,
    unit: Tensor,
    x: Tensor,
    warm: FactorSolution | None,
) -> tuple[Tensor, Trial, Tensor]:
    """As :func:`_newton`, with rows of the setup that are missed joining those that take part."""
    setup, rows = problem.setup, problem.setup.rows
    x, best, settled = _newton(problem, cap, unit, x, warm)
    while len(rows) < len(setup.words):
        n = setup.q.shape[1]
        missed = setup.missed(best.raw.w[:, :n]) > _MISSED
        missed[:, rows] = False
        days = torch.nonzero(missed.any(-1)).squeeze(-1)
        if not len(days):
            break
        more = torch.nonzero(missed.any(0)).squeeze(-1).tolist()
        rows.extend(more)
        lam = best.raw.lam
        best.raw = replace(best.raw, lam=torch.cat([lam, lam.new_zeros(len(lam), len(more))], -1))
        part = problem.days(days)
        at = cap[days], unit[days], x[days], best.raw.days(days)
        x[days], trial, settled[days] = _newton(part, *at)
        best.put(days, trial)
    return x, best, settled


@dataclass
class Point:
    """Weights (T, n) of a batch with status (T,), and duals by kind in units of return.

    ``far`` (T,) marks days whose limits of tracking error and of trading are out of reach: their
    duals are those of the attempt, and name what stands against the limits.
    """

    w: Tensor
    status: Tensor
    far: Tensor
    kkt_norm: Tensor
    iterations: Tensor
    rows: Tensor
    turnover: Tensor
    leverage: Tensor
    tracking: Tensor
    lower: Tensor
    upper: Tensor
    budget: Tensor


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
        cap, unit, soft = _caps(fixed)
        rho = None
        if kappa is None:
            x, best, settled = find(fixed, cap, unit, torch.zeros_like(cap), None)
        else:
            rho, x, best, settled = _robust(fixed, cap, unit)
    n = setup.q.shape[1]
    raw, w = best.raw, best.raw.w[:, :n]
    held = (x <= 0) | ((x >= cap) & (best.g >= 0))
    if rho is not None:
        problem = replace(problem, gamma=gamma + rho)
    if torch.is_grad_enabled():
        w = problem.at(x, raw)[0].w[:, :n]
    w, excess = _corrected(problem, x, rho, best, held, w)
    status = raw.status.clone()
    out = (x >= cap) & (best.g > 0) & ~soft
    usable = status <= INACCURATE
    far = usable & out.any(-1)
    status[far] = INFEASIBLE
    kept = ((excess <= _KEPT) | (x >= cap)).all(-1) & settled
    status[usable & ~far & ~kept] = INACCURATE
    none = torch.zeros_like(d.budget)
    theta, price = none, none
    if problem.tracked:
        theta = x[:, 0] * setup.distance(w.detach(), setup.bench).detach() / d.tracking_unit
    if problem.normed:
        price = x[:, -1]
    rows = raw.lam.new_zeros(len(w), len(setup.words))
    rows[:, setup.rows] = raw.lam
    slack = any(setup.is_soft(setup.words[row]) for row in setup.rows)
    return Point(
        w=w,
        status=status,
        far=far,
        kkt_norm=raw.kkt_norm,
        iterations=raw.iterations,
        rows=rows,
        turnover=none if setup.by_leverage else 2 * price,
        leverage=price if setup.by_leverage else none,
        tracking=theta,
        lower=raw.lam_lb[:, :n],
        upper=raw.lam_ub[:, :n],
        budget=raw.nu_rows[:, 0] if slack else raw.nu,
    )


def _caps(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Largest multipliers (T, D), their sizes, and which limits are soft (D,)."""
    setup, d = problem.setup, problem.setup.draft
    mask = setup.mask
    even = mask * (1.0 / mask.sum(-1, keepdim=True).clamp_min(1))
    risk = setup.times(even).abs().amax(-1)
    spread = torch.where(mask, setup.q, -torch.inf).amax(-1)
    spread = spread - torch.where(mask, setup.q, torch.inf).amin(-1)
    size = spread + (problem.gamma + problem.penalty) * risk
    if d.buy is not None and d.sell is not None:
        size = size + (d.buy + d.sell).amax(-1)
    size = torch.where(size.isfinite() & (size > 0), size, 1.0)
    units, caps, soft = [], [], []
    if d.tracking is not None:
        unit = problem.gamma + problem.penalty + size / risk.clamp_min(1e-300)
        units.append(torch.where(unit.isfinite(), unit, 1.0))
        soft.append(setup.is_soft(d.tracking_words))
        price = setup.penalty * d.tracking_unit / d.tracking
        caps.append(price if soft[-1] else _WIDEST * units[-1])
    if setup.norm_limit is not None:
        units.append(size)
        soft.append(setup.is_soft(setup.norm_words))
        price = torch.full_like(size, setup.penalty / (1 if setup.by_leverage else 2))
        caps.append(price if soft[-1] else _WIDEST * size)
    if not units:
        none = size.new_zeros(len(size), 0)
        return none, none, torch.zeros(0, dtype=torch.bool, device=size.device)
    return torch.stack(caps, -1), torch.stack(units, -1), torch.tensor(soft, device=size.device)


def _corrected(
    problem: Problem, x: Tensor, rho: Tensor | None, best: Trial, held: Tensor, w: Tensor
) -> tuple[Tensor, Tensor]:
    """w (T, n) after one linear step of the multipliers that are not ``held``, and the excess."""
    setup = problem.setup
    with torch.no_grad():
        fixed = problem.days(torch.arange(len(x), device=x.device))
        at = torch.where(setup.mask, w.detach(), 0.0)
        normals, moves = fixed.pulls(at), best.moves
        if problem.tracked:
            own = fixed.setup.distance(at, fixed.setup.bench)
            normals[:, 0] /= own.unsqueeze(-1)
        if problem.kappa is not None:
            own = fixed.setup.distance(at)
            normals[:, -1] *= (-fixed.kappa / own**3).unsqueeze(-1)
        J = normals @ moves.mT
        open_ = ~held
        if problem.kappa is not None:
            J[:, -1, -1] -= 1.0
            open_ = torch.cat([open_, torch.ones_like(open_[:, :1])], -1)
        own = J.diagonal(dim1=-2, dim2=-1)
        open_ = open_ & (own < 0) & w.detach().isfinite().all(-1, keepdim=True)
    # Days without a solution give no gradient.
    there = torch.where(w.isfinite(), w, 0.0)
    F = problem.excess(there)
    if problem.kappa is not None and rho is not None:
        F = torch.cat([F, (problem.kappa / setup.distance(there) - rho).unsqueeze(-1)], -1)
    if F.shape[-1]:
        step = _linear(J, torch.where(open_, F, 0.0), open_, torch.zeros_like(F))
        w = w + (moves * step.unsqueeze(-1)).sum(1)
        d = setup.draft
        low, high = d.lower.detach(), d.upper.detach()
        inside = torch.minimum(torch.maximum(w.detach(), low), high)
        w = w + (inside - w.detach())
    return w, problem.excess(w.detach()).detach()


def _robust(
    problem: Problem, cap: Tensor, unit: Tensor
) -> tuple[Tensor, Tensor, Trial, Tensor]:
    """ρ (T,) with ρ‖Σ^½w‖ = κ, which rises with ρ: Newton's method within a bracket."""
    setup, kappa = problem.setup, problem.kappa
    assert kappa is not None
    n = setup.q.shape[1]
    even = setup.mask * (setup.draft.budget / setup.mask.sum(-1).clamp_min(1)).unsqueeze(-1)
    rho = kappa / setup.distance(even)
    low, high = torch.zeros_like(rho), torch.full_like(rho, torch.inf)
    x, warm = torch.zeros_like(cap), None
    for _ in range(_ROUNDS):
        part = replace(problem, gamma=problem.gamma + rho)
        x, best, settled = find(part, cap, unit, x, warm)
        warm = best.raw
        w = torch.where(setup.mask, best.raw.w[:, :n], 0.0)
        risk = setup.distance(w)
        gap = kappa / risk - rho
        # The other multipliers answer to ρ.
        normals = part.pulls(w)
        J = normals @ best.moves.mT
        open_ = ~((x <= 0) | (x >= cap)) & (J.diagonal(dim1=-2, dim2=-1)[:, :-1] < 0)
        answer = _linear(J[:, :-1, :-1], J[:, :-1, -1], open_, torch.zeros_like(x))
        change = J[:, -1, -1] + (J[:, -1, :-1] * answer).sum(-1)
        slope = -kappa / risk**3 * change - 1.0
        done = ~(gap.abs() > _NEAR * rho) | ~settled
        if bool(done.all()):
            break
        low, high = torch.where(gap > 0, rho, low), torch.where(gap > 0, high, rho)
        new = rho - gap / slope
        middle = torch.where(high.isinf(), 4 * rho, 0.5 * (low + high))
        good = new.isfinite() & (slope < 0) & (new > low) & (new < high)
        rho = torch.where(done, rho, torch.where(good, new, middle))
    return rho, x, best, settled & done
