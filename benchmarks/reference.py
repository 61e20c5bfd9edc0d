"""Exact gradients to compare with: by a method of their own, certified, not by any competitor.

A strictly convex QP seen from its inequality duals is the linear complementarity problem
s = w + Mλ ≥ 0, λ ≥ 0, λᵀs = 0 with M = G N Gᵀ. Block principal pivoting finds its active rows,
HiGHS those of an LP in a box. The full KKT system on them is then solved by LU in float64 with
residuals in extended precision, which leaves an error of some 1e-16. The result is accepted only if
every active dual and every inactive slack is positive: then it is the solution, and the gradient
1ᵀ∂z* is one more solve.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import lu_factor, lu_solve
from scipy.optimize import linprog

from .instances import Array, Instance

_PIVOTS = 500
_REFINEMENTS = 6
_CHUNK = 512


@dataclass(frozen=True)
class Exact:
    """Solution z, nu, lam and the solution dz, dnu, dlam of the backward QP for the loss 1ᵀz.

    ``residual`` is the largest relative residual of the two systems, ``margin`` the smallest active
    dual or inactive slack relative to the largest: how far the problem is from a kink.
    """

    z: Array
    nu: Array
    lam: Array
    dz: Array
    dnu: Array
    dlam: Array
    residual: float
    margin: float

    def save(self, path: Path) -> None:
        """Write it to an .npz file."""
        np.savez(path, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> Exact:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return cls(**{k: float(v) if k in ("residual", "margin") else v for k, v in arrays.items()})

    def gradient(self, name: str) -> Array:
        """Gradient of 1ᵀz* in one parameter, by the formulas of arXiv:2411.19285."""
        match name:
            case "P":
                outer = np.outer(self.dz, self.z)
                return 0.5 * (outer + outer.T)
            case "q":
                return self.dz
            case "A":
                return np.outer(self.dnu, self.z) + np.outer(self.nu, self.dz)
            case "b":
                return -self.dnu
            case "G":
                return np.outer(self.dlam, self.z) + np.outer(self.lam, self.dz)
            case "h" | "c":
                return -self.dlam
        raise ValueError(f"no parameter {name!r}")


def exact(instance: Instance) -> Exact:
    """The exact solution and gradient of an instance; ArithmeticError if it is degenerate."""
    if instance.kind == "socp":
        return _norm_ball(instance)
    P, q, A, b, G, h = instance.rows().values()
    active = _linear(q, A, b, G, h) if instance.boxed else _quadratic(P, q, A, b, G, h)
    for _ in range(_PIVOTS):
        found, wrong = _on_active(P, q, A, b, G, h, active)
        if not wrong.any():
            return found
        active = active ^ wrong
    size = f"{instance.n}x{instance.m}, seed {instance.seed}"
    raise ArithmeticError(f"no strictly complementary solution of {instance.kind} {size}")


def _linear(q: Array, A: Array, b: Array, G: Array, h: Array) -> Array:
    """Active rows of the LP; those of the QP with P = εI are the same unless it is degenerate."""
    result = linprog(q, A_ub=G, b_ub=h, A_eq=A, b_eq=b, bounds=(None, None), method="highs-ds")
    if result.status != 0:
        raise ArithmeticError(f"HiGHS: {result.message}")
    return result.ineqlin.marginals < 0


def _quadratic(P: Array, q: Array, A: Array, b: Array, G: Array, h: Array) -> Array:
    """Active rows of the QP, up to rounding."""
    n, m = len(q), len(h)
    lu = lu_factor(_kkt(P, A), check_finite=False)
    right = np.zeros((n + len(b), m + 1))
    right[:n, :m], right[:, m] = G.T, np.concatenate([-q, b])
    columns = lu_solve(lu, right, check_finite=False)
    return _complementary(G @ columns[:n, :m], h - G @ columns[:n, m])


def _kkt(P: Array, C: Array) -> Array:
    n, p = len(P), len(C)
    K = np.zeros((n + p, n + p))
    K[:n, :n], K[:n, n:], K[n:, :n] = P, C.T, C
    return K


def _complementary(M: Array, w: Array) -> Array:
    """Active set of s = w + Mλ ≥ 0, λ ≥ 0, λᵀs = 0; all violators swap, later only the last."""
    active, best, patience = w < 0, len(w) + 1, 10
    for _ in range(_PIVOTS + 10 * len(w)):
        lam = np.zeros(len(w))
        lam[active] = np.linalg.solve(M[np.ix_(active, active)], -w[active])
        wrong = np.where(active, lam < 0, w + M @ lam < 0)
        count = np.count_nonzero(wrong)
        if count == 0:
            return active
        if count < best:
            best, patience = count, 10
        patience -= 1
        if patience < 0:  # Murty's rule cannot cycle
            only = np.zeros(len(w), dtype=bool)
            only[np.flatnonzero(wrong)[-1]] = True
            wrong = only
        active = active ^ wrong
    raise ArithmeticError("block principal pivoting did not end")


def _on_active(
    P: Array, q: Array, A: Array, b: Array, G: Array, h: Array, active: Array
) -> tuple[Exact, Array]:
    """Solution and gradient with these rows active, and the rows that contradict it."""
    n, p, m = len(q), len(b), len(h)
    K = _kkt(P, np.vstack([A, G[active]]))
    lu = lu_factor(K, check_finite=False)
    point, first = _refined(K, lu, np.concatenate([-q, b, h[active]]))
    ones = np.concatenate([-np.ones(n), np.zeros(len(K) - n)])
    adjoint, second = _refined(K, lu, ones)
    z, lam, dlam = point[:n], np.zeros(m), np.zeros(m)
    lam[active], dlam[active] = point[n + p :], adjoint[n + p :]
    slack = h - G @ z
    dual_unit, slack_unit = np.abs(lam).max(initial=0.0) or 1.0, np.abs(h).max(initial=0.0) or 1.0
    size = np.where(active, lam / dual_unit, slack / slack_unit)
    margin = float(size.min(initial=np.inf))
    found = Exact(
        z, point[n : n + p], lam, adjoint[:n], adjoint[n : n + p], dlam, max(first, second), margin
    )
    return found, size <= 0


def _refined(K: Array, lu: tuple[Array, Array], right: Array) -> tuple[Array, float]:
    """Solution of K t = right, residuals in extended precision; and the last relative residual."""
    t = lu_solve(lu, right, check_finite=False)
    best, size = t, np.inf
    for _ in range(_REFINEMENTS):
        left = np.concatenate(
            [
                right[i : i + _CHUNK] - K[i : i + _CHUNK].astype(np.longdouble) @ t
                for i in range(0, len(K), _CHUNK)
            ]
        ).astype(float)
        error = float(np.abs(left).max() / np.abs(right).max())
        if error >= size:
            break
        best, size = t, error
        t = t + lu_solve(lu, left, check_finite=False)
    return best, size


def _norm_ball(instance: Instance) -> Exact:
    """min qᵀz, ‖z‖ ≤ c: z = −c q/‖q‖, λ = ‖q‖, in closed form."""
    q, c = instance.data["q"], float(instance.data["c"])
    norm = np.linalg.norm(q)
    unit = q / norm
    total = unit.sum()
    dz = -c / norm * (np.ones(len(q)) - unit * total)
    empty = np.zeros(0)
    return Exact(-c * unit, empty, np.array(norm), dz, empty, np.array(total), 0.0, 1.0)
