"""One convex quadratic program: its data as float64 arrays, checked once, and their scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse

from ..errors import ProblemError
from .matrices import (
    Array,
    FactorMatrix,
    Matrix,
    column_sizes,
    is_positive_semidefinite,
    is_sparse,
    largest,
    row_norms,
    row_sizes,
    scale_rows,
    to_diagonal,
)

_SYMMETRY = 1e-6
# Residuals are measured in one unit of z and one of its gradient, to ten digits: of variables whose
# own units differ by more than this they say nothing.
_MIXED = 3e-8

# Trailing shape of every argument; each letter must have one size throughout.
_SHAPES: dict[str, tuple[str, ...]] = {
    "P": ("n", "n"),
    "q": ("n",),
    "A": ("p", "n"),
    "b": ("p",),
    "G": ("m", "n"),
    "h": ("m",),
    "lb": ("n",),
    "ub": ("n",),
}
ARGUMENTS = tuple(_SHAPES)


def check_shapes(shapes: Mapping[str, tuple[int, ...] | None]) -> tuple[int, int, int]:
    """Sizes (n, p, m) of a problem whose arguments have these shapes, leading batch dims allowed.

    ``None`` marks an absent argument. Raises :class:`ProblemError` for an argument whose trailing
    shape does not fit, and for A without b, b without A, and the same for G and h.
    """
    for name in ("P", "q"):
        if shapes.get(name) is None:
            raise ProblemError(f"{name}: missing; P and q are required (zeros for no such term).")
    for matrix, vector in (("A", "b"), ("G", "h")):
        absent = [name for name in (matrix, vector) if shapes.get(name) is None]
        if len(absent) == 1:
            raise ProblemError(f"{absent[0]}: missing; give both {matrix} and {vector}, or none.")
    sizes: dict[str, int] = {}
    for name in ("q", *(a for a in ARGUMENTS if a != "q")):
        shape = shapes.get(name)
        if shape is None:
            continue
        letters = _SHAPES[name]
        trailing = tuple(shape[-len(letters) :])
        if len(trailing) == len(letters):
            for letter, size in zip(letters, trailing, strict=True):
                sizes.setdefault(letter, size)
        expected = tuple(sizes.get(letter, letter) for letter in letters)
        if trailing != expected:
            wanted = ", ".join(map(str, expected))
            raise ProblemError(
                f"{name}: expected shape (..., {wanted}), that is ({', '.join(letters)}) after "
                f"any batch dimensions, got {tuple(shape)}."
            )
    if sizes["n"] == 0:
        raise ProblemError("q: expected at least one variable, got shape (..., 0).")
    return sizes["n"], sizes.get("p", 0), sizes.get("m", 0)


def _to_array(name: str, value: Any) -> Matrix:
    if isinstance(value, FactorMatrix):
        return FactorMatrix(_to_array(f"{name}'s B", value.B), _to_array(f"{name}'s d", value.d))
    if sparse.issparse(value):
        matrix = sparse.csr_array(value, dtype=np.float64)
        matrix.sum_duplicates()
        return matrix
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", torch.float64).numpy()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ProblemError(f"{name}: expected real numbers, got {type(value).__name__}.") from None
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _refuse_infinite(name: str, value: Matrix) -> None:
    if isinstance(value, FactorMatrix):
        _refuse_infinite(f"{name}'s B", value.B)
        _refuse_infinite(f"{name}'s d", value.d)
        return
    entries = value.data if is_sparse(value) else value
    # A sum is finite unless an entry is not, or it overflows: much the cheaper test.
    if not np.isfinite(entries.sum()):
        _refuse_entry(name, entries, ~np.isfinite(entries), "a finite number")


def _refuse_entry(name: str, value: Array, bad: Array, expected: str) -> None:
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = index[0] if len(index) == 1 else index
        raise ProblemError(f"{name}: entry {place} is {value[index]}, expected {expected}.")


@cache
def _absent(n: int) -> dict[str, Array]:
    """The fields of absent arguments, shared by all problems of ``n`` variables."""
    fields = {
        "A": np.zeros((0, n)),
        "b": np.zeros(0),
        "G": np.zeros((0, n)),
        "h": np.zeros(0),
        "lb": np.full(n, -np.inf),
        "ub": np.full(n, np.inf),
    }
    for value in fields.values():
        value.flags.writeable = False
    return fields


def all_sound(name: str, stack: Array) -> bool:
    """Whether :func:`check_argument` would pass every item of a dense ``stack`` as it is."""
    if name in ("lb", "ub") or not np.isfinite(stack.sum()):
        return False
    return name != "P" or np.array_equal(stack, stack.swapaxes(-1, -2))


def check_argument(name: str, value: Matrix) -> Matrix:
    """One problem's argument, refused for entries it may not have; P comes back symmetrised.

    Raises
    ------
    ProblemError
        NaN or infinity (h and bounds may be infinite on their side), P not symmetric, negative d.
    """
    if name == "lb":
        _refuse_entry(name, value, np.isnan(value) | (value == np.inf), "a number or -inf")
    elif name == "ub":
        _refuse_entry(name, value, np.isnan(value) | (value == -np.inf), "a number or inf")
    elif name == "h":
        _refuse_entry(name, value, ~(value > -np.inf), "a number or inf")
    else:
        _refuse_infinite(name, value)
    if name == "P":
        if isinstance(value, FactorMatrix):
            _refuse_entry("P's d", value.d, value.d < 0, "at least 0")
        else:
            value = _symmetric(value)
    return value


@dataclass(frozen=True, eq=False)
class QP:
    """min ½ zᵀPz + qᵀz  subject to  Az = b,  Gz ≤ h,  lb ≤ z ≤ ub.

    Parameters
    ----------
    P : (n, n) symmetric positive semidefinite; q : (n,).
    A : (p, n), b : (p,), G : (m, n), h : (m,), lb, ub : (n,). Each may be None. Bounds may be
        infinite, and h plus infinity where a row has no limit; nothing else.

    Numpy arrays, torch tensors of any device and dtype, or nested lists are accepted; P, A and G
    may be scipy sparse, and P a :class:`~bpqp_portfolio.problems.matrices.FactorMatrix`.
    Afterwards every field is a float64 array, a ``csr_array`` or that FactorMatrix: an absent
    constraint has zero rows, an absent bound is infinite, and a row without a limit is zero with a
    finite h; ``unlimited`` (m,) says which those are, None where there are none. P is symmetrised
    when it is symmetric up to rounding (1e-6 of its largest entry).
    Positive semidefiniteness is not checked here: ``convex`` is what a solver asks before it says
    that it solved.

    Raises
    ------
    ProblemError
        Names the argument: wrong shape, NaN or infinity, lb > ub, P not symmetric.

    Examples
    --------
    >>> problem = QP([[2.0, 0.0], [0.0, 1.0]], [0.0, -1.0], A=[[1.0, 1.0]], b=[1.0], lb=[0.0, 0.0])
    >>> problem.n, problem.p, problem.m, problem.bounded
    (2, 1, 0, True)
    >>> problem.objective([0.0, 1.0])
    -0.5
    """

    P: Any
    q: Any
    A: Any = None
    b: Any = None
    G: Any = None
    h: Any = None
    lb: Any = None
    ub: Any = None
    unlimited: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        given = {k: v for k in ARGUMENTS if (v := getattr(self, k)) is not None}
        given = {k: _to_array(k, v) for k, v in given.items()}
        n, _, _ = check_shapes({k: v.shape for k, v in given.items()})
        for name, value in given.items():
            if len(value.shape) != len(_SHAPES[name]):
                raise ProblemError(
                    f"{name}: one problem has no batch dimensions, got shape {value.shape}."
                )
        self._fill(n, {k: check_argument(k, v) for k, v in given.items()})

    @classmethod
    def of_checked(cls, n: int, arguments: Mapping[str, Any]) -> QP:
        """A QP of arguments that :func:`check_shapes` and :func:`check_argument` have passed."""
        problem = object.__new__(cls)
        problem._fill(n, arguments)
        return problem

    def _fill(self, n: int, given: Mapping[str, Any]) -> None:
        """Set every field, absent ones to their defaults."""
        fields = {**_absent(n), **given}
        lb, ub, h = fields["lb"], fields["ub"], fields["h"]
        self.__dict__.update(fields, unlimited=None)
        if len(h) and h.max() == np.inf:
            self._lift_limits(h == np.inf)
        if "lb" not in given and "ub" not in given:
            self.__dict__["bounded"] = False
        elif (lb > ub).any():
            _refuse_entry("lb", lb, lb > ub, "at most ub there")

    def _lift_limits(self, unlimited: Array) -> None:
        """Make rows without a limit 0ᵀz ≤ the unit of z, which is never near."""
        G, h = self.G, np.where(unlimited, 1.0, self.h)
        G = scale_rows(G, np.where(unlimited, 0.0, 1.0))
        self.__dict__.update(G=G, h=h, unlimited=unlimited)
        h[unlimited] = self.scaling.length

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.q)

    @property
    def p(self) -> int:
        """Number of equalities."""
        return len(self.b)

    @property
    def m(self) -> int:
        """Number of inequality rows, bounds not counted."""
        return len(self.h)

    def bounds_pattern(self) -> bytes:
        """Which bounds are finite and which are equal: it decides a solver's set of rows."""
        lb, ub = self.lb, self.ub
        return np.stack([np.isfinite(lb), np.isfinite(ub), lb == ub]).tobytes()

    @cached_property
    def bounded(self) -> bool:
        """Whether any bound is finite."""
        return bool(np.isfinite(self.lb).any() or np.isfinite(self.ub).any())

    @property
    def kkt_entries(self) -> int:
        """Entries of the dense KKT matrix, its bounds being rows."""
        return (self.n + self.p + self.m + (self.n if self.bounded else 0)) ** 2

    @cached_property
    def scaling(self) -> Scaling:
        """The problem's units."""
        return Scaling.of(self)

    @cached_property
    def convex(self) -> bool:
        """Whether P is positive semidefinite, up to rounding."""
        return is_positive_semidefinite(self.P)

    @cached_property
    def mixed(self) -> bool:
        """Whether the units of single variables differ by more than a norm of z can see.

        A variable's unit is read from the square root of its diagonal entry of P and from its
        entries in A and G, rows and P at unit size.
        """
        scaling = self.scaling
        diagonal = to_diagonal(self.P) / (scaling.curvature or 1.0)
        sizes = np.sqrt(np.maximum(diagonal, 0.0))
        for rows, units in ((self.A, scaling.rows_A), (self.G, scaling.rows_G)):
            if len(units):
                sizes = np.maximum(sizes, column_sizes(scale_rows(rows, 1.0 / units)))
        sizes = sizes[sizes > 0.0]
        return bool(len(sizes)) and bool(sizes.min() < _MIXED * sizes.max())

    def objective(self, z: Array) -> float:
        """½ zᵀPz + qᵀz."""
        z = np.asarray(z)
        return float(0.5 * z @ (self.P @ z) + self.q @ z)


