"""The random problems of the paper's tables: QPs, regularised LPs and norm-ball SOCPs.

As in arXiv:2411.19285: P = FᵀF + 1e-6 I with F uniform, q, A, G uniform, and b, h = Az′, Gz′ at a
random z′, so that z′ is feasible with every inequality tight. "lp" has P = 1e-6 I instead, the
paper's remedy for a singular backward QP; having more variables than rows it would be unbounded
without, so its solutions are of size 1e6. "boxlp" is a proper LP beside it: the same with q normal
and 0 ≤ z ≤ 1. The SOCP is min qᵀz, ‖z‖ ≤ c. The loss of all tables is 1ᵀz*.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

Array = np.ndarray
KINDS = ("qp", "lp", "boxlp", "socp")
EPS = 1e-6
PARAMETERS = {"qp": ("P", "q", "A", "b", "G", "h"), "socp": ("q", "c")}
PARAMETERS["lp"] = PARAMETERS["boxlp"] = PARAMETERS["qp"]


@dataclass(frozen=True)
class Instance:
    """One problem: ``data`` holds P (n, n), q (n,), A (m, n), b (m,), G (m, n), h (m,); or q, c."""

    kind: str
    n: int
    m: int
    seed: int
    data: dict[str, Array]

    @property
    def boxed(self) -> bool:
        """Whether 0 ≤ z ≤ 1 holds besides the constraints in ``data``."""
        return self.kind == "boxlp"

    def rows(self) -> dict[str, Array]:
        """``data`` with the box as 2n further rows of G and h, for methods without bounds."""
        if not self.boxed:
            return self.data
        eye = np.eye(self.n)
        G = np.vstack([self.data["G"], -eye, eye])
        h = np.concatenate([self.data["h"], np.zeros(self.n), np.ones(self.n)])
        return {**self.data, "G": G, "h": h}

    def save(self, path: Path) -> None:
        """Write the problem to an .npz file."""
        np.savez(path, kind=self.kind, n=self.n, m=self.m, seed=self.seed, **self.data)

    @classmethod
    def load(cls, path: Path) -> Instance:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            data = {name: file[name] for name in PARAMETERS[str(file["kind"])]}
            return cls(str(file["kind"]), int(file["n"]), int(file["m"]), int(file["seed"]), data)


def make(kind: str, n: int, m: int = 0, seed: int = 0) -> Instance:
    """A random problem of n variables, m equalities and m inequalities (an SOCP has only n)."""
    rng = np.random.default_rng([KINDS.index(kind), n, m, seed])
    q = rng.random(n)
    if kind == "socp":
        return Instance(kind, n, 0, seed, {"q": q, "c": np.array(1.0 + rng.random())})
    if kind == "qp":
        factor = rng.random((n, n))
        P = factor.T @ factor
        P[np.diag_indices(n)] += EPS
        P = 0.5 * (P + P.T)
    else:
        P = EPS * np.eye(n)
    A, G = rng.random((m, n)), rng.random((m, n))
    if kind == "boxlp":
        q, z = rng.standard_normal(n), rng.random(n)
    else:
        z = rng.standard_normal(n)
    return Instance(kind, n, m, seed, {"P": P, "q": q, "A": A, "b": A @ z, "G": G, "h": G @ z})
