"""A QP as backends take it: in unit scale, with B Bᵀ + diag(d) lifted, as dense or as CSC.

With x = z / s, the objective divided by g s and each row by its largest entry (s, g: the problem's
units of z and of the gradient, :class:`~bpqp_portfolio.problems.qp.Scaling`), everything has size
1, and absolute tolerances mean what they say. ½ zᵀ(B Bᵀ + diag(d))z is lifted to ½ zᵀ diag(d) z +
½ yᵀy with Bᵀz − y = 0: k more variables instead of n² entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ...problems.bounds import split_by_sign
from ...problems.matrices import (
    Array,
    FactorMatrix,
    Matrix,
    is_sparse,
    scale_rows,
    to_dense,
    to_sparse,
)
from ...problems.qp import QP, Scaling
from ...problems.solution import Solution, SolveStatus
from .cache import CacheEntry
from .certificates import any_certificate, infeasible
from .finalize import finalize
from .protocol import SolverOptions

# B Bᵀ + diag(d) has n² / 2 numbers, its lifted form some n (k + 1): lift below this k / n.
_LIFT = 1 / 3
# A kept scaling serves a problem whose own units differ by at most this factor.
_DRIFT = 10.0


@dataclass(frozen=True, eq=False)
class Vectors:
    """q (n,), b (p,), h (m,), lb, ub (n,) of a :class:`StandardForm`, lifted sizes included."""

    q: Array
    b: Array
    h: Array
    lb: Array
    ub: Array


@dataclass(frozen=True, eq=False)
class RawPoint:
    """Where a backend stopped, in a :class:`StandardForm`: x (n + k,), nu (p + k,), lam (m,), and
    lam_lb, lam_ub (n + k,)."""

    x: Array
    nu: Array
    lam: Array
    lam_lb: Array
    lam_ub: Array

    @classmethod
    def signed(cls, x: Array, nu: Array, lam: Array, bounds: Array) -> RawPoint:
        """The point whose bounds have the duals λ_ub − λ_lb = ``bounds``."""
        return cls(x, nu, lam, *split_by_sign(bounds))


@dataclass(frozen=True, eq=False)
class StandardForm:
    """The matrices of a problem in which z, the objective and each row have size 1.

    Parameters
    ----------
    n, p : sizes of the problem itself; ``P`` (n + k, n + k), ``A`` (p + k, n + k) and
        ``G`` (m, n + k) are larger by the k factors of a lifted P.
    units : the units, which vectors and duals share.
    """

    n: int
    p: int
    units: Scaling
    P: Matrix
    A: Matrix
    G: Matrix

    @classmethod
    def of(cls, problem: QP, *, lift: bool = True) -> StandardForm:
        """The matrices of ``problem``: all sparse, or all dense.

        They are sparse if one of the problem's is, or if P is lifted; not with ``lift`` False.
        """
        units = problem.scaling
        unit = units.gradient / units.length
        P = problem.P if unit == 1.0 else problem.P / unit
        A = scale_rows(problem.A, 1.0 / units.rows_A)
        G = scale_rows(problem.G, 1.0 / units.rows_G)
        factors = isinstance(P, FactorMatrix) and P.B.shape[1] <= _LIFT * problem.n
        if lift and factors:
            P, A, G = _lift(P, A, G)
        elif lift and any(is_sparse(matrix) for matrix in (P, A, G)):
            P, A, G = to_sparse(P), to_sparse(A), to_sparse(G)
        else:
            P, A, G = to_dense(P), to_dense(A), to_dense(G)
        return cls(problem.n, problem.p, units, P, A, G)

    @property
    def sparse(self) -> bool:
        """Whether P, A and G are csr arrays; otherwise they are dense."""
        return is_sparse(self.P)

    @property
    def size(self) -> int:
        """Number of variables, lifted ones included."""
        return int(self.P.shape[0])

    def vectors(self, problem: QP) -> Vectors:
        """The vectors of ``problem``, which has these matrices."""
        k, units = self.size - self.n, self.units
        q, b = problem.q / units.gradient, problem.b / (units.rows_A * units.length)
        h = problem.h / (units.rows_G * units.length)
        lb, ub = problem.lb / units.length, problem.ub / units.length
        if not k:
            return Vectors(q, b, h, lb, ub)
        zeros, infinite = np.zeros(k), np.full(k, np.inf)
        return Vectors(
            np.concatenate([q, zeros]),
            np.concatenate([b, zeros]),
            h,
            np.concatenate([lb, -infinite]),
            np.concatenate([ub, infinite]),
        )

    def fits(self, problem: QP) -> bool:
        """Whether the units are still those of ``problem``, which has its matrices.

        Tolerances are relative to them, so a much larger or smaller q or b wants new ones.
        """
        now, then = problem.scaling, self.units
        changes = now.gradient / then.gradient, now.length / then.length
        return all(1 / _DRIFT <= change <= _DRIFT for change in changes)

    def initial_point(self, problem: QP, entry: CacheEntry | None) -> RawPoint | None:
        """The entry's solution in these units and sizes, or None."""
        s = entry.initial_point(problem) if entry is not None else None
        if s is None:
            return None
        units = self.units
        x, nu = s.z / units.length, s.nu * units.rows_A / units.gradient
        k = self.size - self.n
        if k:  # y = Bᵀx is also the dual of Bᵀx − y = 0
            y = self.A[self.p :, : self.n] @ x
            x, nu = np.concatenate([x, y]), np.concatenate([nu, y])
        lam = s.lam * units.rows_G / units.gradient
        free = np.zeros(k)
        lower, upper = (np.concatenate([v / units.gradient, free]) for v in (s.lam_lb, s.lam_ub))
        return RawPoint(x, nu, lam, lower, upper)

    def finalize(
        self,
        problem: QP,
        raw: RawPoint | None,
        *,
        claim: SolveStatus | None = None,
        iterations: int,
        solver: str,
        options: SolverOptions,
    ) -> Solution:
        """Solution at the point where a backend stopped, or the proof that there is none.

        Parameters
        ----------
        raw : the point; None where there is none. With a ``claim`` what is offered as its proof:
            x is a direction, nu and lam are a certificate (the duals of bounds follow from them).
        claim : PRIMAL_INFEASIBLE or DUAL_INFEASIBLE where the backend claims it. It is proved first
            (:func:`~bpqp_portfolio.solvers.common.certificates.infeasible`).

        A backend that stops far from a solution, though nobody limited it, may have met an
        infeasible problem that it does not recognise: then a certificate is looked for as well.
        """
        ending: dict[str, Any] = {"iterations": iterations, "solver": solver}
        offer = {} if raw is None else self._offer(raw)
        if claim is not None:
            return infeasible(problem, claim, **offer, **ending)
        if raw is None:
            proved = any_certificate(problem, **ending)
            limit = SolveStatus.ITERATION_LIMIT
            return Solution.failed(problem, limit, **ending) if proved is None else proved
        with np.errstate(over="ignore"):  # an iterate that diverged is no point
            point = self._point(raw)
        solution = finalize(problem, *point, options=options, **ending)
        if solution.status is not SolveStatus.ITERATION_LIMIT or options.max_iterations is not None:
            return solution
        proved = any_certificate(problem, **offer, **ending)
        return solution if proved is None else proved

    def _offer(self, raw: RawPoint) -> dict[str, Any]:
        """A direction and a certificate's duals, in the problem's rows."""
        duals = raw.nu[: self.p] / self.units.rows_A, raw.lam / self.units.rows_G
        return {"ray": raw.x[: self.n], "duals": duals}

    def _point(self, raw: RawPoint) -> tuple[Array, ...]:
        """z, nu, lam, lam_lb, lam_ub in the problem's units."""
        units = self.units
        return (
            raw.x[: self.n] * units.length,
            raw.nu[: self.p] * (units.gradient / units.rows_A),
            raw.lam * (units.gradient / units.rows_G),
            raw.lam_lb[: self.n] * units.gradient,
            raw.lam_ub[: self.n] * units.gradient,
        )


