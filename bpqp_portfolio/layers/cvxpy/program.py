"""A cvxpy problem read once: its data as affine maps of the parameters, ready for a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ...errors import ConfigError
from ...problems.socp import SecondOrderCone
from .checks import ParameterShape, check_cones, check_dpp, check_lists, parameter_map
from .substitution import Substitution

# A matrix of at least this many entries, at most this part of them not zero, stays sparse.
_LARGE, _DENSITY = 250_000, 0.05
# Up to this many variables P is worth forming from a sum of squares.
_FORMED = 2000


@dataclass(frozen=True, eq=False)
class AffineMap:
    """values (..., k) = base (k,) + Σ over terms, coefficient times an entry of a parameter.

    A term is (which parameter, positions in values, positions in the flat parameter,
    coefficients). Values have the batch dimensions of those parameters only that occur.
    """

    base: Tensor
    terms: tuple[tuple[int, Tensor, Tensor, Tensor], ...]

    def __call__(self, parameters: Sequence[Tensor]) -> Tensor:
        """The values for flat ``parameters`` (..., size)."""
        values = self.base
        for which, rows, columns, coefficients in self.terms:
            own = parameters[which].index_select(-1, columns) * coefficients
            lead = torch.broadcast_shapes(values.shape[:-1], own.shape[:-1])
            own = own.expand(*lead, -1)
            values = values.expand(*lead, -1).index_add(-1, rows, own)
        return values


@dataclass(frozen=True, eq=False)
class MatrixMap:
    """A matrix whose entries at (``rows``, ``columns``) are affine in the parameters."""

    values: AffineMap
    rows: Tensor
    columns: Tensor
    shape: tuple[int, int]

    def __call__(self, parameters: Sequence[Tensor]) -> Tensor:
        """(..., rows, columns), or a sparse COO tensor where the matrix is large and one."""
        r, c = self.shape
        values = self.values(parameters)
        if values.ndim == 1 and r * c >= _LARGE and len(self.rows) <= _DENSITY * r * c:
            places = torch.stack((self.rows, self.columns))
            return torch.sparse_coo_tensor(
                places, values, self.shape, is_coalesced=True, check_invariants=False
            )
        zeros = values.new_zeros(*values.shape[:-1], r * c)
        return zeros.index_copy(-1, self.rows * c + self.columns, values).unflatten(-1, (r, c))


@dataclass(frozen=True, eq=False)
class DiagonalMap:
    """A P that is diagonal, as the pair (B, d) with no columns in B."""

    values: AffineMap

    def __call__(self, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B (n, 0) and d (..., n)."""
        d = self.values(parameters)
        return d.new_zeros(d.shape[-1], 0), d


@dataclass(frozen=True)
class VariablePlace:
    """Where a variable stands in z, entries column by column as cvxpy lays them out."""

    start: int
    shape: tuple[int, ...]

    def __call__(self, z: Tensor) -> Tensor:
        """The variable (..., *shape) out of z (..., n)."""
        values = z[..., self.start : self.start + math.prod(self.shape)]
        lead, d = values.shape[:-1], len(self.shape)
        values = values.reshape((*lead, *reversed(self.shape)))
        return values.permute((*range(len(lead)), *reversed(range(len(lead), len(lead) + d))))


@dataclass(frozen=True, eq=False)
class Program:
    """min ½ zᵀPz + qᵀz, Az = b, Gz ≤ h, lb ≤ z ≤ ub, ‖Fz + g‖ ≤ cᵀz + d: maps, None if absent.

    ``arguments`` are named as those of QPLayer; ``cones`` hold (F, g, c, d). ``substitution`` tells
    which variables of cvxpy's making to put in before solving.
    """

    parameters: tuple[ParameterShape, ...]
    variables: tuple[VariablePlace, ...]
    arguments: dict[str, Callable[[Sequence[Tensor]], Any]]
    cones: tuple[SecondOrderCone, ...]
    substitution: Substitution | None


