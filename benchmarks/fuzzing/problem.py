"""A fuzzed problem whose solution is known by construction, and its exact gradient.

Every problem is made backwards: the solution z, the active set and its multipliers are drawn, then
q and the right-hand sides follow from the KKT conditions. So the answer owes nothing to a solver.
All is in natural units, where data, z and multipliers are of size 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray
Random = np.random.Generator

SOLVED, PRIMAL, DUAL, REFUSED = "solved", "primal infeasible", "dual infeasible", "refused"
_RANK = 1e-9


@dataclass(frozen=True)
class Cone:
    """‖Fz + g‖ ≤ cᵀz + d with its multiplier at the solution: τ, and w (r,) for one at its apex."""

    F: Array | None
    g: Array
    c: Array
    d: float
    tau: float = 0.0
    w: Array | None = None

    def matrix(self, n: int) -> Array:
        return np.eye(n) if self.F is None else self.F


@dataclass(frozen=True)
class Problem:
    """min ½zᵀPz + qᵀz, Az = b, Gz ≤ h, lb ≤ z ≤ ub, cones; with what is known of its answer.

    ``B``, ``d`` are P's factors where it has some. ``expect`` says how a solve should end,
    ``unique`` whether z is the only solution, ``smooth`` the arguments in which z is
    differentiable.
    ``precise`` problems do not bear float32 rounding. Errors of z are relative to ``unit``, to
    its largest entry where that is 0. ``lam`` (m,), ``lower``, ``upper`` (n,) are
    multipliers; an active row is one whose multiplier is positive or that ``active`` names.
    """

    P: Array
    q: Array
    A: Array
    b: Array
    G: Array
    h: Array
    lb: Array
    ub: Array
    z: Array
    nu: Array
    lam: Array
    lower: Array
    upper: Array
    active: Array
    cones: tuple[Cone, ...] = ()
    B: Array | None = None
    d: Array | None = None
    expect: str = SOLVED
    unique: bool = True
    smooth: frozenset[str] = frozenset()
    precise: bool = False
    ridge: float = 0.0
    unit: float = 0.0

    @property
    def n(self) -> int:
        return len(self.q)

    @property
    def bounded(self) -> bool:
        return bool(np.isfinite(self.lb).any() or np.isfinite(self.ub).any())

    @cached_property
    def curvature(self) -> Array:
        """The Hessian of the Lagrangian (n, n)."""
        H = self.P + 2 * self.ridge * np.eye(self.n)
        for cone in self.cones:
            if cone.tau > 0 and cone.w is None:
                F = cone.matrix(self.n)
                u, t = _normal(F @ self.z + cone.g)
                H = H + cone.tau / t * F.T @ (np.eye(len(u)) - np.outer(u, u)) @ F
        return H

    @cached_property
    def normals(self) -> list[tuple[str, int, Array]]:
        """(argument, index, row) of every active constraint."""
        rows = [("A", i, row) for i, row in enumerate(self.A)]
        rows += [("G", i, self.G[i]) for i in np.flatnonzero(self.active)]
        eye = np.eye(self.n)
        fixed = self.lb == self.ub
        rows += [("lb", i, -eye[i]) for i in np.flatnonzero((self.lower > 0) & ~fixed)]
        rows += [("ub", i, eye[i]) for i in np.flatnonzero((self.upper > 0) | fixed)]
        for i, cone in enumerate(self.cones):
            F = cone.matrix(self.n)
            if cone.w is not None:
                rows += [(f"apex{i}", j, row) for j, row in enumerate(F)]
                rows.append((f"head{i}", 0, -cone.c))
            elif cone.tau > 0:
                rows.append((f"cone{i}", 0, F.T @ _normal(F @ self.z + cone.g)[0] - cone.c))
        return rows

    @cached_property
    def _kkt(self) -> tuple[Array, Array]:
        """Symmetric KKT matrix with unit rows and curvature, and the rows' lengths."""
        C = np.array([row for _, _, row in self.normals]).reshape(-1, self.n)
        lengths = np.linalg.norm(C, axis=1)
        lengths[lengths == 0] = 1.0
        C = C / lengths[:, None]
        k = len(C)
        return np.block([[self.curvature, C.T], [C, np.zeros((k, k))]]), lengths

    @cached_property
    def condition(self) -> float:
        """1 / the smallest singular value of the KKT matrix that is not 0, at least 1."""
        values = np.linalg.svd(self._kkt[0], compute_uv=False)
        return float(max(1.0, 1.0 / values[values > _RANK * values[0]].min(initial=1.0)))

    @property
    def regular(self) -> bool:
        """Whether the KKT matrix is well away from singular: one solution, one set of duals."""
        values = np.linalg.svd(self._kkt[0], compute_uv=False)
        return bool(values.min(initial=1.0) > 1e-3)

    def backward(self, w: Array) -> tuple[Array, dict[tuple[str, int], float], float]:
        """z̃, the adjoints by constraint and their largest size, row lengths 1, for a loss wᵀz."""
        K, lengths = self._kkt
        rhs = np.concatenate([-w, np.zeros(len(lengths))])
        found = np.linalg.lstsq(K, rhs, rcond=_RANK)[0]
        y = found[self.n :]
        adjoint = {
            (name, i): float(v) for (name, i, _), v in zip(self.normals, y / lengths, strict=True)
        }
        return found[: self.n], adjoint, float(np.abs(y).max(initial=0.0))

    def one_sided(self, w: Array) -> float:
        """The largest derivative of wᵀz in the side of one active row, its length 1.

        Where rows are redundant, that row is held with as many others as are independent of it.
        """
        z, _, largest = self.backward(w)
        pull = -(w + self.curvature @ z)
        C = self._kkt[0][self.n :, : self.n]
        if np.linalg.matrix_rank(C, tol=_RANK) == len(C):
            return largest
        for i in range(len(C)):
            basis: list[Array] = []
            for row in (C[i], *C[:i], *C[i + 1 :]):
                rest = row - sum(((row @ b) * b for b in _unit(basis)), np.zeros(self.n))
                if np.linalg.norm(rest) > 1e-6:
                    basis.append(row)
            y = np.linalg.lstsq(np.array(basis).T, pull, rcond=None)[0]
            largest = max(largest, abs(float(y[0])))
        return largest

    def gradients(self, w: Array) -> dict[str, Array]:
        """Exact gradients of wᵀz in the arguments of ``smooth``, by name (cones: "0.F", ...)."""
        z, at, _ = self.backward(w)
        n = self.n

        def adjoint(name: str, count: int) -> Array:
            return np.array([at.get((name, i), 0.0) for i in range(count)])

        nu, lam = adjoint("A", len(self.b)), adjoint("G", len(self.h))
        out = {
            "P": 0.5 * (np.outer(z, self.z) + np.outer(self.z, z)),
            "q": z,
            "A": np.outer(nu, self.z) + np.outer(self.nu, z),
            "b": -nu,
            "G": np.outer(lam, self.z) + np.outer(self.lam, z),
            "h": -lam,
            "lb": adjoint("lb", n),
            "ub": -adjoint("ub", n),
        }
        if self.B is not None and self.d is not None:
            out["B"] = np.outer(z, self.z @ self.B) + np.outer(self.z, z @ self.B)
            out["d"] = z * self.z
        for i, cone in enumerate(self.cones):
            F = cone.matrix(n)
            if cone.w is not None:
                v, head = adjoint(f"apex{i}", len(F)), at[f"head{i}", 0]
                w_dual = cone.w
            elif cone.tau > 0:
                u, t = _normal(F @ self.z + cone.g)
                head = at[f"cone{i}", 0]
                push = F @ z
                v = head * u + cone.tau / t * (push - u * (u @ push))
                w_dual = cone.tau * u
            else:
                v, head, w_dual = np.zeros(len(F)), 0.0, np.zeros(len(F))
            out[f"{i}.F"] = np.outer(v, self.z) + np.outer(w_dual, z)
            out[f"{i}.g"], out[f"{i}.d"] = v, np.array(-head)
            out[f"{i}.c"] = -cone.tau * z - head * self.z
        return {name: value for name, value in out.items() if name.split(".")[-1] in self.smooth}

    def moved(self, by: Array) -> Problem:
        """The same problem with all constraints moved by ``by`` (n,): its solution is z + by."""
        return replace(
            self,
            q=self.q - (self.P + 2 * self.ridge * np.eye(self.n)) @ by,
            b=self.b + self.A @ by,
            h=self.h + self.G @ by,
            lb=self.lb + by,
            ub=self.ub + by,
            z=self.z + by,
            cones=tuple(
                replace(c, g=c.g - c.matrix(self.n) @ by, d=c.d - float(c.c @ by))
                for c in self.cones
            ),
        )

    def objective(self, z: Array) -> float:
        return float(0.5 * z @ (self.P @ z) + self.q @ z + self.ridge * z @ z)

    def objective_size(self, z: Array) -> float:
        """The sum of the sizes of the objective's terms at z: what its rounding is relative to."""
        size = np.abs(z)
        P = np.abs(self.P) + 2 * self.ridge * np.eye(self.n)
        return float(0.5 * size @ P @ size + np.abs(self.q) @ size)

    def violation(self, z: Array) -> float:
        """The largest violation of a constraint at z, rows of length 1."""
        worst = [0.0]
        if len(self.b):
            worst.append(float((np.abs(self.A @ z - self.b) / _lengths(self.A)).max()))
        if len(self.h):
            worst.append(float(((self.G @ z - self.h) / _lengths(self.G)).max()))
        worst += [float((self.lb - z).max()), float((z - self.ub).max())]
        for cone in self.cones:
            F = cone.matrix(self.n)
            size = np.linalg.norm(F, 2) + np.linalg.norm(cone.c)
            worst.append(float(np.linalg.norm(F @ z + cone.g) - cone.c @ z - cone.d) / size)
        return max(worst)


