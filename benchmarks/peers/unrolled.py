"""Unrolled ADMM: 500 OSQP iterations in plain torch, differentiated by autograd.

min ½zᵀPz + qᵀz with rows l ≤ Cz ≤ u, C = [A; G]: one Cholesky factorisation of P + σI + Cᵀdiag(ρ)C
(σ = 1e-6, ρ = 1, 1000 on equalities), then solves, projections and dual steps, nothing adapted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import TorchPeer

_ITERATIONS = 500
_SIGMA = 1e-6
_RHO, _RHO_EQUALITY = 1.0, 1e3


class Adapter(TorchPeer):
    """See the module."""

    def solve(self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        C = torch.cat([A, G])
        rho = torch.cat([torch.full_like(b, _RHO_EQUALITY), torch.full_like(h, _RHO)])
        p = len(b)
        eye = torch.eye(len(q), dtype=q.dtype)
        L = torch.linalg.cholesky(P + _SIGMA * eye + C.mT @ (rho[:, None] * C))
        z, row, y = torch.zeros_like(q), torch.zeros_like(rho), torch.zeros_like(rho)
        for _ in range(_ITERATIONS):
            right = _SIGMA * z - q + C.mT @ (rho * row - y)
            z = torch.cholesky_solve(right[:, None], L)[:, 0]
            step = C @ z
            row = torch.cat([b, torch.minimum((step + y / rho)[p:], h)])
            y = y + rho * (step - row)
        return z