def read_program(problem: Any, parameters: Sequence[Any], variables: Sequence[Any]) -> Program:
    """Canonicalise a cvxpy ``problem``; its parameters need no values.

    Raises
    ------
    ConfigError
        Parameters or variables that are not the problem's, or are of a kind that a layer cannot
        have.
    ProblemError
        A problem that is not DPP, or has integers or cones other than second-order ones.
    """
    import cvxpy as cp
    from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver

    if not isinstance(problem, cp.Problem):
        raise ConfigError(f"problem: expected a cvxpy.Problem, got {type(problem).__name__}.")
    check_lists(problem, parameters, variables)
    check_dpp(problem)
    # Clarabel's chain knows every cone and keeps a quadratic objective; its solver is not called.
    chain = problem._construct_chain(solver=cp.CLARABEL, enforce_dpp=True)
    program: Any = problem
    for reduction in chain.reductions[:-1]:
        program, _ = reduction.apply(program)
    check_cones(program.cone_dims)
    program = ConicSolver.format_constraints(program, [0, 1, 2])
    own = {k: v[0] for k, v in chain.compose_param_id_map().items()}
    ids = [own.get(p.id, p.id) for p in parameters]
    renamed = {k: v[0] for k, v in chain.compose_var_id_map().items()}
    own_ids = {renamed.get(v.id, v.id) for v in problem.variables()}
    shapes, to_user = parameter_map(parameters, ids, program.param_id_to_col)
    places = tuple(
        VariablePlace(program.var_id_to_col[renamed.get(v.id, v.id)], tuple(v.shape))
        for v in variables
    )
    n = program.x.size
    tables = _Tables(to_user, [math.prod(p.shape) for p in shapes])
    # cvxpy's q is one column, and below it the objective's offset.
    arguments: dict[str, Callable[[Sequence[Tensor]], Any]]
    arguments = {"q": tables.vector(tables.entries(program.q, n + 1), 0, n)}
    if program.P is not None:
        arguments["P"] = _quadratic(tables, tables.entries(program.P, n), n)
    rows = tables.entries(program.A, program.constr_size)
    dims = program.cone_dims
    arguments |= _linear(tables, rows, n, dims)
    auxiliary = np.ones(n, dtype=bool)
    for k in own_ids:
        start = program.var_id_to_col[k]
        auxiliary[start : start + program.id_to_var[k].size] = False
    replaced = _substitution(tables, rows, n, dims, auxiliary, arguments)
    cones = tuple(_cones(tables, rows, n, dims))
    return Program(shapes, places, arguments, cones, replaced)


@dataclass(frozen=True, eq=False)
class _Entries:
    """Nonzeros of a matrix whose entries are affine in the parameters, sorted by row.

    Entry (row, column) gets coefficient · parameters[parameter]; the last parameter is 1.
    """

    row: np.ndarray
    column: np.ndarray
    parameter: np.ndarray
    coefficient: np.ndarray

    def take(self, chosen: Any) -> _Entries:
        return _Entries(
            self.row[chosen], self.column[chosen], self.parameter[chosen], self.coefficient[chosen]
        )

    def between(self, start: int, stop: int, shift: int = 0) -> _Entries:
        """Rows start to stop, numbered from ``shift``."""
        own = self.take(slice(*np.searchsorted(self.row, (start, stop))))
        return own.numbered(own.row - start + shift)

    def numbered(self, row: np.ndarray) -> _Entries:
        return _Entries(row, self.column, self.parameter, self.coefficient)

    def times(self, factor: Any) -> _Entries:
        return _Entries(self.row, self.column, self.parameter, self.coefficient * factor)


