"""cvxpylayers with diffcp at its defaults; building the layer (canonicalisation) is not timed.

diffcp takes no parametric quadratic form, so a QP's objective is ½‖Lᵀz‖² + qᵀz with P = LLᵀ
factorised by torch inside the timing, and the gradient reaches P through the factorisation. For an
LP, ½ε‖z‖² is a constant of the problem: its gradient in P is not computed, which is in its favour.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import torch
from cvxpylayers.torch import CvxpyLayer
from torch import Tensor

from ..instances import EPS, Instance
from .base import TorchPeer


class Adapter(TorchPeer):
    """See the module; ``eps`` sets the solver's tolerance."""

    takes_bounds = True

    def __init__(self, eps: float | None = None) -> None:
        self.arguments: dict[str, Any] = {} if eps is None else {"eps": eps}
        self.built: tuple[str, int, int] | None = None

    def build(self, instance: Instance) -> None:
        key = (instance.kind, instance.n, instance.m)
        if self.built == key:
            return
        n, m = instance.n, instance.m
        z, q = cp.Variable(n), cp.Parameter(n)
        if instance.kind == "socp":
            c = cp.Parameter(nonneg=True)
            problem = cp.Problem(cp.Minimize(q @ z), [cp.norm(z, 2) <= c])
            parameters = [q, c]
        else:
            A, G = cp.Parameter((m, n)), cp.Parameter((m, n))
            b, h = cp.Parameter(m), cp.Parameter(m)
            parameters = [q, A, b, G, h]
            if instance.kind == "qp":
                root = cp.Parameter((n, n))
                square = 0.5 * cp.sum_squares(root @ z)
                parameters.insert(0, root)
            else:
                square = 0.5 * EPS * cp.sum_squares(z)
            constraints = [A @ z == b, G @ z <= h]
            if instance.boxed:
                constraints += [z >= 0, z <= 1]
            problem = cp.Problem(cp.Minimize(square + q @ z), constraints)
        self.layer = CvxpyLayer(problem, parameters=parameters, variables=[z])
        self.built = key

    def solve(self, **leaves: Tensor) -> Tensor:
        given = [leaves[k] for k in ("q", "A", "b", "G", "h", "c") if k in leaves]
        if self.built and self.built[0] == "qp":
            given.insert(0, torch.linalg.cholesky(leaves["P"]).mT)
        return self.layer(*given, solver_args=self.arguments)[0]