def _symmetric(P: Matrix) -> Matrix:
    """P, or ½(P + Pᵀ) where P differs from Pᵀ by rounding; a larger difference is refused."""
    if not is_sparse(P) and np.array_equal(P, P.T):
        return P
    gap = P - P.T
    if largest(gap) == 0.0:
        return P
    if largest(gap) > _SYMMETRY * largest(P):
        gap = abs(gap)
        i, j = (int(k) for k in np.unravel_index(gap.argmax(), gap.shape))
        raise ProblemError(
            f"P: not symmetric, entry ({i}, {j}) is {P[i, j]:g} and entry ({j}, {i}) is "
            f"{P[j, i]:g}; pass 0.5 * (P + P.T)."
        )
    half = 0.5 * (P + P.T)
    return sparse.csr_array(half) if is_sparse(half) else half


@dataclass(frozen=True, eq=False)
class Scaling:
    """Positive units that make a problem's measures free of scale.

    Whatever units z, the objective and each row are given in, the problem with x = z / ``length``,
    the objective divided by ``gradient`` · ``length`` and the rows by ``rows_A`` (p,) and
    ``rows_G`` (m,), their largest entries, is the same up to rounding. Duals come back by
    ``nu * gradient / rows_A``.

    ``curvature`` is max |P| and ``slope`` max |q|. ``length`` is the size of z that the data
    imply (:func:`_data_length`); ``gradient`` the larger of curvature · length and slope. All units
    are 1 where they would be 0.
    """

    curvature: Any
    slope: Any
    length: Any
    gradient: Any
    rows_A: Array
    rows_G: Array

    @classmethod
    def of(cls, problem: QP, least: float = 0.0, reach: Array = np.zeros(0)) -> Scaling:  # noqa: B008
        """The units of ``problem``; ``least`` and ``reach`` (any length) are lengths of cones."""
        curvature, slope = largest(problem.P), largest(problem.q)
        length = _data_length(problem, curvature, slope, least, reach)
        gradient = max(curvature * length, slope) or 1.0
        rows = row_sizes(problem.A), row_sizes(problem.G)
        return cls(curvature, slope, length, gradient, *rows)