@dataclass(frozen=True, eq=False)
class _Tables:
    """From cvxpy's tensors to maps of the user's parameters, whose sizes are ``sizes``."""

    to_user: sparse.csr_array
    sizes: list[int]

    def entries(self, tensor: Any, rows: int) -> _Entries:
        """A tensor (rows · columns, parameters), columns stacked, in the user's parameters."""
        own = (sparse.csr_array(tensor) @ self.to_user).tocoo()
        own.sum_duplicates()
        own.eliminate_zeros()
        place, parameter = (index.astype(np.int64) for index in own.coords)
        row, column = place % max(rows, 1), place // max(rows, 1)
        order = np.argsort(row, kind="stable")
        return _Entries(row, column, parameter, own.data).take(order)

    def affine(self, rows: np.ndarray, entries: _Entries, base: np.ndarray) -> AffineMap:
        """Entries as a map to values at ``rows``, on top of ``base``, which is overwritten."""
        ends = np.cumsum(self.sizes)
        constant = entries.parameter == sum(self.sizes)
        np.add.at(base, rows[constant], entries.coefficient[constant])
        which = np.searchsorted(ends, entries.parameter, side="right")
        terms = []
        for i, size in enumerate(self.sizes):
            own = (which == i) & ~constant
            if own.any():
                columns = entries.parameter[own] - (ends[i] - size)
                coefficients = torch.from_numpy(entries.coefficient[own])
                terms.append(
                    (i, torch.from_numpy(rows[own]), torch.from_numpy(columns), coefficients)
                )
        return AffineMap(torch.from_numpy(base), tuple(terms))

    def vector(self, entries: _Entries, column: int, size: int) -> AffineMap:
        """The first ``size`` entries of one ``column``."""
        own = entries.take((entries.column == column) & (entries.row < size))
        return self.affine(own.row, own, np.zeros(size))

    def matrix(self, entries: _Entries, rows: int, n: int) -> MatrixMap:
        """The first ``n`` columns as a matrix."""
        own = entries.take(entries.column < n)
        places, inverse = np.unique(own.row * n + own.column, return_inverse=True)
        values = self.affine(inverse.reshape(-1), own, np.zeros(len(places)))
        at = torch.from_numpy(places)
        return MatrixMap(values, at // n, at % n, (rows, n))


def _quadratic(tables: _Tables, entries: _Entries, n: int) -> MatrixMap | DiagonalMap:
    if (entries.row == entries.column).all():
        return DiagonalMap(tables.affine(entries.row, entries, np.zeros(n)))
    return tables.matrix(entries, n, n)


def _linear(tables: _Tables, rows: _Entries, n: int, dims: Any) -> dict[str, Any]:
    """A, b from rows with Az + b = 0; G, h and bounds from rows with Az + b ≥ 0."""
    found: dict[str, Any] = {}
    p, m = dims.zero, dims.nonneg
    if p:
        equal = rows.between(0, p)
        found["A"] = tables.matrix(equal, p, n)
        found["b"] = tables.vector(equal.times(-1.0), n, p)
    # A cone of one row is an inequality too.
    starts = p + m + np.cumsum([0, *dims.soc])[:-1]
    lone = [s for s, size in zip(starts, dims.soc, strict=True) if size == 1]
    pieces = [rows.between(p, p + m), *(rows.between(s, s + 1, m + i) for i, s in enumerate(lone))]
    m += len(lone)
    above = _Entries(
        *(np.concatenate([getattr(e, f.name) for e in pieces]) for f in fields(_Entries))
    )
    above, kept = _take_bounds(tables, above, m, n, found)
    if kept:
        found["G"] = tables.matrix(above.times(-1.0), kept, n)
        found["h"] = tables.vector(above, n, kept)
    return found


def _take_bounds(
    tables: _Tables, rows: _Entries, m: int, n: int, found: dict[str, Any]
) -> tuple[_Entries, int]:
    """Rows a·zⱼ + b ≥ 0 with a number a become bounds in ``found``; the other rows, and how many.

    Only the first bound of a variable's side is one; further ones stay rows.
    """
    matrix = rows.take(rows.column < n)
    single = np.bincount(matrix.row, minlength=m) == 1
    lone = matrix.take(single[matrix.row] & (matrix.parameter == sum(tables.sizes)))
    is_bound = np.zeros(m, dtype=bool)
    # For the rows that are bounds: the variable, and -1/a.
    variable, scale = np.zeros(m, dtype=np.int64), np.zeros(m)
    offsets = rows.take(rows.column == n)
    for name, sign, fill in (("lb", 1, -np.inf), ("ub", -1, np.inf)):
        side = lone.take(np.sign(lone.coefficient) == sign)
        columns, first = np.unique(side.column, return_index=True)
        if not len(columns):
            continue
        chosen = side.row[first]
        variable[chosen], scale[chosen] = columns, -1.0 / side.coefficient[first]
        is_bound[chosen] = True
        base = np.full(n, fill)
        base[columns] = 0.0
        own = offsets.take(np.isin(offsets.row, chosen))
        found[name] = tables.affine(variable[own.row], own.times(scale[own.row]), base)
    number = np.cumsum(~is_bound) - 1
    others = rows.take(~is_bound[rows.row])
    return others.numbered(number[others.row]), int((~is_bound).sum())


def _cones(tables: _Tables, rows: _Entries, n: int, dims: Any) -> Iterator[SecondOrderCone]:
    start = dims.zero + dims.nonneg
    for size in dims.soc:
        top, rest = rows.between(start, start + 1), rows.between(start + 1, start + size)
        start += size
        if size > 1:
            slope = top.take(top.column < n)
            yield SecondOrderCone(
                tables.matrix(rest, size - 1, n),
                tables.vector(rest, n, size - 1),
                tables.affine(slope.column, slope, np.zeros(n)),
                tables.vector(top, n, 1),
            )


def _substitution(
    tables: _Tables,
    rows: _Entries,
    n: int,
    dims: Any,
    auxiliary: np.ndarray,
    arguments: dict[str, Any],
) -> Substitution | None:
    """Which ``auxiliary`` variables (n,) to put in: free, out of cones, in one row, with a number.

    None where there is none or where lifted data are large and sparse, and better left so.
    """
    p = dims.zero
    matrix = rows.take(rows.column < n)
    equal = matrix.between(0, p)
    cones = matrix.between(p + dims.nonneg, p + dims.nonneg + sum(dims.soc))
    free = auxiliary.copy()
    free[cones.column] = False
    for name in ("lb", "ub"):
        if name in arguments:
            free &= np.isinf(arguments[name].base.numpy())
    once = np.bincount(equal.column, minlength=n) == 1
    number = equal.parameter == sum(tables.sizes)
    lone = equal.take(once[equal.column] & free[equal.column] & number)
    chosen, first = np.unique(lone.row, return_index=True)
    gone = lone.column[first]
    kept = np.setdiff1d(np.arange(n), gone)
    small = p * n < _LARGE or len(equal.row) > _DENSITY * p * n
    if not len(gone) or not small or len(kept) > _FORMED:
        return None
    pieces = chosen, np.setdiff1d(np.arange(p), chosen), kept, gone, lone.coefficient[first]
    return Substitution(*map(torch.from_numpy, pieces))
