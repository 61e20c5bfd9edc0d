"""This package's layers at their default accuracy, a tolerance of 1e-8."""

from __future__ import annotations

import torch
from torch import Tensor

import bpqp_portfolio as bp

from ..instances import Instance
from .base import TorchPeer


class Adapter(TorchPeer):
    """``forward`` and ``backward`` are names of solvers, None for the layer's own default."""

    takes_bounds = True

    def __init__(
        self, forward: str | None = None, backward: str | None = None, eps: float = 1e-8
    ) -> None:
        chosen = {"forward": forward, "backward": backward}
        self.settings = {k: v for k, v in chosen.items() if v is not None}
        self.eps = eps

    def build(self, instance: Instance) -> None:
        layer = bp.SOCPLayer if instance.kind == "socp" else bp.QPLayer
        self.layer = layer(**self.settings, tolerance=self.eps)

    def solve(self, **leaves: Tensor) -> Tensor:
        if "c" in leaves:
            return self.layer(None, leaves["q"], cones=[(None, None, None, leaves["c"])])
        if self.boxed:
            leaves["lb"] = torch.zeros_like(leaves["q"])
            leaves["ub"] = torch.ones_like(leaves["q"])
        return self.layer(**leaves)
