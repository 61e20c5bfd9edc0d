"""The short way through a layer for one program of plain float64 tensors on the CPU.

Most calls in a loop are of this kind, and their time is that of small array calls: nothing is
batched, gathered or converted here. Whatever is unusual, wrong, hard or not solved is left to the
ordinary way (:mod:`.function`), which says what it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..problems.matrices import Array
from .second_order import Grads, Known, Tensors, pulled, reopened
from .transforms import refuse_forward_mode, refuse_transforms

_PLAIN = (Tensor, nn.Parameter)


def plain_array(value: Any, ndim: int) -> Array | None:
    """A float64 tensor of ``ndim`` dimensions on the CPU as an array; None for anything else."""
    if (
        type(value) not in _PLAIN
        or value.dtype is not torch.float64
        or value.ndim != ndim
        or value.layout is not torch.strided
        or not value.is_cpu
        or value.is_neg()
    ):
        return None
    return value.detach().numpy()


class SingleCall(ABC):
    """A solved program of the layer ``layer``, whose z and duals are ``points``."""

    layer: str

    @property
    @abstractmethod
    def points(self) -> tuple[Array, ...]:
        """z and the duals, as the layer returns them."""

    @abstractmethod
    def gradients(self, grads: Grads, wanted: Sequence[bool]) -> Grads:
        """Gradients in the ``wanted`` arguments, from those in the points."""

    @abstractmethod
    def pairing(
        self, own: Sequence[Any], seen: Sequence[Any], point: Tensors, grads: Grads
    ) -> Tensor:
        """The scalar that :func:`~.second_order.pairing` describes."""


class SingleFunction(torch.autograd.Function):
    """The points of a :class:`SingleCall` as functions of its arguments, of which some are None."""

    @staticmethod
    def forward(ctx: Any, call: SingleCall, *values: Tensor | None) -> Any:  # type: ignore[override]
        ctx.call = call
        ctx.set_materialize_grads(False)
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*values)
        # Copies: the caller may overwrite the results, and the backward needs them.
        return tuple(torch.from_numpy(point.copy()) for point in call.points)

    jvp = refuse_forward_mode()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        call: SingleCall = ctx.call
        refuse_transforms(call.layer, grads)
        # Raises where an argument was changed in place.
        values, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            return (None, *call.gradients(grads, wanted))
        points = tuple(torch.from_numpy(point.copy()) for point in call.points)
        known = Known({"call": call}, points, SingleFunction.backward)
        point, views, seen = reopened(known, values, wanted)
        return (None, *pulled(call.pairing(values, seen, point, grads), views))