def _normal(v: Array) -> tuple[Array, float]:
    t = float(np.linalg.norm(v))
    return v / t, t


def _unit(rows: list[Array]) -> list[Array]:
    """An orthonormal basis of independent ``rows``."""
    return list(np.linalg.qr(np.array(rows).T)[0].T) if rows else []


def _lengths(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1)
    return np.where(lengths > 0, lengths, 1.0)


ALL = frozenset({"P", "q", "A", "b", "G", "h", "lb", "ub", "B", "d", "F", "g", "c"})


def known(
    rng: Random,
    P: Array,
    z: Array,
    *,
    A: Array | None = None,
    G: Array | None = None,
    active: int = 0,
    lower: int = 0,
    upper: int = 0,
    others: float = 0.0,
    cones: tuple[Cone, ...] = (),
    duals: tuple[float, float] = (0.1, 2.0),
    slacks: tuple[float, float] = (0.1, 2.0),
    smooth: frozenset[str] = ALL,
    ridge: float = 0.0,
    **more: Any,
) -> Problem:
    """The problem that z solves with the first ``active`` rows of G active, and so many bounds.

    Multipliers and slacks are log-uniform in ``duals`` and ``slacks``; ``others`` is the share of
    the remaining coordinates that have (inactive) bounds.
    """
    n = len(z)
    A = np.zeros((0, n)) if A is None else A
    G = np.zeros((0, n)) if G is None else G
    nu = rng.normal(size=len(A))
    mask = np.arange(len(G)) < active
    lam = np.where(mask, spread(rng, duals, len(G)), 0.0)
    order = rng.permutation(n)
    low, high = order[:lower], order[lower : lower + upper]
    lam_lb, lam_ub = np.zeros(n), np.zeros(n)
    lam_lb[low], lam_ub[high] = spread(rng, duals, lower), spread(rng, duals, upper)
    lb = np.where(rng.random(n) < others, z - spread(rng, slacks, n), -np.inf)
    ub = np.where(rng.random(n) < others, z + spread(rng, slacks, n), np.inf)
    lb[low], ub[high] = z[low], z[high]
    lb[high] = np.minimum(lb[high], z[high] - slacks[1])
    ub[low] = np.maximum(ub[low], z[low] + slacks[1])
    h = G @ z + np.where(mask, 0.0, spread(rng, slacks, len(G)))
    pull = np.zeros(n)
    for cone in cones:
        F = cone.matrix(n)
        if cone.w is not None:
            pull += F.T @ cone.w - cone.tau * cone.c
        elif cone.tau > 0:
            pull += cone.tau * (F.T @ _normal(F @ z + cone.g)[0] - cone.c)
    q = -(P @ z + 2 * ridge * z + A.T @ nu + G.T @ lam - lam_lb + lam_ub + pull)
    return Problem(
        P, q, A, A @ z, G, h, lb, ub, z, nu, lam, lam_lb, lam_ub, mask, cones,
        smooth=smooth, ridge=ridge, **more,
    )  # fmt: skip


def spread(rng: Random, limits: tuple[float, float], count: int) -> Array:
    """Log-uniform numbers (count,) within ``limits``."""
    return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), count))


def well(make: Callable[[], Problem], most: float = 1000.0) -> Problem:
    """A draw of ``make`` whose condition is at most ``most``."""
    for _ in range(1000):
        problem = make()
        if problem.condition <= most:
            return problem
    raise RuntimeError("no well-conditioned problem in 1000 draws")


def orthogonal(rng: Random, n: int) -> Array:
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def semidefinite(rng: Random, n: int, rank: int) -> Array:
    """P (n, n) of this rank, eigenvalues in 0.3 to 3."""
    Q = orthogonal(rng, n)[:, :rank]
    P = (Q * spread(rng, (0.3, 3.0), rank)) @ Q.T
    return 0.5 * (P + P.T)


def size(rng: Random, least: int = 2, most: int = 12) -> int:
    """A number of variables: small, one in 25 up to 40."""
    return int(rng.integers(least, 41 if rng.random() < 0.04 else most + 1))
