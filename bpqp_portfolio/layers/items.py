"""Batches of problems: what a layer's tensors have in common, which item uses what, what failed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError, SolverError
from ..problems.solution import SolveStatus

_SHOWN = 5


@dataclass(frozen=True)
class Batch:
    """The items of one call: their batch ``shape``, and the dtype and device of its results."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], trailing: Mapping[str, int]) -> Batch:
        """What named ``tensors`` have in common; ``trailing[name]`` dimensions belong to an item.

        Raises
        ------
        ProblemError
            Batch dimensions that do not broadcast, or tensors on several devices.
        """
        devices = {t.device for t in tensors.values()}
        if len(devices) > 1:
            raise ProblemError(
                f"arguments are on several devices ({', '.join(sorted(map(str, devices)))}); "
                "move them to one."
            )
        values = list(tensors.values())
        dtype = values[0].dtype
        for tensor in values[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        leads = {k: lead(t, trailing[k]) for k, t in tensors.items()}
        return cls(broadcast(leads), dtype, values[0].device)

    @property
    def items(self) -> int:
        """Number of problems."""
        return math.prod(self.shape)

    def positions(self, lead: tuple[int, ...]) -> np.ndarray:
        """For every item, which entry of an argument with batch dimensions ``lead`` it uses."""
        own = np.arange(math.prod(lead))
        if lead == self.shape:
            return own
        return np.broadcast_to(own.reshape(lead), self.shape).reshape(-1)

    def label(self, item: int) -> str:
        """``"item 3: "``, or nothing where there is no batch."""
        if not self.shape:
            return ""
        index = tuple(int(i) for i in np.unravel_index(item, self.shape))
        return f"item {index[0] if len(index) == 1 else index}: "

    def tensor(self, array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        """An array (items, ...) as a tensor (*shape, ...) of the batch's dtype, or of ``dtype``."""
        shaped = array.reshape(self.shape + array.shape[1:])
        return torch.from_numpy(shaped).to(self.device, dtype or self.dtype)

    def rows(self, gradient: Tensor) -> np.ndarray:
        """A gradient (*shape, k) as a float64 array (items, k)."""
        array = gradient.detach().to("cpu", torch.float64)
        return array.resolve_neg().reshape(self.items, gradient.shape[-1]).numpy()

    def float64_rows(self, value: Tensor | None) -> Tensor | None:
        """A tensor (*shape, k) as one (items, k) in float64 on the CPU, in the graph."""
        if value is None:
            return None
        return value.to("cpu", torch.float64).reshape(self.items, value.shape[-1])

    def statuses(self, status: np.ndarray) -> Any:
        """The object array of statuses in the batch's shape, or the status of a single problem."""
        return status.reshape(self.shape) if self.shape else status[0]

    def messages(self, said: Mapping[int, str]) -> Any:
        """The messages of items as a Solution has them; empty where there are none."""
        if not said:
            return ""
        every = np.full(self.items, "", dtype=object)
        for item, message in said.items():
            every[item] = message
        return self.statuses(every)

    def raise_failures(
        self,
        solver: str,
        status: np.ndarray,
        norms: np.ndarray,
        conflicts: Mapping[int, str] | None = None,
    ) -> None:
        """Raise one :class:`SolverError` for every item that is not solved; none, if all are.

        ``status`` and ``norms`` (KKT norms) have one entry for each item; ``conflicts`` says of an
        item which constraints are to blame.
        """
        failures = [i for i in range(self.items) if status[i] is not SolveStatus.SOLVED]
        if not failures:
            return
        shown = []
        for item in failures[:_SHOWN]:
            norm = f" (KKT norm {norms[item]:.1e})" if np.isfinite(norms[item]) else ""
            why = f" ({conflicts[item]})" if conflicts and conflicts.get(item) else ""
            shown.append(f"{self.label(item)}{status[item].value}{norm}{why}")
        if len(failures) > _SHOWN:
            shown.append(f"and {len(failures) - _SHOWN} more")
        raise SolverError(
            f"{solver}: {len(failures)} of {self.items} problems not solved: {'; '.join(shown)}. "
            'With on_failure="nan" such items come back as NaN with their status.'
        )


def float_shape(name: str, value: Any) -> tuple[int, ...] | None:
    """Shape of an argument, None for an absent one.

    Raises
    ------
    ProblemError
        Anything but a tensor of floating point numbers.
    """
    if value is None:
        return None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ProblemError(f"{name}: expected a tensor of floating point numbers, got {kind}.")
    return tuple(value.shape)


def expect_shape(name: str, value: Any, letters: str, sizes: Mapping[str, int]) -> None:
    """Refuse anything but a tensor of the shape ``letters``, such as "T n", with known ``sizes``.

    Raises
    ------
    ProblemError
        Names the argument, the shape that was expected and the one that it has.
    """
    axes = letters.split()
    shape = tuple(value.shape) if isinstance(value, Tensor) else (type(value).__name__,)
    if len(shape) == len(axes) and shape == tuple(map(sizes.get, axes, shape)):
        return
    wanted = [str(sizes.get(axis, axis)) for axis in axes]
    known = "" if wanted == axes else f" = ({', '.join(wanted)})"
    raise ProblemError(f"{name}: expected shape ({', '.join(axes)}){known}, got {shape}.")


def lead(value: Tensor, trailing: int) -> tuple[int, ...]:
    """Batch dimensions of a tensor of which ``trailing`` dimensions belong to an item."""
    return tuple(value.shape[: value.ndim - trailing])


def broadcast(leads: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape to which named batch dimensions broadcast.

    Raises
    ------
    ProblemError
        They do not; it shows each.
    """
    first, *others = leads.values()
    if all(shape == first for shape in others):
        return first
    try:
        return tuple(torch.broadcast_shapes(*leads.values()))
    except RuntimeError:
        shown = ", ".join(f"{k} {shape}" for k, shape in leads.items())
        raise ProblemError(f"batch dimensions do not broadcast: {shown}.") from None


def flat_shape(value: Tensor, trailing: int) -> tuple[int, ...]:
    """Shape of a tensor with its batch dimensions made one."""
    dims = lead(value, trailing)
    return (math.prod(dims), *value.shape[len(dims) :])


def flat_array(value: Tensor, trailing: int) -> np.ndarray:
    """A dense tensor as a float64 array with one batch dimension."""
    value = value.detach().resolve_neg()
    if value.dtype is not torch.float64 or value.is_cuda:
        value = value.to("cpu", torch.float64)
    return value.numpy().reshape(flat_shape(value, trailing))
