"""Semismooth Newton on the dual of a batch, with an exact line search: ends at the exact point.

For duals θ = (x, y) of x = Bᵀw and E w = e, the minimiser over w is a closed form w(θ), name by
name, and the dual function is concave, differentiable and piecewise quadratic, with gradient
(Bᵀw − x, E w − e) and generalised Hessian −(diag(I, 0) + Cᵀ diag(free/δ) C), C the columns (B, Eᵀ).
Only free names enter it. Names with δ = d + ρ, where ρ > 0 is needed because d is zero or small,
are drawn to a centre that moves to the last w: the proximal point method, exact in the limit, and
cut short by solving directly on the active set as soon as that is the right one.

Sources: L. Qi and J. Sun, A nonsmooth version of Newton's method, Math. Programming 58 (1993);
R. T. Rockafellar, Monotone operators and the proximal point algorithm, SIAM J. Control Optim. 14
(1976).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..common.line_search import Bracket
from .active_set import cholesky, gathered, pick, polish_rough, solve
from .problem import Points
from .residuals import kkt_norm, proves_infeasible
from .standard_form import Box, StandardForm, times

_SMALL = 1e-13
_ENOUGH = 0.5
_LINE_STEPS = 60
_WIDE_STEP = 1e3


@dataclass
class _Ray:
    """The dual function along θ + t·step: its derivative, curvature and kinks in t.

    At t, w is the minimiser of ½ δ w² + (linear + t·slope) w + c|w − w⁰| over the bounds, and the
    derivative slopeᵀw + constant − t·curvature.
    """

    box: Box
    linear: Tensor
    slope: Tensor
    delta: Tensor
    constant: Tensor
    curvature: Tensor

    def take(self, days: Tensor) -> _Ray:
        """Some of the days."""
        tensors = (self.linear, self.slope, self.delta, self.constant, self.curvature)
        return _Ray(self.box.take(days), *(t[days] for t in tensors))

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """w (T, N) and the derivative (T,) at step length ``t`` (T,)."""
        w = self.box.prox(torch.addcmul(self.linear, t.unsqueeze(-1), self.slope), self.delta)
        return w, (w * self.slope).sum(-1) + self.constant - t * self.curvature

    def second(self, w: Tensor) -> Tensor:
        """Minus the second derivative (T,) where the weights are ``w``."""
        moving = self.box.free(w) * self.slope.square() / self.delta
        return moving.sum(-1) + self.curvature

    def kinks(self) -> Tensor:
        """Step lengths at which a name meets or leaves a bound or its reference, (T, 2N or 4N)."""
        box = self.box
        at = [(box.lower, box.slopes(box.lower)[1]), (box.upper, box.slopes(box.upper)[0])]
        if box.cost is not None and box.reference is not None:
            at += [(box.reference, box.cost), (box.reference, -box.cost)]
        return torch.cat([(-self.linear - self.delta * w - c) / self.slope for w, c in at], -1)


def _median_kink(ray: _Ray, t: Tensor, bracket: Bracket) -> Tensor:
    """A step length inside the bracket with half of its kinks on either side."""
    kinks = ray.kinks()
    inside = (kinks > bracket.low.unsqueeze(-1)) & (kinks < bracket.high.unsqueeze(-1))
    middle = kinks.masked_fill(~inside, torch.nan).nanmedian(-1).values
    halved = torch.where(bracket.high.isinf(), 8 * t, bracket.middle())
    return torch.where(middle.isnan(), halved, middle)


def _line_search(ray: _Ray, rise: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
    """Step lengths (T,) near the maximum along a ray, and w there.

    The full step is tried first, then Newton steps on the derivative, which is monotone and
    piecewise linear, in turn with bisection by kinks, whatever the scale of the problem.
    """
    # Step 1: the full step, which most days take.
    t = torch.ones_like(rise)
    w, derivative = ray.at(t)
    open_ = torch.nonzero(open_ & (derivative.abs() > _ENOUGH * rise)).squeeze(-1)
    if not len(open_):
        return t, w
    part, goal, bracket = ray.take(open_), _ENOUGH * rise[open_], Bracket.of(rise[open_])
    s, ws, derivative = t[open_], w[open_], derivative[open_]
    for step in range(_LINE_STEPS):
        # Step 2: Newton's step where it stays inside the bracket, else, and every third time, the
        # median kink.
        bracket.narrow(s, derivative)
        new, inside = bracket.newton(s, derivative, part.second(ws).clamp_min(1e-300))
        outside = ~inside if step % 3 != 2 else torch.ones_like(inside)
        lost = torch.nonzero(outside).squeeze(-1)
        if len(lost):
            new[lost] = _median_kink(part.take(lost), s[lost], bracket.take(lost))
        s = new
        ws, derivative = part.at(s)
        # Step 3: days whose derivative has fallen enough, or whose bracket has closed, are done.
        width = bracket.high - bracket.low
        closed = (derivative.abs() <= goal) | (width <= 1e-14 * bracket.high.clamp_max(1e290))
        closed |= s > 1e60
        if bool(closed.any()):
            t[open_[closed]], w[open_[closed]] = s[closed], ws[closed]
            rest = torch.nonzero(~closed).squeeze(-1)
            if not len(rest):
                return t, w
            part, bracket = part.take(rest), bracket.take(rest)
            goal, open_ = goal[rest], open_[rest]
            s, ws, derivative = s[rest], ws[rest], derivative[rest]
    t[open_], w[open_] = s, ws
    return t, w


def dual_newton(
    form: StandardForm,
    points: Points,
    days: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    rho: Tensor | None = None,
) -> Tensor:
    """Advance ``days`` of ``points`` until they are solved, or proved infeasible, or steps run out.

    Parameters
    ----------
    form : the data of all T days. Starts at ``points.theta``, and with ``rho`` (T, N) ≥ 0 at the
        centre ``points.w``. d + rho must be positive.

    Returns
    -------
    The days that are left.
    """
    k = form.factors
    x, y = slice(None, k), slice(k, None)
    live = _Live.of(form, points, days, rho)
    for iteration in range(max_iterations + 1):
        # Step 1: where the dual's gradient is zero, look whether the day is solved.
        ended = torch.nonzero(live.small() & live.open).squeeze(-1)
        _finalize(live, points, ended, tolerance, iteration)
        if iteration == max_iterations or not bool(live.open.any()):
            break
        live.compact()
        live.recentre()
        # Step 2: Newton's step, by the normal matrix of the free names.
        b = live.form
        place, counts = gathered(live.free)
        root = (pick(live.inverse, place) * counts).sqrt()
        scaled = pick(b.columns, place) * root.unsqueeze(-1)
        step = solve(cholesky(scaled.mT @ scaled, k), live.residual)
        # Step 3: its length.
        ray = _Ray(
            b.box,
            live.linear,
            times(b.columns, step),
            live.delta,
            -(live.theta[:, x] * step[:, x]).sum(-1) - (b.target * step[:, y]).sum(-1),
            step[:, x].square().sum(-1),
        )
        t, w = _line_search(ray, (live.residual * step).sum(-1), live.open)
        length = t.unsqueeze(-1)
        live.theta = live.theta + length * step
        live.linear = live.linear + length * ray.slope
        live.move(w)
        # Step 4: duals that run away may prove that no weights meet the rows.
        if iteration % 3 == 2:
            wide = (step[:, y].abs().amax(-1) * t > _WIDE_STEP) if k < step.shape[-1] else t < 0
            _give_up(live, points, step[:, y], torch.nonzero(wide & live.open).squeeze(-1))
    # Days that are left keep where they stand.
    late = torch.nonzero(live.open).squeeze(-1)
    days = live.days[late]
    points.iterations[days] += max_iterations
    norm = kkt_norm(live.form, live.w, live.theta[:, y])
    points.put(days, live.w[late], live.theta[late], norm[late])
    return days


@dataclass
class _Live:
    """The days at work. Those that are done stay, unchanged, until copying pays."""

    form: StandardForm
    days: Tensor
    open: Tensor
    theta: Tensor
    linear: Tensor
    delta: Tensor
    w: Tensor
    residual: Tensor
    free: Tensor
    inverse: Tensor
    pull: Tensor | None
    centre: Tensor | None

    @classmethod
    def of(cls, form: StandardForm, points: Points, days: Tensor, rho: Tensor | None) -> _Live:
        # Sorted, so that all the days are the batch as it stands.
        days = days.sort().values
        whole = len(days) == len(points.w)
        b, theta = form if whole else form.take(days), points.theta[days]
        delta, linear = b.d, b.q + times(b.columns, theta)
        pull = centre = None
        if rho is not None:
            pull, centre = rho[days], points.w[days]
            delta, linear = delta + pull, linear - pull * centre
        # A name outside the problem has d = 0, and stays at zero whatever its δ.
        delta = delta.masked_fill(delta == 0, 1.0)
        open_ = torch.ones(len(days), dtype=torch.bool, device=days.device)
        nothing = linear
        live = cls(
            b, days, open_, theta, linear, delta, nothing, nothing, open_, nothing, pull, centre
        )
        live.move(b.box.prox(linear, delta))
        return live

    def move(self, w: Tensor) -> None:
        """Go to weights ``w``."""
        self.w, self.free = w, self.form.box.free(w)
        self.residual = self.form.residual(w, self.theta)
        self.inverse = self.free / self.delta

    def small(self) -> Tensor:
        """Whether the dual's gradient is zero, up to rounding (T,)."""
        return self.residual.abs().amax(-1) <= _SMALL + 1e-15 * self.inverse.sum(-1)

    def compact(self) -> None:
        """Drop the days that are done, once they are a third."""
        if int(self.open.sum()) > 0.67 * len(self.open):
            return
        keep = torch.nonzero(self.open).squeeze(-1)
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                setattr(self, f.name, value.take(keep) if f.name == "form" else value[keep])

    def recentre(self) -> None:
        """Where the residual is small but the day is not solved, w becomes the centre."""
        if self.pull is None or self.centre is None:
            return
        small = self.small()
        if bool(small.any()):
            moved = (self.w - self.centre) * small.unsqueeze(-1)
            self.centre, self.linear = self.centre + moved, self.linear - self.pull * moved
            self.move(self.form.box.prox(self.linear, self.delta))


def _finalize(live: _Live, points: Points, some: Tensor, tolerance: float, iteration: int) -> None:
    """Close those of ``some`` that are solved, if need be directly on their active set."""
    if not len(some):
        return
    part = live.form if len(some) == len(live.days) else live.form.take(some)
    w, theta = live.w[some], live.theta[some]
    norm = kkt_norm(part, w, theta[:, part.factors :])
    polish_rough(part, w, theta, norm)
    solved = norm <= tolerance
    days = live.days[some[solved]]
    points.put(days, w[solved], theta[solved], norm[solved])
    points.iterations[days] += iteration
    live.open[some[solved]] = False


def _give_up(live: _Live, points: Points, y: Tensor, some: Tensor) -> None:
    """Close those of ``some`` whose step ``y`` in the rows' duals proves them infeasible."""
    if not len(some):
        return
    proof = some[proves_infeasible(live.form.take(some), y[some])]
    days = live.days[proof]
    points.infeasible[days] = True
    points.theta[days, live.form.factors :] = y[proof]
    live.open[proof] = False
