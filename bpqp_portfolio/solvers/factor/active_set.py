"""Linear algebra on the free names of a batch: the normal matrix, polishing, the backward QP.

With the free names F and the binding rows fixed, the optimum solves the KKT equations

    [diag(d)   C      ] [w]     [−q]
    [Cᵀ   −diag(I, 0) ] [θ]  =  [ e]

over F, C the columns (B, Eᵀ) there. Eliminating w leaves the normal matrix diag(I, 0) + Cᵀ
diag(1/d) C of size k + r, whatever the number of names. The backward QP (arXiv:2411.19285, Theorem
1) has the same matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .residuals import kkt_norm
from .standard_form import StandardForm, times, transposed

# Least curvature of a free name, and least entry for a row's dual, in the batch's units. What
# they add to the system is taken out again by refinement.
LEAST_CURVATURE = 1e-9
LEAST_ROW = 1e-11
_REFINEMENTS = 12
# A point this good needs no polishing and no other active set.
_EXACT = 1e-13


def gathered(free: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (T, F) of each day's free names, padded with 0, and which of them count."""
    count = free.sum(-1)
    width = int(count.max()) if len(count) else 0
    day, name = free.nonzero(as_tuple=True)
    first = count.cumsum(0) - count
    entry = torch.arange(len(day), device=free.device) - first[day]
    place = torch.zeros(len(free), width, dtype=torch.int64, device=free.device)
    place[day, entry] = name
    return place, torch.arange(width, device=free.device) < count.unsqueeze(-1)


def pick(values: Tensor, place: Tensor) -> Tensor:
    """Entries (T, F, ...) of ``values`` (T, N, ...)."""
    return values[torch.arange(len(place), device=place.device).unsqueeze(-1), place]


def cholesky(normal: Tensor, factors: int) -> Tensor:
    """Cholesky factor of diag(I, 0) + ``normal`` (T, K, K), with a little on the rows' diagonal."""
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    diagonal[:, :factors] += 1.0
    if normal.shape[-1] > factors:
        rows = diagonal[:, factors:]
        rows += LEAST_ROW * rows.clamp_min(1.0)
    factor, failed = torch.linalg.cholesky_ex(normal)
    more = 1e-13
    while bool(failed.any()):
        more *= 100
        lift = torch.where(failed > 0, more * diagonal.amax(-1), torch.zeros_like(diagonal[:, 0]))
        diagonal += lift.unsqueeze(-1)
        factor, failed = torch.linalg.cholesky_ex(normal)
    return factor


def solve(factor: Tensor, rhs: Tensor) -> Tensor:
    """Solutions (T, k) of systems whose Cholesky ``factor`` (T, k, k) is known."""
    return torch.cholesky_solve(rhs.unsqueeze(-1), factor).squeeze(-1)


@dataclass(frozen=True)
class Binding:
    """The rows of a batch whose duals are free: places ``rows`` (T, R), and which ``count``.

    A slack row always has dual zero. Columns before ``at`` are always in.
    """

    rows: Tensor
    count: Tensor
    at: int

    @classmethod
    def of(cls, on: Tensor, at: int) -> Binding:
        """From a mask (T, m) of the last m columns."""
        width = int(on.sum(-1).amax()) if on.numel() else 0
        count, rows = on.to(torch.float64).topk(width)
        return cls(rows, count, at)

    def columns(self, columns: Tensor) -> Tensor:
        """(T, F, at + R) of (T, F, K), zero where a place does not count."""
        if not columns.shape[-1] - self.at:
            return columns
        some = self.rows.unsqueeze(1).expand(-1, columns.shape[1], -1)
        some = columns[..., self.at :].gather(-1, some) * self.count.unsqueeze(1)
        return torch.cat([columns[..., : self.at], some], -1)

    def pick(self, theta: Tensor) -> Tensor:
        """(T, at + R) of (T, K)."""
        some = theta[:, self.at :].gather(-1, self.rows) * self.count
        return torch.cat([theta[:, : self.at], some], -1)

    def spread(self, theta: Tensor, like: Tensor) -> Tensor:
        """(T, K) of (T, at + R), zero for other rows."""
        out = torch.zeros_like(like)
        out[:, : self.at] = theta[:, : self.at]
        out[:, self.at :].scatter_(-1, self.rows, theta[:, self.at :] * self.count)
        return out