def csc(blocks: Iterable[Matrix | tuple[Array, float]], columns: int) -> Any:
    """Blocks of rows on top of each other as one csc_matrix.

    A block is a dense or csr matrix, or a pair (indices, sign): sign times those rows of the
    identity.
    """
    return sparse.csr_matrix(_stacked(blocks, columns)).tocsc()


def _stacked(blocks: Iterable[Matrix | tuple[Array, float]], columns: int) -> Any:
    """:func:`csc` as a csr_array, without the detours of scipy's own constructors."""
    data: list[Array] = []
    indices: list[Array] = []
    counts: list[Array] = []
    for block in blocks:
        if isinstance(block, tuple):
            place, sign = block
            data.append(np.full(len(place), sign))
            indices.append(place)
            counts.append(np.ones(len(place), dtype=np.int32))
        elif is_sparse(block):
            data.append(block.data)
            indices.append(block.indices)
            counts.append(np.diff(block.indptr))
        else:
            row, column = np.nonzero(block)
            data.append(block[row, column])
            indices.append(column)
            counts.append(np.bincount(row, minlength=len(block)))
    ends = np.cumsum(np.concatenate(counts))
    indptr = np.concatenate([[0], ends]).astype(np.int32)
    entries = np.concatenate(data), np.concatenate(indices).astype(np.int32), indptr
    return sparse.csr_array(entries, shape=(len(ends), columns))


def upper_triangle(P: Matrix) -> Any:
    """The upper triangle of a symmetric matrix as a csc_matrix."""
    if is_sparse(P):
        return sparse.csc_matrix(sparse.triu(P))
    # The lower triangle's rows are the upper one's columns.
    low = csc([np.tril(P)], len(P)).tocsr()
    return sparse.csc_matrix((low.data, low.indices, low.indptr), shape=P.shape)


def _lift(P: FactorMatrix, A: Matrix, G: Matrix) -> tuple[Any, Any, Any]:
    n, k = P.B.shape
    places = np.arange(n + k + 1, dtype=np.int32)
    quadratic = sparse.csr_array(
        (np.concatenate([P.d, np.ones(k)]), places[:-1], places), shape=(n + k, n + k)
    )
    definition = np.concatenate([P.B.T, -np.eye(k)], axis=1)
    return quadratic, _stacked([A, definition], n + k), _stacked([G], n + k)
