"""Vectors in products of cones, their Nesterov–Todd scaling, and the Newton system it makes.

A second-order cone's scaling W = η P(w^½) is η times the identity but in the plane of e₀ and the
direction v of w: there it is the hyperbolic rotation by φ. So WᵃX for any power a costs one inner
product, and the cone's part of the Newton system, with rows (r₀, F), is
η⁻²(FᵀF + [r₀ Fᵀv] [[cosh 2φ, −sinh 2φ], [−sinh 2φ, cosh 2φ − 1]] [r₀ Fᵀv]ᵀ).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import linalg

from ...problems.bounds import BoundPlaces
from ...problems.matrices import Array, FactorMatrix

_REGULAR = 1e-13


@dataclass(frozen=True, eq=False)
class ConeVector:
    """A vector: its part in R₊ᵐ, and one array (1 + r,) in each second-order cone."""

    linear: Array
    cones: list[Array]

    def __add__(self, other: ConeVector) -> ConeVector:
        pairs = zip(self.cones, other.cones, strict=True)
        return ConeVector(self.linear + other.linear, [a + b for a, b in pairs])

    def __sub__(self, other: ConeVector) -> ConeVector:
        pairs = zip(self.cones, other.cones, strict=True)
        return ConeVector(self.linear - other.linear, [a - b for a, b in pairs])

    def __neg__(self) -> ConeVector:
        return ConeVector(-self.linear, [-a for a in self.cones])

    def __rmul__(self, number: float) -> ConeVector:
        return ConeVector(number * self.linear, [number * a for a in self.cones])

    def __matmul__(self, other: ConeVector) -> float:
        pairs = zip(self.cones, other.cones, strict=True)
        return float(self.linear @ other.linear) + sum(float(a @ b) for a, b in pairs)

    def largest(self) -> float:
        """Largest absolute entry."""
        return max(float(np.abs(a).max(initial=0.0)) for a in (self.linear, *self.cones))

    def norm(self) -> float:
        """Euclidean length."""
        return float(np.sqrt(self @ self))

    def depth(self) -> float:
        """How far inside the cones it is: the smallest of its spectral values."""
        own = [float(a[0]) - _norm(a[1:]) for a in self.cones]
        return min([float(self.linear.min(initial=np.inf)), *own])

    def reach(self, step: ConeVector) -> float:
        """The longest step that stays inside, possibly infinite."""
        falls = step.linear < 0
        out = np.inf
        if falls.any():
            out = float((self.linear[falls] / -step.linear[falls]).min())
        for a, d in zip(self.cones, step.cones, strict=True):
            size, length = _norm(a[1:]), _norm(d[1:])
            first = (d[0] - length) * (d[0] + length)
            half = a[0] * d[0] - a[1:] @ d[1:]
            last = (a[0] - size) * (a[0] + size)
            root = half * half - first * last
            if root >= 0:
                below = np.sqrt(root) - half
                if below > 0:
                    out = min(out, max(float(last), 0.0) / float(below))
        return out

    def jordan(self, other: ConeVector) -> ConeVector:
        """The Jordan product."""
        cones = []
        for a, b in zip(self.cones, other.cones, strict=True):
            c = a[0] * b + b[0] * a
            c[0] = a @ b
            cones.append(c)
        return ConeVector(self.linear * other.linear, cones)

    def divide(self, other: ConeVector) -> ConeVector:
        """x with self ∘ x = other."""
        cones = []
        for a, b in zip(self.cones, other.cones, strict=True):
            size = _norm(a[1:])
            first = (a[0] * b[0] - a[1:] @ b[1:]) / ((a[0] - size) * (a[0] + size))
            c = (b - first * a) / a[0]
            c[0] = first
            cones.append(c)
        return ConeVector(other.linear / self.linear, cones)


@dataclass(frozen=True, eq=False)
class ConeScaling:
    """W with W y = W⁻¹ s: of the linear part √(s/y), of a cone (η, φ, v)."""

    linear: Array
    cones: list[tuple[float, float, Array]]

    def times(self, a: ConeVector) -> ConeVector:
        """W a."""
        pairs = zip(a.cones, self.cones, strict=True)
        return ConeVector(
            self.linear * a.linear, [_turn(b, eta, phi, v) for b, (eta, phi, v) in pairs]
        )

    def over(self, a: ConeVector) -> ConeVector:
        """W⁻¹ a."""
        pairs = zip(a.cones, self.cones, strict=True)
        cones = [_turn(b, 1 / eta, -phi, v) for b, (eta, phi, v) in pairs]
        return ConeVector(a.linear / self.linear, cones)


def _turn(a: Array, factor: float, angle: float, v: Array) -> Array:
    first, along = float(a[0]), float(v @ a[1:])
    c, h = np.cosh(angle), np.sinh(angle)
    out = np.empty_like(a)
    out[0] = c * first + h * along
    np.multiply(v, h * first + (c - 1.0) * along, out=out[1:])
    out[1:] += a[1:]
    out *= factor
    return out


def nesterov_todd(s: ConeVector, y: ConeVector) -> ConeScaling:
    """The Nesterov–Todd scaling of two vectors inside the cones.

    Raises
    ------
    numpy.linalg.LinAlgError
        A vector is on the boundary of a cone, or outside.
    """
    cones = []
    for a, b in zip(s.cones, y.cones, strict=True):
        det_a, det_b = _det(a), _det(b)
        if not (det_a > 0 and det_b > 0):
            raise np.linalg.LinAlgError
        a, b = a / np.sqrt(det_a), b / np.sqrt(det_b)
        inner = float(a @ b)
        if not inner > 0:  # at least 1, but for rounding next to the boundary
            raise np.linalg.LinAlgError
        gamma = np.sqrt(2.0 * (1.0 + inner))
        w = (a[1:] - b[1:]) / gamma
        size = _norm(w)
        v = w / size if size > 0 else w
        cones.append(((det_a / det_b) ** 0.25, float(np.arcsinh(size)), v))
    if not (s.linear > 0).all() or not (y.linear > 0).all():
        raise np.linalg.LinAlgError
    return ConeScaling(np.sqrt(s.linear / y.linear), cones)


@dataclass(frozen=True, eq=False)
class ConeBlock:
    """The rows of one cone: ``head`` (width,) for s₀ and F, or ``unit`` I, for the others.

    ``single`` tells a head cᵀz from a variable of its own.
    """

    head: Array
    F: Array | None
    unit: float
    n: int
    single: bool
    headed: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "headed", bool(self.head.any()))

    @property
    def r(self) -> int:
        """Length of Fz."""
        return self.n if self.F is None else len(self.F)

    def push(self, x: Array) -> Array:
        """The rows times x."""
        out = np.empty(self.r + 1)
        out[0] = self.head @ x if self.headed else 0.0
        out[1:] = self.unit * x[: self.n] if self.F is None else self.F @ x[: self.n]
        return out

    def pull(self, y: Array, out: Array) -> None:
        """Add the transposed rows times y."""
        if self.headed:
            out += y[0] * self.head
        out[: self.n] += self.unit * y[1:] if self.F is None else y[1:] @ self.F


class NewtonSystem:
    """[H Aᵀ; A 0] with H = P + pushᵀ W⁻² push, factorised anew for every scaling.

    H is diagonal plus low rank where that saves work: then only a matrix of the size of the rank
    is factorised.
    """

    def __init__(
        self, P: Any, A: Array, L: Array, bounds: BoundPlaces, cones: tuple[ConeBlock, ...]
    ) -> None:
        self.P, self.A, self.L, self.cones = P, A, L, cones
        self.lower, self.upper = bounds.lower, bounds.upper
        width = A.shape[1]
        self.low = False
        if isinstance(P, FactorMatrix):
            rank = P.B.shape[1] + len(A) + len(L)
            rank += sum(2 + (0 if c.F is None else c.r) for c in cones)
            curved = P.d > 0
            for cone in cones:
                if cone.F is None:
                    curved[: cone.n] = True
                if not cone.single:
                    curved |= cone.head != 0
            self.low = bool(curved.all()) and 2 * rank <= width
            if not self.low:
                self.P = P.B @ P.B.T
                self.P[np.diag_indices(width)] += P.d
        if not self.low:
            self.squares = [None if c.F is None else c.F.T @ c.F for c in cones]

    def factor(self, W: ConeScaling | None) -> None:
        """Factorise for W; None is the identity."""
        m, k = len(self.L), len(self.L) + len(self.lower)
        if W is None:
            weights = np.ones(k + len(self.upper))
            W = ConeScaling(weights, [(1.0, 0.0, np.zeros(c.r)) for c in self.cones])
        weights = W.linear**-2.0
        width = self.A.shape[1]
        d = self.P.d.copy() if self.low else np.zeros(width)
        d[self.lower] += weights[m:k]
        d[self.upper] += weights[k:]
        columns, signs = [], []
        for cone, (eta, phi, v) in zip(self.cones, W.cones, strict=True):
            bend = eta**-2.0
            if cone.F is None:
                d[: cone.n] += bend * cone.unit**2
            c, h = np.cosh(2 * phi), np.sinh(2 * phi)
            if not cone.single:
                d += bend * cone.head
            own = np.zeros((2, width))
            own[0] = cone.head
            own[1, : cone.n] = cone.unit * v if cone.F is None else v @ cone.F
            if not cone.headed:
                columns.append(own[1:])
                signs.append(np.array([bend * (c - 1.0)]))
            else:
                first = c if cone.single else c - 1.0
                values, vectors = np.linalg.eigh(np.array([[first, -h], [-h, c - 1.0]]))
                columns.append(vectors.T @ own)
                signs.append(bend * values)
        (self._low if self.low else self._dense)(W, weights[:m], d, columns, signs)

    def _low(
        self, W: ConeScaling, weights: Array, d: Array, columns: list[Array], signs: list[Array]
    ) -> None:
        if len(weights):
            columns.append(self.L)
            signs.append(weights)
        if self.P.B.shape[1]:
            columns.append(self.P.B.T)
            signs.append(np.ones(self.P.B.shape[1]))
        for cone, (eta, _, _) in zip(self.cones, W.cones, strict=True):
            if cone.F is not None:
                columns.append(wide(cone.F, len(d)))
                signs.append(np.full(cone.r, eta**-2.0))
        s = np.concatenate(signs) if signs else np.zeros(0)
        V = np.concatenate([*columns, self.A])
        V[: len(s)] *= np.sqrt(np.abs(s))[:, None]
        self.d, self.V, self.rank = d, V, len(s)
        self.weighted = V / d
        M = self.weighted @ V.T
        M[np.arange(len(s)), np.arange(len(s))] += np.where(s < 0, -1.0, 1.0)
        self.lu, self.pivots, info = linalg.lapack.dgetrf(M)
        if info:
            raise np.linalg.LinAlgError

    def _dense(
        self, W: ConeScaling, weights: Array, d: Array, columns: list[Array], signs: list[Array]
    ) -> None:
        H = self.P + (self.L.T * weights) @ self.L
        for cone, square, (eta, _, _) in zip(self.cones, self.squares, W.cones, strict=True):
            if square is not None:
                H[: cone.n, : cone.n] += square * eta**-2.0
        if columns:
            U = np.concatenate(columns)
            H += (U.T * np.concatenate(signs)) @ U
        H[np.diag_indices_from(H)] += d + _REGULAR * max(1.0, float(np.abs(H).max()))
        self.H = linalg.cho_factor(H, lower=True, check_finite=False)
        if len(self.A):
            self.AH = linalg.cho_solve(self.H, self.A.T, check_finite=False)
            M = self.A @ self.AH
            M[np.diag_indices_from(M)] += _REGULAR * max(1.0, float(np.abs(M).max()))
            self.schur = linalg.cho_factor(M, lower=True, check_finite=False)

    def solve(self, a: Array, b: Array) -> tuple[Array, Array]:
        """x, ν with Hx + Aᵀν = a and Ax = b."""
        if not self.low:
            x = linalg.cho_solve(self.H, a, check_finite=False)
            if not len(b):
                return x, b
            nu = linalg.cho_solve(self.schur, self.A @ x - b, check_finite=False)
            return x - self.AH @ nu, nu
        rhs = self.weighted @ a
        rhs[self.rank :] -= b
        y, _ = linalg.lapack.dgetrs(self.lu, self.pivots, rhs)
        return (a - y @ self.V) / self.d, y[self.rank :]


def wide(rows: Array, width: int) -> Array:
    """``rows`` with zeros for further variables, up to ``width`` of them."""
    out = np.zeros((len(rows), width))
    out[:, : rows.shape[1]] = rows
    return out


def _norm(a: Array) -> float:
    return float(np.sqrt(a @ a))


def _det(a: Array) -> float:
    size = _norm(a[1:])
    return float((a[0] - size) * (a[0] + size))
