"""What a method has to do to be timed, and the part that all torch layers share."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..instances import Array, Instance


class Peer(Protocol):
    """One method: ``load`` is not timed, ``forward`` and ``backward`` are."""

    def load(self, instance: Instance) -> None:
        """Take a problem as the method likes it, and build what a user would build once."""

    def forward(self) -> Any:
        """Solve; returns what ``backward`` needs."""

    def backward(self, state: Any) -> None:
        """The gradient of 1ᵀz* in every parameter the method differentiates."""

    def gradients(self) -> dict[str, Array]:
        """The gradients of the last backward, float64, by parameter; rows for bounds may follow."""


class TorchPeer:
    """A layer that is one torch function of all parameters: subclasses give :meth:`solve`."""

    leaves: dict[str, Tensor]
    takes_bounds = False
    loss: Tensor | None = None

    def load(self, instance: Instance, loss: Array | None = None) -> None:
        self.boxed = instance.boxed
        self.loss = None if loss is None else torch.from_numpy(loss)
        self.leaves = {
            name: torch.from_numpy(np.array(value)).requires_grad_()
            for name, value in instance.data.items()
        }
        self.build(instance)

    def build(self, instance: Instance) -> None:
        """What a user does once for a shape of problem."""

    def solve(self, **leaves: Tensor) -> Tensor:
        """The minimiser."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        for leaf in self.leaves.values():
            leaf.grad = None
        if self.boxed and not self.takes_bounds:
            G, h = self.leaves["G"], self.leaves["h"]
            eye, zeros = torch.eye(G.shape[1], dtype=G.dtype), G.new_zeros(G.shape[1])
            rows = {"G": torch.cat([G, -eye, eye]), "h": torch.cat([h, zeros, zeros + 1])}
            return self.solve(**{**self.leaves, **rows})
        return self.solve(**self.leaves)

    def backward(self, state: Tensor) -> None:
        (state if self.loss is None else state * self.loss).sum().backward()

    def gradients(self) -> dict[str, Array]:
        return {k: v.grad.numpy() for k, v in self.leaves.items() if v.grad is not None}
