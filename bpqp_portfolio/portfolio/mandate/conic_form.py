"""A program as cone programs: a fallback for a day's optimum, and the least miss of its limits.

Trades, and long and short legs, are variables of their own, so that every limit is a row or a
cone: z = (w, b, s, p, m, t) with w = w⁰ + b − s and w = p − m, and t either the risk ‖Σ^½w‖ of the
robust objective or the violation that is made least.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from .parts import Bound, Cone, Form, Of, Row, Sense
from .point import Point
from .program import MandateProgram, tightest
from .qp_form import factor_model, signed

_EPS = 1e-10
# Violations below this are worth a second look.
_SMALL = 1e-6


@dataclass(frozen=True)
class Stuck:
    """What the market forbids: bounds of names that cannot trade."""

    label: str = "names that cannot trade"


Limit = Row | Bound | Cone | Stuck


@dataclass(frozen=True)
class Least:
    """The least violation on one day, and the share of each limit in it."""

    value: float
    shares: list[float]


class ConicForm:
    """``program`` as cone programs; rows and cones that are soft are not so here."""

    def __init__(self, program: MandateProgram) -> None:
        self.program = p = program
        self.n = n = p.q.shape[1]
        pairs = ["trades"] * (bool(p.trades) or p.rates is not None) + ["legs"] * p.legs
        self.start = {name: n * (1 + 2 * i) for i, name in enumerate(pairs)}
        self.width = n * (1 + 2 * len(pairs)) + 1
        self.layer = SOCPLayer(tolerance=_EPS, on_failure="nan")

    @property
    def limits(self) -> list[Limit]:
        """All limits, in the order in which an infeasible day names them."""
        p = self.program
        stuck = [Stuck()] if bool((p.stuck_lower | p.stuck_upper).any()) else []
        return [*p.cones, *p.trades, *p.rows, *p.bounds, *stuck, p.budget]

    def optimum(self, loose: float = 0.0) -> Point:
        """The optimum of every day, differentiable.

        Limits L are those of the program, or L + ``loose`` (u + |L|), u their sizes. Days without
        an optimum have NaN weights.
        """
        p, n, N = self.program, self.n, self.width
        forms = [(cost.form, cost.weight) for cost in p.costs]
        loadings, specific, tilt, _ = factor_model(p.risk, p.gamma, p.q, forms)
        costs = [torch.zeros_like(p.q)] * ((N - 1) // n - 1)
        if p.rates is not None:
            costs[:2] = p.rates
        price = torch.zeros_like(p.gamma) if p.kappa is None else p.kappa
        q = torch.cat([tilt, *costs, price.unsqueeze(-1)], -1)
        pad = torch.nn.functional.pad
        P = pad(loadings, (0, 0, 0, N - n)), pad(specific, (0, N - n))
        rows = [*p.rows, *p.trades]
        G, h, sizes = self._rows(rows)
        h = h + loose * (sizes + h.abs())
        A, b = self._equalities(budget=True)
        lb, ub = self._bounds(self.limits, last=torch.inf if p.kappa is not None else 0.0)
        cones: list[Any] = []
        for cone in p.cones:
            F, g = self._root(cone.form)
            cones.append((F, g, None, cone.limit + loose * (cone.form.size + cone.limit)))
        if p.kappa is not None:
            head = p.q.new_zeros(N)
            head[-1] = 1.0
            cones.append((*self._root(p.risk), head, 0.0))
        found = self.layer.solve(P, q, A, b, G, h, lb, ub, cones=cones)
        duals = [found.cone_duals[i][:, 0].detach() / cone.scale for i, cone in enumerate(p.cones)]
        lam = found.lam.detach()
        return Point(
            w=found.z[:, :n],
            status=torch.tensor([one.code for one in found.status], device=q.device),
            kkt_norm=found.kkt_norm,
            iterations=found.iterations,
            rows=lam[:, : len(p.rows)],
            trades=lam[:, len(p.rows) :],
            cones=torch.stack(duals, -1) if duals else q.new_zeros(len(q), 0),
            lower=found.lam_lb[:, :n].detach(),
            upper=found.lam_ub[:, :n].detach(),
            budget=found.nu[:, 0].detach(),
        )

    def violation(self, limits: Sequence[Limit], *, exact: bool) -> Least | None:
        """The least t ≥ 0 of a single day with which limits L and the budget are kept to within
        t (u + |L|), u their sizes, inside of the bounds, all of ``limits``, and their shares in it;
        None where no answer was found. A small t is as good as its solver's 1e-9, or to rounding
        where ``exact``."""
        found = self._least_violation(limits, polish=False)
        small = found is None or found.value <= _SMALL
        return self._least_violation(limits, polish=True) if small and exact else found

    def within_reach(self, goal: Row | Cone, limits: Sequence[Limit]) -> float | None:
        """The least value of ``goal`` on a single day that meets ``limits``, in its limit's own
        units, the largest where it is a limit from below; None where they cannot be met."""
        rows = [one for one in limits if isinstance(one, Row) and one.sense is not Sense.EQUAL]
        rows = [goal, *rows] if isinstance(goal, Row) else rows
        G, h, _ = self._rows(rows)
        if isinstance(goal, Row):
            G[:, 0, -1], h[:, 0] = -1.0, 0.0
        cones = []
        for cone in (one for one in (goal, *limits) if isinstance(one, Cone)):
            head = cone.limit.new_zeros(self.width)
            head[-1] = float(cone is goal)
            cones.append((*self._root(cone.form), head, cone.limit * float(cone is not goal)))
        A, b = self._equalities(budget=self.program.budget in limits)
        lb, ub = self._bounds(limits, first=-torch.inf)
        found = self._smallest(A, b, G, h, lb, ub, cones, polish=False)
        if found is None:
            return None
        value = float(found.z[-1]) * (goal.scale if isinstance(goal, Cone) else 1.0)
        return -value if goal.sense is Sense.LOWER else value

    def _least_violation(self, limits: Sequence[Limit], *, polish: bool) -> Least | None:
        p, N, n = self.program, self.width, self.n
        rows = [one for one in limits if isinstance(one, Row) and one.sense is not Sense.EQUAL]
        G, h, sizes = self._rows(rows)
        if p.budget in limits:
            # Both sides of the budget.
            row = torch.nn.functional.pad(p.budget.matrix, (0, N - n)).unsqueeze(1)
            total = p.budget.limit.unsqueeze(-1)
            G, h = torch.cat([G, row, -row], 1), torch.cat([h, total, -total], 1)
            sizes = torch.nn.functional.pad(sizes, (0, 2), value=1.0)
        sizes = sizes + h.abs()
        G[..., -1] = -sizes
        A, b = self._equalities(budget=False)
        lb, ub = self._bounds(limits)
        given, cones = [one for one in limits if isinstance(one, Cone)], []
        for cone in given:
            head = cone.limit.new_zeros(N)
            head[-1] = float(cone.form.size + cone.limit)
            cones.append((*self._root(cone.form), head, cone.limit))
        found = self._smallest(A, b, G, h, lb, ub, cones, polish=polish)
        if found is None:
            return None
        weighed = (found.lam * _of(sizes)).tolist()
        of_cones = [
            float(dual[0] * (cone.form.size + cone.limit))
            for dual, cone in zip(found.cone_duals, given, strict=True)
        ]
        lower, upper = found.lam_lb[:n], found.lam_ub[:n]
        stuck = (p.stuck_lower | p.stuck_upper)[0].numpy(force=True)
        free = p.mask[0].numpy(force=True) & ~stuck
        sides = (lower * free, "lower"), (upper * free, "upper")

        def share(one: Limit) -> float:
            if one is p.budget:
                return sum(weighed[-2:])
            if isinstance(one, Row):
                return weighed[rows.index(one)]
            if isinstance(one, Cone):
                return of_cones[given.index(one)]
            if isinstance(one, Stuck):
                return float((lower + upper)[stuck].max(initial=0))
            binding = [
                dual[(getattr(one, side) == getattr(p, side))[0].numpy(force=True)].max(initial=0)
                for dual, side in sides
                if getattr(one, side) is not None
            ]
            return float(max(binding))

        return Least(float(found.z[-1]), [share(one) for one in limits])

    def _smallest(
        self,
        A: Tensor | None,
        b: Tensor | None,
        G: Tensor,
        h: Tensor,
        lb: Tensor,
        ub: Tensor,
        cones: Sequence[tuple[Any, ...]],
        *,
        polish: bool,
    ) -> Any:
        """The point of a single day with the smallest t, None where there is none."""
        q = np.zeros(self.width)
        q[-1] = 1.0
        try:
            qp = QP(linear(self.width), q, _csr(A), _of(b), _of(G), _of(h), _of(lb), _of(ub))
        except ProblemError:
            # Bounds that cross.
            return None
        problem = SOCP(qp, [tuple(_of(one) for one in cone) for cone in cones])
        options = SolverOptions(tolerance=_EPS, polish=polish)
        found = get_solver("clarabel", "cone").solve(problem, options=options)
        return found if found.status.usable else None

    def _bounds(
        self, limits: Sequence[Limit], *, last: float = torch.inf, first: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """lb, ub (T, N): those of ``limits``; ``first`` ≤ t ≤ ``last``."""
        p = self.program
        lower, upper = tightest([one for one in limits if isinstance(one, Bound)], p.q)
        if any(isinstance(one, Stuck) for one in limits):
            stuck = p.stuck_lower | p.stuck_upper
            lower, upper = torch.where(stuck, p.lower, lower), torch.where(stuck, p.upper, upper)
        lower, upper = (torch.where(p.mask, bound, 0.0) for bound in (lower, upper))
        T, extra = len(p.q), self.width - self.n - 1
        zero, t = p.q.new_zeros(T, extra), p.q.new_ones(T, 1)
        top = torch.where(p.mask, torch.inf, 0.0).to(zero).repeat(1, extra // self.n)
        return (
            torch.cat([lower, zero, torch.full_like(t, first)], -1),
            torch.cat([upper, top, torch.full_like(t, last)], -1),
        )

    def _equalities(self, *, budget: bool) -> tuple[Tensor | None, Tensor | None]:
        """A (p, N) sparse and b (T, p): the budget, and what trades and legs add up to."""
        n, p = self.n, self.program
        one = torch.arange(n, device=p.q.device)
        where, values, right = [], [], []
        row = 0
        if budget:
            where.append(torch.stack([torch.zeros_like(one), one]))
            values.append(torch.ones_like(p.q[0]))
            right.append(p.budget.limit.unsqueeze(-1))
            row = 1
        for name, start in self.start.items():
            for at, sign in ((0, 1.0), (start, -1.0), (start + n, 1.0)):
                where.append(torch.stack([row + one, at + one]))
                values.append(torch.full_like(p.q[0], sign))
            right.append(p.previous if name == "trades" else torch.zeros_like(p.q))
            row += n
        if not where:
            return None, None
        A = torch.sparse_coo_tensor(
            torch.cat(where, 1), torch.cat(values), (row, self.width), check_invariants=False
        )
        return A.coalesce(), torch.cat(right, -1)

    def _rows(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """G (T, m, N) and h (T, m) of G z ≤ h, and the rows' sizes (T, m)."""
        p, n = self.program, self.n
        matrix, h, sizes = signed(rows, p.q)
        G = torch.nn.functional.pad(matrix, (0, self.width - n))
        for i, row in enumerate(rows):
            pair = {Of.TRADES: "trades", Of.GROSS: "legs"}.get(row.of)
            if pair in self.start:
                start = self.start[pair]
                G[:, i, start : start + n] = G[:, i, start + n : start + 2 * n] = matrix[:, i]
                G[:, i, :n] = 0.0
        return G, h, sizes

    def _root(self, form: Form) -> tuple[Tensor, Tensor]:
        """F (T, r, N) and g (T, r) with ‖Fz + g‖² the form."""
        halves, shifts = [], []
        if form.loadings is not None:
            halves.append(form.loadings.mT)
            shifts.append(None if form.target is None else -form.target)
        if form.specific is not None:
            root = torch.where(form.specific > 0, form.specific, 1.0).sqrt() * (form.specific > 0)
            halves.append(torch.diag_embed(root))
            shifts.append(None)
        F = torch.cat(halves, 1)
        g = torch.zeros_like(F[..., 0])
        if form.centre is not None:
            g = -(F @ form.centre.unsqueeze(-1)).squeeze(-1)
        if shifts[0] is not None:
            r = shifts[0].shape[-1]
            g = torch.cat([g[:, :r] + shifts[0], g[:, r:]], -1)
        return torch.nn.functional.pad(F, (0, self.width - self.n)), g


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
