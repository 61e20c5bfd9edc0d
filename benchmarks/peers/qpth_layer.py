"""qpth's QPFunction (OptNet) at its defaults, a batch of one.

qpth pins numpy < 2; install it with ``pip install --no-deps qpth``.
"""

from __future__ import annotations

from qpth.qp import QPFunction
from torch import Tensor

from .base import TorchPeer


class Adapter(TorchPeer):
    """See the module; ``eps`` sets its stopping tolerance."""

    def __init__(self, eps: float = 1e-12) -> None:
        self.function = QPFunction(eps=eps, verbose=-1)

    def solve(self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor) -> Tensor:
        return self.function(P, q, G, h, A, b)[0]
