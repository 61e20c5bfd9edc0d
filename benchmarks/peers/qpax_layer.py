"""qpax (JAX) in float64, forward and backward compiled by jit outside the timing.

solver_tol = target_kappa = 1e-8: at its default target_kappa of 1e-3 qpax returns the gradient of a
smoothed problem on purpose.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..instances import Array, Instance

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
from qpax import solve_qp_primal  # noqa: E402

_ORDER = ("P", "q", "A", "b", "G", "h")


class Adapter:
    """See the module."""

    def __init__(self, eps: float = 1e-8) -> None:
        def solve(*arguments: jax.Array) -> jax.Array:
            return solve_qp_primal(*arguments, solver_tol=eps, target_kappa=eps, max_iter=100)

        # jax.vjp's second result is a pytree, so a compiled function may return it.
        self._forward = jax.jit(lambda *arguments: jax.vjp(solve, *arguments))
        self._backward = jax.jit(lambda pull, seed: pull(seed))

    def load(self, instance: Instance) -> None:
        rows = instance.rows()
        self.arguments = [jnp.asarray(rows[k]) for k in _ORDER]
        self.seed = jnp.ones(instance.n)

    def forward(self) -> Any:
        z, pull = self._forward(*self.arguments)
        z.block_until_ready()
        return pull

    def backward(self, state: Any) -> None:
        self.found = jax.block_until_ready(self._backward(state, self.seed))

    def gradients(self) -> dict[str, Array]:
        return {k: np.asarray(v) for k, v in zip(_ORDER, self.found, strict=True)}
