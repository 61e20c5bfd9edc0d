"""Alt-Diff, written from the paper (Sun et al., arXiv:2210.01802): ADMM whose steps are
differentiated as they are taken, so that the Jacobian ∂z/∂q converges along with z.

The Jacobian (n × n) is in q alone, as in the paper's experiments, where a single parameter is
differentiated: the time does not include gradients in P, A, b, G and h. ρ = 1, and the iteration
stops when ‖Δz‖ ≤ 1e-4 ‖z‖, a step finer than the paper's 1e-3. The backward pass is a product with
the Jacobian.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ..instances import Array, Instance

_RHO = 1.0
_MAX_ITERATIONS = 5_000


class Adapter:
    """See the module; ``eps`` is the relative step at which it stops."""

    def __init__(self, eps: float = 1e-4) -> None:
        self.eps = eps

    def load(self, instance: Instance) -> None:
        self.data = instance.rows()

    def forward(self) -> Array:
        P, q, A, b, G, h = (self.data[k] for k in ("P", "q", "A", "b", "G", "h"))
        n, p, m = len(q), len(b), len(h)
        factor = cho_factor(P + _RHO * (A.T @ A + G.T @ G), check_finite=False)
        z, slack, nu, lam = np.zeros(n), np.zeros(m), np.zeros(p), np.zeros(m)
        dz, dslack = np.zeros((n, n)), np.zeros((m, n))
        dnu, dlam = np.zeros((p, n)), np.zeros((m, n))
        eye = np.eye(n)
        for _ in range(_MAX_ITERATIONS):
            old = z
            pull = q + A.T @ nu + G.T @ lam - _RHO * (A.T @ b + G.T @ (h - slack))
            z = cho_solve(factor, -pull, check_finite=False)
            dpull = eye + A.T @ dnu + G.T @ (dlam + _RHO * dslack)
            dz = cho_solve(factor, -dpull, check_finite=False)
            row, drow = G @ z - h, G @ dz
            trial = -lam / _RHO - row
            slack = np.maximum(trial, 0.0)
            dslack = np.where(trial[:, None] > 0, -dlam / _RHO - drow, 0.0)
            nu, dnu = nu + _RHO * (A @ z - b), dnu + _RHO * (A @ dz)
            lam, dlam = lam + _RHO * (row + slack), dlam + _RHO * (drow + dslack)
            if np.linalg.norm(z - old) <= self.eps * np.linalg.norm(z):
                return dz
        raise ArithmeticError(f"no convergence in {_MAX_ITERATIONS} iterations")

    def backward(self, state: Array) -> None:
        self.found = state.sum(axis=0)

    def gradients(self) -> dict[str, Array]:
        return {"q": self.found}