@dataclass(frozen=True)
class ActiveSystem:
    """[diag(d) C; Cᵀ −diag(I, 0)] over each day's free names, C their ``columns``, factorised.

    Rows with a free slack are left out, and so are slacks. Free names without curvature and
    dependent rows make it singular: it is solved with ``LEAST_CURVATURE`` and ``LEAST_ROW`` added,
    then refined, which tends to the solution of least norm where there are several.
    """

    place: Tensor
    counts: Tensor
    binding: Binding
    columns: Tensor
    d: Tensor
    inverse: Tensor
    factor: Tensor
    factors: int

    @classmethod
    def of(cls, form: StandardForm, free: Tensor) -> ActiveSystem:
        """The system of the days' ``free`` (T, n + m) names and slacks, factorised."""
        n = form.names
        place, counts = gathered(free[:, :n])
        binding = Binding.of(~free[:, n:], form.first_slack_row)
        columns, d = binding.columns(pick(form.columns, place)), pick(form.d, place)
        columns = columns * counts.unsqueeze(-1)
        inverse = counts / d.clamp_min(LEAST_CURVATURE)
        normal = columns.mT @ (columns * inverse.unsqueeze(-1))
        factor = cholesky(normal, form.factors)
        return cls(place, counts, binding, columns, d, inverse, factor, form.factors)

    def solve(self, rw: Tensor, rt: Tensor) -> tuple[Tensor, Tensor]:
        """(Δw (T, F), Δθ (T, K)) with  d Δw + C Δθ = −rw,  CᵀΔw − (Δx, 0) = −rt."""
        full, rt = rt, self.binding.pick(rt)
        dw, dt = torch.zeros_like(rw), torch.zeros_like(rt)
        rw = rw * self.counts
        left_w, left_t = rw, rt
        best = torch.full_like(rt[:, 0], torch.inf) if rt.shape[-1] else None
        for _ in range(_REFINEMENTS):
            step_t = solve(self.factor, left_t - transposed(self.columns, left_w * self.inverse))
            step_w = -(left_w + times(self.columns, step_t)) * self.inverse
            new_w, new_t = dw + step_w, dt + step_t
            next_w = (rw + self.d * new_w + times(self.columns, new_t)) * self.counts
            next_t = rt + transposed(self.columns, new_w)
            next_t[:, : self.factors] -= new_t[:, : self.factors]
            if best is None:
                return new_w, self.binding.spread(new_t, full)
            size = next_t.abs().amax(-1)
            if next_w.shape[-1]:
                size = torch.maximum(size, next_w.abs().amax(-1))
            better = (size < best).unsqueeze(-1)
            dw, dt = torch.where(better, new_w, dw), torch.where(better, new_t, dt)
            left_w = torch.where(better, next_w, left_w)
            left_t = torch.where(better, next_t, left_t)
            slow = size > 0.25 * best
            best = torch.minimum(best, size)
            if bool((slow | (best <= 1e-15)).all()):
                break
        return dw, self.binding.spread(dt, full)


