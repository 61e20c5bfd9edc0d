"""A draft as cone programs: a second way to a day's optimum, and the least that limits are missed.

Trades, and long and short legs, are variables of their own, so that every limit is a row or a
cone: z = (w, b, s, p, m, t) with w = w⁰ + b − s and w = p − m, and t either the risk ‖Σ^½w‖ of the
robust objective or the violation that is made least.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ...errors import ProblemError
from ...layers.socp import SOCPLayer
from ...problems.qp import QP
from ...problems.socp import SOCP, linear
from ...solvers.common.protocol import SolverOptions
from ...solvers.registry import get_solver
from .multipliers import Point
from .qp_form import Setup

# Parts of a draft that are no rows of it, by name.
LOWER, UPPER, STUCK, BUDGET = "lower", "upper", "stuck", "budget"
TURNOVER, TRACKING = "turnover", "tracking"
_EPS = 1e-10
# Violations below this are worth a second look.
_SMALL = 1e-6


@dataclass(frozen=True)
class Least:
    """The least value of something on one day, its weights (n,), and the duals of the parts."""

    value: float
    duals: dict[str | int, float]


class ConeProgramForm:
    """The draft of ``setup`` in cone programs; rows of the draft that are soft are not so here."""

    def __init__(self, setup: Setup) -> None:
        d = setup.draft
        self.setup = setup
        self.n = n = setup.q.shape[1]
        self.trades = setup.turnover is not None or d.buy is not None
        pairs = ["trades"] * self.trades + ["legs"] * setup.legs
        self.start = {name: n * (1 + 2 * i) for i, name in enumerate(pairs)}
        self.width = n * (1 + 2 * len(pairs)) + 1
        self.layer = SOCPLayer(tolerance=_EPS, on_failure="nan")

    def words(self) -> dict[str | int, str]:
        """Every part in words, in the order in which a conflict is told."""
        s, d = self.setup, self.setup.draft
        out: dict[str | int, str] = {}
        if d.tracking is not None:
            out[TRACKING] = d.tracking_words
        if s.turnover is not None:
            out[TURNOVER] = d.turnover_words
        out |= dict(enumerate(s.words))
        out |= {LOWER: d.lower_words, UPPER: d.upper_words}
        if d.own is not None:
            out[STUCK] = "names that cannot trade"
        return {**out, BUDGET: d.budget_words}

    def optimum(self, gamma: Tensor, kappa: Tensor | None, loose: float = 0.0) -> Point:
        """The optimum of every day at risk aversion γ (T,) and κ (T,), differentiable.

        Limits L are those of the draft, or L + ``loose`` (u + |L|), u their units. Days
        without an optimum have NaN weights.
        """
        s, d, n, N = self.setup, self.setup.draft, self.n, self.width
        T, like = len(s.q), s.q
        theta = torch.zeros_like(gamma) if d.penalty is None else d.penalty
        scale = (gamma + theta).unsqueeze(-1)
        specific = scale * s.specific
        linear = s.q - theta.unsqueeze(-1) * s.times(s.bench)
        if d.impact is not None:
            specific = specific + 2 * d.impact
            linear = linear - 2 * d.impact * s.previous
        zero = torch.zeros_like(like)
        costs = [zero] * ((N - 1) // n - 1)
        if d.buy is not None and d.sell is not None:
            costs[:2] = [d.buy, d.sell]
        price = torch.zeros_like(gamma) if kappa is None else kappa
        q = torch.cat([linear, *costs, price.unsqueeze(-1)], -1)
        pad = torch.nn.functional.pad
        P = (
            pad(s.loadings * scale.sqrt().unsqueeze(-1), (0, 0, 0, N - n)),
            pad(specific, (0, N - n)),
        )
        parts = self.words()
        rows = [part for part in parts if part == TURNOVER or isinstance(part, int)]
        G, h = self._rows(rows)
        h = h + loose * (self._units(rows) + h.abs())
        A, b = self._equalities(budget=True)
        lb, ub = self._bounds(parts, last=torch.inf if kappa is not None else 0.0)
        cones: list[Any] = []
        if d.tracking is not None:
            F, g, c, e = self._tracking()
            cones.append((F, g, c, e + loose * (s.risk_unit + e)))
        if kappa is not None:
            head = like.new_zeros(N)
            head[-1] = 1.0
            cones.append((self._half(), None, head, 0.0))
        found = self.layer.solve(P, q, A, b, G, h, lb, ub, cones=cones)
        none = torch.zeros_like(gamma)
        lam = dict(zip(rows, found.lam.detach().unbind(-1), strict=True)) if rows else {}
        listed = [lam[i] for i in range(len(s.words))]
        tracking = none
        if d.tracking is not None:
            tracking = found.cone_duals[0][:, 0].detach() / d.tracking_unit
        return Point(
            w=found.z[:, :n],
            status=torch.tensor([one.code for one in found.status], device=like.device),
            kkt_norm=found.kkt_norm,
            iterations=found.iterations,
            rows=torch.stack(listed, -1) if listed else like.new_zeros(T, 0),
            turnover=lam.get(TURNOVER, none),
            tracking=tracking,
            lower=found.lam_lb[:, :n].detach(),
            upper=found.lam_ub[:, :n].detach(),
            budget=found.nu[:, 0].detach(),
        )

    def violation(self, parts: Collection[str | int], *, exact: bool) -> Least | None:
        """The least t ≥ 0 of a single day with which limits L and the budget, of ``parts``, are
        kept to within t (u + |L|), u their units, inside the bounds of ``parts``, and their shares
        in it; None where no answer was found. A small t is as good as its solver's 1e-9, or to
        rounding where ``exact``."""
        found = self._least(None, parts, polish=False)
        small = found is None or found.value <= _SMALL
        return self._least(None, parts, polish=True) if small and exact else found

    def least(self, goal: str | int, parts: Collection[str | int]) -> float | None:
        """The least value of ``goal`` on a single day that meets ``parts``, in the limit's own
        units; None where they cannot be met. Of a floor it is the largest value."""
        found = self._least(goal, parts, polish=False)
        if found is None:
            return None
        return -found.value if self.is_floor(goal) else found.value

    def is_floor(self, part: str | int) -> bool:
        """Whether a part is a row that is not to be fallen below."""
        return isinstance(part, int) and self.setup.floors[part]

    def unit(self, goal: str | int) -> float:
        """The unit of ``goal`` on a single day, in the limit's own units."""
        s = self.setup
        if goal == TRACKING:
            return s.draft.tracking_unit * float(s.risk_unit)
        return float(s.units[:, goal]) if isinstance(goal, int) else 1.0

    def _least(
        self, goal: str | int | None, parts: Collection[str | int], *, polish: bool
    ) -> Least | None:
        s, d, N, n = self.setup, self.setup.draft, self.width, self.n
        soft = [p for p in parts if p == TURNOVER or isinstance(p, int)]
        if goal is not None and goal != TRACKING:
            soft = [goal, *(p for p in soft if p != goal)]
        G, h = self._rows(soft)
        units = self._units(soft)
        if goal is None:
            if BUDGET in parts:
                row = torch.zeros_like(s.q[:, :1]).repeat(1, N).unsqueeze(1)
                row[..., :n] = 1.0
                total = d.budget.unsqueeze(-1)
                G, h = torch.cat([G, row, -row], 1), torch.cat([h, total, -total], 1)
                units = torch.nn.functional.pad(units, (0, 2), value=1.0)
            units = units + h.abs()
            G[..., -1] = -units
        elif soft and soft[0] == goal:
            G[:, 0, -1], h[:, 0] = -1.0, 0.0
        A, b = self._equalities(budget=goal is not None and BUDGET in parts)
        lb, ub = self._bounds(parts, first=0.0 if goal is None else -torch.inf)
        cones: list[Any] = []
        if d.tracking is not None and (TRACKING in parts or goal == TRACKING):
            F, g, _, e = self._tracking()
            head = e.new_zeros(N)
            if goal is None:
                head[-1] = float(s.risk_unit + e)
            elif goal == TRACKING:
                head[-1], e = 1.0, torch.zeros_like(e)
            cones.append((F, g, head, e))
        q = np.zeros(N)
        q[-1] = 1.0
        try:
            qp = QP(linear(N), q, _csr(A), _of(b), _of(G), _of(h), _of(lb), _of(ub))
        except ProblemError:
            return None
        problem = SOCP(qp, [tuple(_of(one) for one in cone) for cone in cones])
        options = SolverOptions(tolerance=_EPS, polish=polish)
        found = get_solver("clarabel", "cone").solve(problem, options=options)
        if not found.status.usable:
            return None
        value = float(found.z[-1])
        if goal is not None:
            return Least(value * (d.tracking_unit if goal == TRACKING else 1.0), {})
        weighed = (found.lam * _of(units)).tolist()
        duals: dict[str | int, float] = dict(zip(soft, weighed, strict=False))
        if BUDGET in parts:
            duals[BUDGET] = sum(weighed[-2:])
        if cones:
            duals[TRACKING] = float(found.cone_duals[0][0] * (s.risk_unit + e))
        lower, upper = found.lam_lb[:n], found.lam_ub[:n]
        stuck = self._stuck()[0].numpy(force=True)
        duals |= {
            part: own[~stuck].max(initial=0) for part, own in ((LOWER, lower), (UPPER, upper))
        }
        duals[STUCK] = (lower + upper)[stuck].max(initial=0)
        return Least(value, duals)

    def _stuck(self) -> Tensor:
        """Names (T, n) whose bounds are what the market forbids."""
        d = self.setup.draft
        if d.own is None:
            return torch.zeros_like(self.setup.mask)
        return ((d.lower != d.own[0]) | (d.upper != d.own[1])) & self.setup.mask

    def _bounds(
        self, parts: Collection[str | int], *, last: float = torch.inf, first: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """lb, ub (T, N): those of ``parts``; ``first`` ≤ t ≤ ``last``."""
        s, d = self.setup, self.setup.draft
        bounds = []
        for i, (part, end, now) in enumerate(
            ((LOWER, -torch.inf, d.lower), (UPPER, torch.inf, d.upper))
        ):
            own = now if d.own is None else d.own[i]
            value = own if part in parts else torch.full_like(own, end)
            if STUCK in parts:
                value = torch.where(self._stuck(), now, value)
            bounds.append(torch.where(s.mask, value, 0.0))
        T, extra = len(s.q), self.width - self.n - 1
        zero = s.q.new_zeros(T, extra)
        top = torch.where(s.mask, torch.inf, 0.0).to(zero).repeat(1, extra // self.n)
        t = s.q.new_ones(T, 1)
        return (
            torch.cat([bounds[0], zero, torch.full_like(t, first)], -1),
            torch.cat([bounds[1], top, torch.full_like(t, last)], -1),
        )

    def _equalities(self, *, budget: bool) -> tuple[Tensor | None, Tensor | None]:
        """A (p, N) sparse and b (T, p): the budget, and what trades and legs add up to."""
        n, s = self.n, self.setup
        one = torch.arange(n, device=s.q.device)
        where, values, right = [], [], []
        row = 0
        if budget:
            where.append(torch.stack([torch.zeros_like(one), one]))
            values.append(torch.ones_like(s.q[0]))
            right.append(s.draft.budget.unsqueeze(-1))
            row = 1
        for name, start in self.start.items():
            for at, sign in ((0, 1.0), (start, -1.0), (start + n, 1.0)):
                where.append(torch.stack([row + one, at + one]))
                values.append(torch.full_like(s.q[0], sign))
            right.append(s.previous if name == "trades" else torch.zeros_like(s.q))
            row += n
        if not where:
            return None, None
        A = torch.sparse_coo_tensor(
            torch.cat(where, 1), torch.cat(values), (row, self.width), check_invariants=False
        )
        return A.coalesce(), torch.cat(right, -1)

    def _rows(self, parts: Collection[Any]) -> tuple[Tensor, Tensor]:
        """G (T, m, N) and h (T, m) of rows of the draft by number, and of the turnover."""
        s, n = self.setup, self.n
        G, h = [], []
        for part in parts:
            row = s.q.new_zeros(len(s.q), self.width)
            if part == TURNOVER:
                start = self.start["trades"]
                row[:, start : start + 2 * n] = 0.5
                assert s.draft.turnover is not None
                limit = s.draft.turnover
            else:
                limit = s.h[:, part]
                if s.legs and part == len(s.words) - 1:
                    row[:, self.start["legs"] : self.start["legs"] + 2 * n] = 1.0
                else:
                    row = torch.nn.functional.pad(s.G[:, part], (0, self.width - n))
            G.append(row)
            h.append(limit)
        if not G:
            return s.q.new_zeros(len(s.q), 0, self.width), s.q.new_zeros(len(s.q), 0)
        return torch.stack(G, 1), torch.stack(h, 1)

    def _units(self, parts: Collection[Any]) -> Tensor:
        """What a weight of 1 can make of each of the ``parts`` of :meth:`_rows`, (T, m)."""
        s = self.setup
        one = torch.ones_like(s.q[:, 0])
        units = [one if part == TURNOVER else s.units[:, part] for part in parts]
        return torch.stack(units, -1) if units else s.q.new_zeros(len(s.q), 0)

    def _half(self) -> Tensor:
        """F (T, k + n, N) with ‖Fz‖ = ‖Σ^½w‖."""
        s = self.setup
        root = torch.where(s.specific > 0, s.specific, 1.0).sqrt() * (s.specific > 0)
        F = torch.cat([s.loadings.mT, torch.diag_embed(root)], 1)
        return torch.nn.functional.pad(F, (0, self.width - self.n))

    def _tracking(self) -> tuple[Tensor, Tensor, None, Tensor]:
        F, s = self._half(), self.setup
        g = -(F[..., : self.n] @ s.bench.unsqueeze(-1)).squeeze(-1)
        assert s.draft.tracking is not None
        return F, g, None, s.draft.tracking


def _of(value: Tensor | float | None) -> Any:
    """What belongs to a batch's only day, as an array."""
    if not isinstance(value, Tensor):
        return value
    array = value.numpy(force=True)
    return array[0] if array.ndim and len(array) == 1 else array


def _csr(matrix: Tensor | None) -> Any:
    if matrix is None:
        return None
    where = matrix.indices().numpy(force=True)
    return sparse.csr_array((matrix.values().numpy(force=True), where), shape=matrix.shape)
