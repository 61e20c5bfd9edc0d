"""The equations of a program's multipliers: of its robust term, its cones, and its rows of trades.

At given multipliers the rest is a factor QP. The robust term κ‖Σ^½w‖ is a risk aversion ρ more
with ρ‖Σ^½w‖ = κ; a cone form(w)^½ ≤ t is ½θ form(w) with θ its multiplier; a row of trades
aᵀ|w − w⁰| ≤ h is a cost λa of trading. Each limit is a monotone equation h = 0 in its own
multiplier when the others answer to it, since the dual function is concave.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...solvers.factor.problem import FactorSolution
from .parts import Cone, Row, mapped
from .program import MandateProgram, sum_of
from .qp_form import QPForm

# Smallest unit in which a row of trades is judged.
_LEAST_NORM = 1e-3
# The part of the account that tells the size of a portfolio's risk, at least.
_LEAST_BUDGET = 0.1
# How far, in units of the problem, a multiplier goes before the search gives its limit up.
_WIDEST = 1e5


@dataclass(frozen=True)
class Range:
    """Where a multiplier (T,) is looked for: up to ``cap``, in steps of its size ``unit``, from
    ``start``."""

    cap: Tensor
    unit: Tensor
    start: Tensor


@dataclass(frozen=True)
class Multiplier(ABC):
    """One multiplier x (T,) of a program, at weights w (T, n).

    ``positive``: it is never 0. ``soft``: its limit may be missed, at a multiplier that is its cap.
    """

    program: MandateProgram
    positive: ClassVar[bool] = False

    @property
    def soft(self) -> bool:
        """Whether its limit may be missed, at a multiplier that is its cap."""
        return False

    @abstractmethod
    def miss(self, w: Tensor, x: Tensor) -> Tensor:
        """h (T,), relative: above zero where the multiplier must rise."""

    @abstractmethod
    def pull(self, w: Tensor) -> Tensor:
        """What a unit of it adds to the gradient of the objective (T, n)."""

    @abstractmethod
    def rate(self, w: Tensor, x: Tensor) -> Tensor:
        """∂h/∂w as a multiple (T,) of :meth:`pull`."""

    def own_slope(self, w: Tensor, x: Tensor) -> Tensor:
        """∂h/∂x (T,) at fixed w."""
        return torch.zeros_like(x)

    @abstractmethod
    def range(self, size: Tensor, gamma: Tensor, even: Tensor) -> Range:
        """Where to look for it: ``size`` (T,) of the objective's gradient, and weights ``even``."""

    def dual(self, w: Tensor, x: Tensor) -> Tensor:
        """The limit's dual (T,), return for one of its own units."""
        return x


@dataclass(frozen=True)
class RobustMultiplier(Multiplier):
    """ρ of the robust term: h = κ/(ρ‖Σ^½w‖) − 1."""

    positive: ClassVar[bool] = True

    @property
    def kappa(self) -> Tensor:
        """κ (T,)."""
        assert self.program.kappa is not None
        return self.program.kappa

    def miss(self, w: Tensor, x: Tensor) -> Tensor:
        return self.kappa / (self.program.risk.norm(w) * x) - 1.0

    def pull(self, w: Tensor) -> Tensor:
        return self.program.risk.slope(w)

    def rate(self, w: Tensor, x: Tensor) -> Tensor:
        return -self.kappa / (self.program.risk.norm(w) ** 3 * x)

    def own_slope(self, w: Tensor, x: Tensor) -> Tensor:
        return -self.kappa / (self.program.risk.norm(w) * x**2)

    def range(self, size: Tensor, gamma: Tensor, even: Tensor) -> Range:
        invested = self.program.budget.limit.abs().clamp_min(_LEAST_BUDGET).unsqueeze(-1)
        start = self.kappa / self.program.risk.norm(even * invested)
        return Range(_WIDEST * start, start, start)


