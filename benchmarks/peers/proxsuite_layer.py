"""proxsuite.torch's QPFunction at its defaults: eps = 1e-9 forward, 1e-4 backward."""

from __future__ import annotations

import torch
from proxsuite.torch.qplayer import QPFunction
from torch import Tensor

from .base import TorchPeer

_NO_BOUND = -1e20


class Adapter(TorchPeer):
    """See the module; ``eps`` sets the forward tolerance."""

    def __init__(self, eps: float = 1e-9) -> None:
        self.function = QPFunction(eps=eps)

    def solve(self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        low = torch.full_like(h, _NO_BOUND)
        return self.function(P, q, A, b, G, low, h)[0][0]
