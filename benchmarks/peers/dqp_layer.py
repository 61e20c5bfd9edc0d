"""dQP (libdqp), at its defaults (eps_abs 1e-6) with the fastest of its forward solvers.

Which of DAQP, ProxQP and PIQP that is, is tried once for every problem shape, outside the timing.
Its package asks for commercial solvers; ``pip install --no-deps libdqp qpsolvers`` is enough.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..instances import Instance
from .base import TorchPeer

_SOLVERS = ("daqp", "proxqp", "piqp")


class Adapter(TorchPeer):
    """See the module."""

    def __init__(self, eps: float = 1e-6) -> None:
        self.eps = eps
        self.tried: tuple[int, ...] = ()

    def build(self, instance: Instance) -> None:
        if self.tried == (instance.n, instance.m):
            return
        from dqp import dQP

        best = float("inf")
        failures = []
        for solver in _SOLVERS:
            settings = dQP.build_settings(qp_solver=solver, eps_abs=self.eps, empty_batch=False)
            layer = dQP.dQP_layer(settings=settings)
            start = time.perf_counter()
            try:
                layer(*(self.leaves[k] for k in ("P", "q", "G", "h", "A", "b")))[0].sum().backward()
            except Exception as error:  # its solvers fail in many ways; one has to work
                failures.append(f"{solver}: {error}")
                continue
            seconds = time.perf_counter() - start
            if seconds < best:
                best, self.layer = seconds, layer
        if len(failures) == len(_SOLVERS):
            raise RuntimeError("; ".join(failures))
        self.tried = (instance.n, instance.m)

    def solve(self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        z = self.layer(P, q, G, h, A, b)[0]
        if not torch.isfinite(z).all():
            raise ArithmeticError("dQP: not solved")
        return z
