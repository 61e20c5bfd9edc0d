"""A problem as backends take it: in unit scale, with B Bᵀ + diag(d) lifted, as dense or as CSC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

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
from .certificates import infeasible
from .finalize import finalize
from .protocol import SolverOptions

# B Bᵀ + diag(d) has n² / 2 numbers, its lifted form some n (k + 1): lift below this k / n.
_LIFT = 1 / 3
# A kept scaling serves a problem whose own units differ by at most this factor.
_DRIFT = 10.0


@dataclass(frozen=True, eq=False)
class Vectors:
    """q (n,), b (p,), h (m,), lb, ub (n,) of a :class:`Scaled` problem, lifted sizes included."""

    q: Array
    b: Array
    h: Array
    lb: Array
    ub: Array


@dataclass(frozen=True, eq=False)
class Scaled:
    """The matrices of a problem in which z, the objective and each row have size 1.

    Parameters
    ----------
    n, p : sizes of the problem itself; ``P`` (n + k, n + k), ``A`` (p + k, n + k) and
        ``G`` (m, n + k) are larger by the k factors of a lifted P.
    units : the units, which vectors and duals share.

    Lifting writes ½ zᵀ(B Bᵀ + diag(d))z as ½ zᵀ diag(d) z + ½ yᵀy with Bᵀz − y = 0: a few more
    variables instead of n² entries.
    """

    n: int
    p: int
    units: Scaling
    P: Matrix
    A: Matrix
    G: Matrix

    @classmethod
    def of(cls, problem: QP, *, lift: bool = True) -> Scaled:
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
            P, A, G = _lifted(P, A, G)
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

    def start(self, problem: QP, entry: CacheEntry | None) -> tuple[Array, ...] | None:
        """x, nu, lam, lam_lb, lam_ub of the entry's solution in these units and sizes, or None."""
        s = entry.start(problem) if entry is not None else None
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
        return x, nu, lam, lower, upper

    def finalize(
        self,
        problem: QP,
        x: Array,
        nu: Array,
        lam: Array,
        lam_lb: Array,
        lam_ub: Array,
        *,
        iterations: int,
        solver: str,
        options: SolverOptions,
    ) -> Solution:
        """:func:`~bpqp_portfolio.solvers.common.finalize.finalize` at a point of this problem.

        A backend that stops far from a solution, though nobody limited it, may have met an
        infeasible problem that it does not recognise: then a certificate is looked for.
        """
        with np.errstate(over="ignore"):  # an iterate that ran away is no point
            raw = x[: self.n] * self.units.length, *self._duals(nu, lam, lam_lb, lam_ub)
        solution = finalize(
            problem,
            *raw,
            iterations=iterations,
            solver=solver,
            options=options,
        )
        if solution.status is not SolveStatus.ITERATION_LIMIT or options.max_iterations is not None:
            return solution
        proved = self.gave_up(problem, ray=x, duals=(nu, lam), iterations=iterations, solver=solver)
        return solution if proved.status is SolveStatus.ITERATION_LIMIT else proved

    def gave_up(
        self,
        problem: QP,
        *,
        ray: Array | None = None,
        duals: tuple[Array, Array] | None = None,
        iterations: int,
        solver: str,
    ) -> Solution:
        """A certificate of either kind, if one is found, as :meth:`infeasible` has it."""
        offer: dict[str, Any] = {
            "ray": ray,
            "duals": duals,
            "iterations": iterations,
            "solver": solver,
        }
        solution = self.infeasible(problem, SolveStatus.PRIMAL_INFEASIBLE, **offer)
        if solution.status is SolveStatus.PRIMAL_INFEASIBLE:
            return solution
        return self.infeasible(problem, SolveStatus.DUAL_INFEASIBLE, **offer)

    def infeasible(
        self,
        problem: QP,
        kind: SolveStatus,
        *,
        ray: Array | None = None,
        duals: tuple[Array, Array] | None = None,
        iterations: int,
        solver: str,
    ) -> Solution:
        """:func:`~bpqp_portfolio.solvers.common.certificates.infeasible` with what the backend
        offers.

        ``ray`` is a direction x, ``duals`` the pair (nu, lam) of a certificate; the duals of the
        bounds follow from them.
        """
        if duals is not None:
            nu, lam = duals
            duals = nu[: self.p] / self.units.rows_A, lam / self.units.rows_G
        return infeasible(
            problem,
            kind,
            ray=None if ray is None else ray[: self.n],
            duals=duals,
            iterations=iterations,
            solver=solver,
        )

    def _duals(self, nu: Array, lam: Array, lam_lb: Array, lam_ub: Array) -> tuple[Array, ...]:
        units = self.units
        return (
            nu[: self.p] * (units.gradient / units.rows_A),
            lam * (units.gradient / units.rows_G),
            lam_lb[: self.n] * units.gradient,
            lam_ub[: self.n] * units.gradient,
        )


def kept(entry: CacheEntry | None, problem: QP, options: SolverOptions) -> Any:
    """The state that ``entry`` keeps, if it serves ``problem`` under ``options``; else None.

    A state has the fields ``scaled`` and ``options``, those it was set up with.
    """
    if entry is None or not entry.reusable(problem):
        return None
    state = entry.state
    return state if state.options == options and state.scaled.fits(problem) else None


def keep(entry: CacheEntry | None, problem: QP, state: Any, solution: Solution) -> Solution:
    """``solution``, kept in ``entry`` with ``state``; a failed solve leaves no state behind."""
    if entry is not None:
        entry.keep(problem, state if solution.status.usable else None, solution)
    return solution


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


def _lifted(P: FactorMatrix, A: Matrix, G: Matrix) -> tuple[Any, Any, Any]:
    n, k = P.B.shape
    places = np.arange(n + k + 1, dtype=np.int32)
    quadratic = sparse.csr_array(
        (np.concatenate([P.d, np.ones(k)]), places[:-1], places), shape=(n + k, n + k)
    )
    definition = np.concatenate([P.B.T, -np.eye(k)], axis=1)
    return quadratic, _stacked([A, definition], n + k), _stacked([G], n + k)
