"""The textbook way: the inverse of the full KKT Jacobian at a solution of this package, eps 1e-12.

The forward column is our own forward solve at that accuracy; the backward column forms
[P Gᵀdiag(λ) Aᵀ; G diag(Gz−h) 0; A 0 0] (Amos and Kolter, arXiv:1703.00443, with λ factored out),
inverts it and multiplies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import bpqp_portfolio as bp

from ..instances import Array, Instance


class Adapter:
    """See the module."""

    def __init__(self, eps: float = 1e-12, forward: str | None = None, backward: str = "") -> None:
        chosen = {} if forward is None else {"forward": forward}
        # A point that stops short of 1e-12 is used all the same.
        self.layer = bp.QPLayer(**chosen, tolerance=eps, on_failure="nan")

    def load(self, instance: Instance) -> None:
        self.data = {k: torch.from_numpy(v) for k, v in instance.rows().items()}

    def forward(self) -> Any:
        with torch.no_grad():
            s = self.layer.solve(**self.data)
        return s.z.numpy(), s.nu.numpy(), s.lam.numpy()

    def backward(self, state: Any) -> None:
        z, nu, lam = state
        P, A, G, h = (self.data[k].numpy() for k in ("P", "A", "G", "h"))
        n, p, m = len(z), len(nu), len(lam)
        J = np.zeros((n + m + p, n + m + p))
        J[:n, :n], J[:n, n : n + m], J[:n, n + m :] = P, G.T * lam, A.T
        J[n : n + m, :n], J[n + m :, :n] = G, A
        J[range(n, n + m), range(n, n + m)] = np.minimum(G @ z - h, 0.0)
        t = np.linalg.inv(J) @ np.concatenate([-np.ones(n), np.zeros(m + p)])
        dz, dlam, dnu = t[:n], lam * t[n : n + m], t[n + m :]
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