@dataclass(frozen=True)
class ConeMultiplier(Multiplier):
    """θ of a cone: h = 1 − t/form(w)^½, nearly linear in θ, as in trust-region methods."""

    cone: Cone

    @property
    def soft(self) -> bool:
        return self.cone.term in self.program.soft

    def miss(self, w: Tensor, x: Tensor) -> Tensor:
        return 1.0 - self.cone.limit / self.cone.form.norm(w)

    def pull(self, w: Tensor) -> Tensor:
        return self.cone.form.slope(w)

    def rate(self, w: Tensor, x: Tensor) -> Tensor:
        return self.cone.limit / self.cone.form.norm(w) ** 3

    def range(self, size: Tensor, gamma: Tensor, even: Tensor) -> Range:
        form = self.cone.form
        curvature = replace(form, centre=None, target=None).slope(even).abs().amax(-1)
        unit = size / curvature.clamp_min(1e-300)
        unit = gamma + unit if form.risk else unit
        unit = torch.where(unit.isfinite(), unit, 1.0)
        # The price of the excess of a soft limit t at T is that of (T² − t²)/2t.
        cap = self.program.penalty * self.cone.scale / self.cone.limit
        return Range(cap if self.soft else _WIDEST * unit, unit, 0 * unit)

    def dual(self, w: Tensor, x: Tensor) -> Tensor:
        return x * self.cone.form.norm(w) / self.cone.scale


@dataclass(frozen=True)
class TradeMultiplier(Multiplier):
    """λ of a row of trades: h = (aᵀ|w − w⁰| − limit)/unit."""

    row: Row

    @property
    def soft(self) -> bool:
        return self.row.term in self.program.soft

    @property
    def unit(self) -> Tensor:
        """The limit (T,), at least what a tiny trade makes of the row."""
        least = _LEAST_NORM * self.row.matrix.detach().amax(-1)
        return torch.maximum(self.row.limit, least)

    def miss(self, w: Tensor, x: Tensor) -> Tensor:
        return (self.row.value(w, self.program.previous) - self.row.limit) / self.unit.detach()

    def pull(self, w: Tensor) -> Tensor:
        moved = torch.where(self.program.mask, w - self.program.previous, 0.0)
        return self.row.matrix * moved.sign()

    def rate(self, w: Tensor, x: Tensor) -> Tensor:
        return 1.0 / self.unit

    def range(self, size: Tensor, gamma: Tensor, even: Tensor) -> Range:
        largest = self.row.matrix.amax(-1)
        unit = size / torch.where(largest > 0, largest, 1.0)
        cap = torch.full_like(unit, self.program.penalty)
        return Range(cap if self.soft else _WIDEST * unit, unit, 0 * unit)


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
        for own, new in zip(self.raw.tensors, other.raw.tensors, strict=True):
            own[days] = new
        for name in ("h", "J", "moves"):
            getattr(self, name)[days] = getattr(other, name)


