"""What a layer does under torch's transforms: torch.compile passes it by, torch.func is refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import ProblemError

F = TypeVar("F", bound=Callable[..., Any])


def refuse_transforms(what: str, grads: Sequence[Any] = ()) -> None:
    """Raise inside vmap, torch.func and ``jacobian(vectorize=True)``.

    The last calls a backward with ``grads`` of a kind of its own.

    Raises
    ------
    ProblemError
        Says what to use instead.
    """
    if torch._C._are_functorch_transforms_active() or any(map(_is_batched, grads)):
        raise ProblemError(
            f"{what}: torch.func and vmap (vmap, grad, jacrev, jvp, jacobian(vectorize=True)) do "
            "not go through a solver. Batch dimensions are solved together as they are; for "
            "derivatives use torch.autograd.grad or torch.autograd.functional.jacobian without "
            "vectorize."
        )


def _is_batched(grad: Any) -> bool:
    return isinstance(grad, Tensor) and torch._C._functorch.is_legacy_batchedtensor(grad)


def refuse_forward_mode(what: str = "") -> Any:
    """A Function's ``jvp`` that says that there is none, of ``what`` or of its context's layer."""

    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ProblemError(
            f"{what or ctx.call.layer}: forward-mode derivatives do not go through a solver; use "
            "reverse mode (torch.autograd.grad)."
        )

    return staticmethod(jvp)


def eager(function: F) -> F:
    """Run ``function``, a layer's or a function's door, outside of compiled graphs."""
    name = function.__qualname__.partition(".")[0]
    disabled: list[Any] = []

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        # Only where it was imported has anything been compiled; importing it takes seconds.
        if "torch._dynamo" not in sys.modules:
            refuse_transforms(name)
            return function(*args, **keywords)
        if not disabled:
            disabled.append(torch.compiler.disable(_checked))
        return disabled[0](*args, **keywords)

    def _checked(*args: Any, **keywords: Any) -> Any:
        refuse_transforms(name)
        return function(*args, **keywords)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]
