"""The authors' way, written from arXiv:2411.19285: OSQP forward, OSQP on the backward QP.

Every call sets OSQP up with the dense data as CSC matrices, eps_abs = eps_rel = 1e-5 and polishing
on. Rows whose dual exceeds 1e-8 of the largest are active, and the backward QP
min ½ z̃ᵀPz̃ + 1ᵀz̃, Az̃ = 0, G₊z̃ = 0 goes to OSQP with the same settings. An answer that OSQP calls
inaccurate is used all the same, and shows as a gradient error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import osqp
from scipy import sparse

from ..instances import Array, Instance

_ACTIVE = 1e-8
_MAX_ITERATIONS = 20_000


class Adapter:
    """See the module."""

    def __init__(self, eps: float = 1e-5) -> None:
        self.eps = eps

    def load(self, instance: Instance, loss: Array | None = None) -> None:
        self.data = instance.rows()
        self.loss = np.ones(len(self.data["q"])) if loss is None else loss

    def _osqp(self, P: Array, q: Array, rows: Array, low: Array, high: Array) -> tuple[Array, ...]:
        solver = osqp.OSQP()
        solver.setup(
            P=sparse.triu(sparse.csc_matrix(P), format="csc"),
            q=q,
            A=sparse.csc_matrix(rows),
            l=low,
            u=high,
            eps_abs=self.eps,
            eps_rel=self.eps,
            polishing=True,
            max_iter=_MAX_ITERATIONS,
            verbose=False,
        )
        result = solver.solve(raise_error=False)
        if not np.isfinite(result.x).all():
            raise ArithmeticError(f"OSQP: {result.info.status}")
        return np.asarray(result.x), np.asarray(result.y)

    def forward(self) -> Any:
        d = self.data
        low = np.concatenate([d["b"], np.full(len(d["h"]), -np.inf)])
        high = np.concatenate([d["b"], d["h"]])
        return self._osqp(d["P"], d["q"], np.vstack([d["A"], d["G"]]), low, high)

    def backward(self, state: Any) -> None:
        z, duals = state
        P, A, G, p = self.data["P"], self.data["A"], self.data["G"], len(self.data["b"])
        nu, lam = duals[:p], np.maximum(duals[p:], 0.0)
        active = lam > _ACTIVE * lam.max(initial=0.0)
        rows = np.vstack([A, G[active]])
        zeros = np.zeros(len(rows))
        dz, dual = self._osqp(P, self.loss, rows, zeros, zeros)
        dnu, dlam = dual[:p], np.zeros(len(lam))
        dlam[active] = dual[p:]
        outer = np.outer(dz, z)
        self.found = {
            "P": 0.5 * (outer + outer.T),
            "q": dz,
            "A": np.outer(dnu, z) + np.outer(nu, dz),
            "b": -dnu,
            "G": np.outer(dlam, z) + np.outer(lam, dz),
            "h": -dlam,
        }

    def gradients(self) -> dict[str, Array]:
        return self.found