class Equations:
    """The equations of a program's K multipliers x (T, K): that of its robust term, those of its
    cones, those of its rows of trades, in this order; ``rows`` are the rows that take part."""

    def __init__(self, program: MandateProgram, rows: Sequence[int] | None = None) -> None:
        self.program, self.form = program, QPForm(program)
        self.rows = self.form.soft if rows is None else tuple(rows)
        self.multipliers: list[Multiplier] = []
        if program.kappa is not None:
            self.multipliers.append(RobustMultiplier(program))
        first = len(self.multipliers)
        self.multipliers += [ConeMultiplier(program, cone) for cone in program.cones]
        self.multipliers += [TradeMultiplier(program, row) for row in program.trades]
        self.of_cones = slice(first, first + len(program.cones))
        self.of_trades = slice(self.of_cones.stop, len(self.multipliers))

    @property
    def size(self) -> int:
        """K."""
        return len(self.multipliers)

    def days(self, index: Tensor) -> Equations:
        """Those of some days, without gradients."""
        return Equations(self.program.days(index), self.rows)

    def detached(self) -> Equations:
        """Those of all days, without gradients."""
        return Equations(mapped(self.program, Tensor.detach), self.rows)

    def with_rows(self, rows: Sequence[int]) -> Equations:
        """The same with other rows taking part."""
        other = copy.copy(self)
        other.rows = tuple(rows)
        return other

    def at(
        self, x: Tensor, warm: FactorSolution | None, *, sensitive: bool = False
    ) -> tuple[FactorSolution, Tensor]:
        """The QP at multipliers ``x`` (T, K), and its linear term."""
        gamma = self.program.gamma
        if self.program.kappa is not None:
            gamma = gamma + x[:, 0]
        priced = list(zip(self.program.trades, x[:, self.of_trades].unbind(-1), strict=True))
        prices = None
        # Without a price the first solve takes a shorter path.
        if priced and (warm is not None or bool(x[:, self.of_trades].any())):
            prices = sum_of(price.unsqueeze(-1) * row.matrix for row, price in priced)
        thetas = x[:, self.of_cones].unbind(-1)
        return self.form.solve(gamma, thetas, prices, self.rows, warm, sensitive=sensitive)

    def misses(self, w: Tensor, x: Tensor) -> Tensor:
        """h (T, K) at weights ``w`` (T, n)."""
        each = [m.miss(w, x[:, k]) for k, m in enumerate(self.multipliers)]
        return torch.stack(each, -1) if each else w.new_zeros(len(w), 0)

    def trial(self, x: Tensor, warm: FactorSolution | None) -> Trial:
        """Solve without gradients in the parameters, and differentiate in x."""
        with torch.enable_grad():
            raw, q = self.at(x, warm, sensitive=True)
            w = torch.where(self.program.mask, self.form.weights(raw), 0.0)
        at, K = w.detach(), self.size
        pulls, J = at.new_zeros(len(w), K, w.shape[1]), at.new_zeros(len(w), K, K)
        moves = torch.zeros_like(pulls)
        for k, m in enumerate(self.multipliers):
            pulls[:, k] = m.pull(at) * self.program.mask
            moves[:, k] = torch.autograd.grad(w, q, pulls[:, k], retain_graph=True)[0]
        for k, m in enumerate(self.multipliers):
            J[:, k] = m.rate(at, x[:, k]).unsqueeze(-1) * (pulls[:, k : k + 1] @ moves.mT)[:, 0]
            J[:, k, k] += m.own_slope(at, x[:, k])
        return Trial(replace(raw, w=raw.w.detach()), self.misses(at, x), J, moves)

    def ranges(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Largest multipliers, their sizes, where they start (T, K), and which are soft (K,)."""
        p, mask = self.program, self.program.mask
        if not self.multipliers:
            none = p.gamma.new_zeros(len(p.q), 0)
            return none, none, none, torch.zeros(0, dtype=torch.bool, device=none.device)
        even = mask * (1.0 / mask.sum(-1, keepdim=True).clamp_min(1))
        gamma = sum_of([p.gamma, *(cost.weight for cost in p.costs if cost.form.risk)])
        spread = torch.where(mask, p.q, -torch.inf).amax(-1)
        spread = spread - torch.where(mask, p.q, torch.inf).amin(-1)
        size = spread + gamma * p.risk.slope(even).abs().amax(-1)
        if p.rates is not None:
            size = size + (p.rates[0] + p.rates[1]).amax(-1)
        for cost in p.costs:
            if cost.form.loadings is not None and not cost.form.risk:
                size = size + cost.weight * cost.form.size**2
        size = torch.where(size.isfinite() & (size > 0), size, 1.0)
        found = [m.range(size, gamma, even) for m in self.multipliers]
        soft = torch.tensor(
            [m.soft for m in self.multipliers], dtype=torch.bool, device=size.device
        )
        cap, unit, start = (
            torch.stack([getattr(one, f.name) for one in found], -1) for f in fields(Range)
        )
        return cap, unit, start, soft