def polish(
    form: StandardForm, w: Tensor, theta: Tensor, rounds: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The optimum for the active set of ``w``, exact if that is the right one: w, θ, KKT norm.

    With more ``rounds`` a name or row that this violates joins the set, one whose multiplier has
    the wrong sign leaves it, and so on: the primal-dual active set method (M. Hintermüller, K. Ito
    and K. Kunisch, 2002). The best point of each day is the answer.
    """
    best: tuple[Tensor, ...] = ()
    for left in reversed(range(rounds)):
        # Step 1: the optimum on the active set, and within the bounds.
        free = form.box.free(w)
        raw, theta = _on_active_set(form, w, theta, free)
        point = torch.minimum(torch.maximum(raw, form.box.lower), form.box.upper)
        exposure = transposed(form.columns[..., : form.factors], point)
        dual = torch.cat([exposure, theta[:, form.factors :]], -1)
        norm = kkt_norm(form, point, dual[:, form.factors :])
        # Step 2: keep each day's best.
        now: tuple[Tensor, ...] = point, dual, norm
        if best:
            better = norm < best[2]
            some = better.unsqueeze(-1), better.unsqueeze(-1), better
            now = tuple(torch.where(*parts) for parts in zip(some, now, best, strict=True))
        best = now
        if not left or bool((best[2] <= _EXACT).all()):
            break
        # Step 3: the next set, until none is new.
        w, last = _next_set(form, raw, theta), w
        if torch.equal(w, last):
            break
    return best[0], best[1], best[2]


def polish_rough(form: StandardForm, w: Tensor, theta: Tensor, norm: Tensor) -> None:
    """Polish, in place, the days whose KKT ``norm`` (T,) can still fall and does."""
    rough = torch.nonzero(norm > _EXACT).squeeze(-1)
    if not len(rough):
        return
    part = form if len(rough) == len(norm) else form.take(rough)
    exact = polish(part, w[rough], theta[rough])
    better = exact[2] < norm[rough]
    place = rough[better]
    w[place], theta[place], norm[place] = (value[better] for value in exact)


def _on_active_set(
    form: StandardForm, w: Tensor, theta: Tensor, free: Tensor
) -> tuple[Tensor, Tensor]:
    """w with its ``free`` names optimal, whatever their bounds, and θ."""
    n, at = form.names, form.first_slack_row
    system = ActiveSystem.of(form, free)
    theta = theta.clone()
    theta[:, at:] *= ~free[:, n:]
    gradient = form.d * w + form.q + times(form.columns, theta) + 0.5 * sum(form.box.slopes(w))
    dw, dt = system.solve(pick(gradient, system.place), form.residual(w, theta))
    w = w.scatter_add(-1, system.place, dw * system.counts)
    if form.slacks:
        slack = form.target[:, -form.slacks :] - transposed(form.columns[:, :n, at:], w[:, :n])
        w[:, n:] = torch.where(free[:, n:], slack, w[:, n:])
    return w, theta + dt


def _next_set(form: StandardForm, w: Tensor, theta: Tensor) -> Tensor:
    """Weights (T, N) on the active set that ``w`` and the signs of the gradient there propose."""
    gradient = form.d * w + form.q + times(form.columns, theta)
    curved = torch.where(form.d > LEAST_CURVATURE, form.d, 1.0)
    return form.box.prox(gradient - curved * w, curved)


def backward(form: StandardForm, free: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the backward QP of a batch, at the cost of about one Newton step.

    min ½ z̃ᵀ(B Bᵀ + diag(d)) z̃ + rᵀz̃  s.t.  E z̃ = 0 and z̃ = 0 outside ``free``; ``r`` is zero
    for slacks.

    Returns
    -------
    z̃ (T, N), zero for slacks; ỹ (T, r) of the rows; and P z̃ + r + Eᵀỹ (T, N), zero at free names:
    at the others the gradient in the bound, or the reference, that holds them.
    """
    system = ActiveSystem.of(form, free)
    zero = form.columns.new_zeros(len(r), form.columns.shape[-1])
    dz, theta = system.solve(pick(r, system.place), zero)
    z = torch.zeros_like(r).scatter_add_(-1, system.place, dz * system.counts)
    slope = (r + times(form.columns, theta)) * ~free
    return z, theta[:, form.factors :], slope