def _data_length(problem: QP, curvature: float, slope: float, least: float, reach: Array) -> float:
    """The size of z that the data imply; multiplied by c where z, b, h and bounds are.

    No feasible z is shorter than ``least``. Where 0 is feasible z goes as far as q pushes it
    against P, or as far as inequalities let it: to the farthest of them, or without P to the median
    one, since a few may be stand-ins for infinity.
    """
    lb, ub = problem.lb, problem.ub
    limits = [reach]
    if problem.p:
        least = max(least, float((np.abs(problem.b) / row_norms(problem.A)).max()))
    if problem.m:
        distance = problem.h / row_norms(problem.G)
        if problem.unlimited is not None:
            distance = distance[~problem.unlimited]
        least = max(least, float(-distance.min(initial=0.0)))
        limits.append(np.abs(distance))
    if problem.bounded:
        least = max(least, float(lb.max()), float(-ub.min()))
        limits += [np.abs(lb), np.abs(ub)]
    reach = np.concatenate(limits)
    reach = reach[(reach > 0.0) & (reach < np.inf)]
    if slope and curvature:
        size = min(slope / curvature, float(reach.max(initial=0.0)) or np.inf)
    else:
        size = float(np.median(reach)) if len(reach) else 0.0
    return max(least, size) or 1.0
