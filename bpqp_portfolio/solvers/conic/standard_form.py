"""A cone program in the standard form that solvers take, and their claims checked.

min ½ xᵀPx + qᵀx  s.t.  rhs − rows x ∈ {0} × R₊ × Q × … × Q, Q = {(t, w): ‖w‖ ≤ t}, everything of
unit size. k cones that share F and g become one, ‖Fz + g‖ ≤ t, and k rows t ≤ cz + d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ...problems.bounds import BoundPlaces
from ...problems.matrices import Array, FactorMatrix, is_sparse, scale_rows, to_sparse
from ...problems.qp import Scaling
from ...problems.socp import SOCP, ConePoint, SOCPSolution
from ...problems.solution import SolveStatus
from .certificates import certified


@dataclass(frozen=True, eq=False)
class ConicForm:
    """min ½ xᵀPx + qᵀx  s.t.  rhs − rows x ∈ {0} × R₊ × second-order cones, data of unit size.

    x is z and, for each group of two or more cones, t with ‖Fz + g‖ ≤ t ≤ cz + d, in the unit
    ``units.length``; the objective's is ``units.gradient`` · ``units.length``. The rows are A
    and equal bounds; G, the other bounds and the t ≤ cz + d; and the cones. P is upper triangular.
    """

    problem: SOCP
    P: Any
    q: Array
    rows: Any
    rhs: Array
    equalities: int
    inequalities: int
    cones: tuple[int, ...]
    units: Scaling
    places: BoundPlaces

    @classmethod
    def of(cls, problem: SOCP) -> ConicForm:
        """The standard form of ``problem``."""
        qp, n = problem.qp, problem.n
        units = problem.scaling
        length = units.length
        at = BoundPlaces.of(qp.lb, qp.ub)
        build = _Rows()
        if qp.p:
            build.add(scale_rows(qp.A, 1 / units.rows_A), qp.b / (units.rows_A * length))
        build.unit(at.fixed, 1.0, qp.lb[at.fixed] / length)
        equalities = build.count
        if qp.m:
            build.add(scale_rows(qp.G, 1 / units.rows_G), qp.h / (units.rows_G * length))
        build.unit(at.lower, -1.0, -qp.lb[at.lower] / length)
        build.unit(at.upper, 1.0, qp.ub[at.upper] / length)
        width = n
        for group in problem.groups:
            if not _direct(group):
                start = build.count
                build.add(-group.c / group.size, group.d / (group.size * length))
                if group.r:
                    build.entries(np.arange(start, build.count), np.full(len(group.d), width), 1.0)
                    width += 1
        inequalities = build.count - equalities
        sizes, column = [], n
        for group in problem.groups:
            if not group.r:
                continue
            if _direct(group):
                build.add(-group.c / group.size, group.d / (group.size * length))
            else:
                build.unit(np.array([column]), -1.0, np.zeros(1))
                column += 1
            if group.F is None:
                build.unit(np.arange(n), -1.0 / group.size, group.g / (group.size * length))
            else:
                build.add(group.F * (-1.0 / group.size), group.g / (group.size * length))
            sizes.append(group.r + 1)
        rows, rhs = build.matrix(width)
        q = np.zeros(width)
        q[:n] = qp.q / units.gradient
        P, kinds = _upper(qp.P, units.gradient / length, width), (equalities, inequalities)
        return cls(problem, P, q, rows, rhs, *kinds, tuple(sizes), units, at)

    def point(self, x: Array, y: Array) -> ConePoint:
        """The point of the original problem; x, y are solution and duals of the standard form."""
        qp, n = self.problem.qp, self.problem.n
        units = self.units
        y = y * units.gradient
        at = self.places
        counts = [qp.p, len(at.fixed), qp.m, len(at.lower), len(at.upper)]
        nu, on_fixed, lam, on_lower, on_upper, rest = np.split(y, np.cumsum(counts))
        lam_lb, lam_ub = at.duals(n, on_fixed, on_lower, on_upper)
        taus: list[Any] = []
        for group in self.problem.groups:
            k = 0 if _direct(group) else len(group.d)
            taus.append(rest[:k] / group.size if k else None)
            rest = rest[k:]
        duals = []
        for group, tau in zip(self.problem.groups, taus, strict=True):
            if group.r:
                own, rest = rest[: group.r + 1] / group.size, rest[group.r + 1 :]
                duals.append((own[:1] if tau is None else tau, own[1:]))
            else:
                duals.append((tau, np.zeros(0)))
        z, nu, lam = x[:n] * units.length, nu / units.rows_A, lam / units.rows_G
        return ConePoint(z, nu, lam, lam_lb, lam_ub, tuple(duals))

    def infeasible(
        self, status: SolveStatus, x: Array, y: Array, iterations: int, solver: str
    ) -> SOCPSolution:
        """Solution with the certificate (x or y, as ``status`` says) if it is one.

        It has to hold up to 1e-6 of its own size; a claim that does not is the iteration limit.
        """
        proof = certified(self.problem, self.point(x, y), status, iterations, solver)
        if proof is None:
            return SOCPSolution.failed(
                self.problem, SolveStatus.ITERATION_LIMIT, iterations=iterations, solver=solver
            )
        return proof


def _direct(group: Any) -> bool:
    """Whether a group goes in as the one cone that it is."""
    return len(group.d) == 1 and group.r > 0


class _Rows:
    """A sparse matrix and a right-hand side, put together block by block."""

    def __init__(self) -> None:
        self.count = 0
        self._i: list[Array] = []
        self._j: list[Array] = []
        self._v: list[Array] = []
        self._rhs: list[Array] = []

    def add(self, block: Any, rhs: Array) -> None:
        """Rows ``block`` over the first columns."""
        if is_sparse(block):
            block = block.tocoo()
            i, j, values = block.row, block.col, block.data
        else:
            i, j = np.nonzero(block)
            values = block[i, j]
        self.entries(i + self.count, j, values)
        self._close(rhs)

    def unit(self, columns: Array, value: float, rhs: Array) -> None:
        """A row with one entry ``value`` for each of ``columns``."""
        self.entries(np.arange(self.count, self.count + len(columns)), columns, value)
        self._close(rhs)

    def entries(self, i: Array, j: Array, value: Any) -> None:
        """Single entries."""
        self._i.append(i)
        self._j.append(j)
        self._v.append(np.broadcast_to(value, i.shape))

    def _close(self, rhs: Array) -> None:
        self._rhs.append(rhs)
        self.count += len(rhs)

    def matrix(self, width: int) -> tuple[Any, Array]:
        """The matrix (CSC) and the right-hand side."""
        i, j, v = (np.concatenate(part) for part in (self._i, self._j, self._v))
        # Blocks come row by row, so that a stable sort by column leaves each column's rows sorted.
        small = width <= np.iinfo(np.int16).max
        order = np.argsort(j.astype(np.int16 if small else np.int32), kind="stable")
        pointers = np.zeros(width + 1, dtype=np.int32)
        np.cumsum(np.bincount(j, minlength=width), out=pointers[1:])
        entries = v[order], i[order].astype(np.int32), pointers
        matrix = sparse.csc_matrix(entries, shape=(self.count, width))
        return matrix, np.concatenate(self._rhs)


def _upper(P: Any, unit: float, width: int) -> Any:
    if isinstance(P, FactorMatrix) and not P.B.any() and not P.d.any():
        return sparse.csc_matrix((width, width))
    matrix = sparse.triu(to_sparse(P / unit), format="csc")
    matrix = sparse.csc_matrix(matrix)
    matrix.resize((width, width))
    return matrix
