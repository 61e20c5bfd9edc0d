"""Backward passes that can be differentiated themselves, for second derivatives.

With create_graph a layer's backward is computed once more by torch's own operations, from the
parameters, the point and the gradients that come in: the KKT system of the active constraints is
built and solved where autograd sees it. The point is an output of the layer again, so that it
carries gradients too, and derivatives of any order follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import SolverError

Tensors = Sequence[Tensor]
# Of each output or argument, None where there is none.
Grads = Sequence[Tensor | None]
_SINGULAR = 1e-11


@dataclass(frozen=True)
class Known:
    """A solved call: what its backward reads from its context, its points, and that backward.

    The first ``unsaved`` of its tensors are not among those that the backward reads.
    """

    state: Mapping[str, Any]
    points: tuple[Tensor, ...]
    backward: Callable[..., Any]
    unsaved: int = 0

    def again(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """The points as differentiable functions of the ``tensors`` that they were solved for."""
        return _Again.apply(self, *tensors)  # type: ignore[no-any-return]


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, known: Known, *tensors: Tensor | None) -> Any:  # type: ignore[override]
        ctx.known = known
        for name, value in known.state.items():
            setattr(ctx, name, value)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[known.unsaved :])
        return tuple(point.clone() for point in known.points)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.known.backward(ctx, *grads)


# The objective f, the active constraints c (k,) = 0, and the loss's terms that the point's other
# figures make, at z (n,), the multipliers y (k,) and the parameters.
Program = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor, Tensor | None]]


def pairing(
    program: Program, z: Tensor, y: Tensor, own: Any, seen: Any, dz: Tensor, dy: Tensor, what: str
) -> Tensor:
    """The scalar whose gradient in the parameters ``seen`` is that of the loss.

    It is z̃ᵀ∇_z L + ỹᵀc with (z̃, ỹ) from the backward QP at the parameters ``own``, of which
    ``seen`` are copies in the graph; dz (n,) and dy (k,) are the loss's gradients in z and y.

    Raises
    ------
    SolverError
        The KKT matrix is singular: the point has no second derivatives.
    """
    x, multipliers = z.view_as(z), y.view_as(y)
    f, c, extra = program(x, multipliers, own)
    if extra is not None:
        more = _grad(extra, (x, multipliers))
        dz, dy = dz + more[0], dy + more[1]
    (slope,) = _grad(f + multipliers @ c, (x,))
    H = _jacobian(slope, x)
    C = _jacobian(c, x)
    K = torch.cat([torch.cat([H, C.mT], 1), torch.cat([C, C.new_zeros(len(c), len(c))], 1)])
    refuse_singular(K.detach(), len(x), what)
    tilde = torch.linalg.solve(K, -torch.cat([dz, dy]))
    there = z.view_as(z)
    f, c, extra = program(there, y, seen)
    (slope,) = _grad(f + y @ c, (there,))
    total = tilde[: len(z)] @ slope + tilde[len(z) :] @ c
    return total if extra is None else total + extra


def refuse_sparse(what: str, kinds: Sequence[str], wanted: Sequence[bool]) -> None:
    """Raise where the gradient of a sparse tensor is wanted: torch's own has no second one."""
    if any(kind == "sparse" and want for kind, want in zip(kinds, wanted, strict=True)):
        refuse_second(what, "in a sparse argument that requires a gradient")


def pulled(total: Tensor, views: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradient of ``total`` in each of the ``views``, None for those that are not wanted."""
    inputs = [v for v in views if v is not None]
    found = iter(_grad(total, inputs)) if inputs else iter(())
    return [None if v is None else next(found) for v in views]


def reopened(
    known: Known, tensors: Sequence[Any], wanted: Sequence[bool]
) -> tuple[tuple[Tensor, ...], list[Tensor | None], list[Any]]:
    """The point of a solved call in the graph of its ``tensors``, and copies of these.

    Returned are the point, a :func:`view` of each tensor, and the tensors with the views that
    there are in their places.
    """
    point = known.again(*tensors)
    views = [None if t is None else view(t, w) for t, w in zip(tensors, wanted, strict=True)]
    return point, views, [t if v is None else v for t, v in zip(tensors, views, strict=True)]


def view(tensor: Tensor, wanted: bool) -> Tensor | None:
    """A copy in the graph of a tensor whose gradient is ``wanted``."""
    return tensor.view_as(tensor) if wanted else None


def _grad(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(v) for v in inputs]
    found = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for g, v in zip(found, inputs, strict=True)]


def _jacobian(values: Tensor, x: Tensor) -> Tensor:
    if not len(values):
        return x.new_zeros(0, len(x))
    return torch.stack([_grad(value, (x,))[0] for value in values])


def refuse_singular(K: Tensor, n: int, what: str) -> None:
    """Raise where K, its blocks and rows at unit size, is singular."""
    size = K[:n, :n].abs().amax() if n else K.new_ones(())
    rows = K[n:, :n].abs().amax(-1) if n else K.new_ones(len(K))
    unit = torch.where(size > 0, size, 1.0).sqrt()
    scale = torch.cat([(1 / unit).expand(n), unit / torch.where(rows > 0, rows, 1.0)])
    values = torch.linalg.eigvalsh(K * scale * scale.unsqueeze(-1)).abs()
    if len(values) and not bool(values.min() > _SINGULAR * values.max()):
        raise SolverError(
            f"{what}: no second derivatives at this point: active constraints depend on each other,"
            " or the objective is flat where they leave room. Leave out constraints that follow "
            "from others, or add a little curvature; first derivatives need no create_graph."
        )


def refuse_second(what: str, why: str) -> None:
    """Raise in a backward that is itself to be differentiated, which ``what`` does not allow."""
    if torch.is_grad_enabled():
        raise SolverError(
            f"{what}: no second derivatives {why}; leave out create_graph, or see "
            "QPLayer, SOCPLayer and PortfolioLayer, which have them."
        )


def first_order(value: Tensor, what: str, why: str) -> Tensor:
    """``value``, whose gradient is right but must not be differentiated again: that raises."""
    return _FirstOrder.apply(value, what, why)  # type: ignore[no-any-return]


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, what: str, why: str) -> Tensor:  # type: ignore[override]
        ctx.what = what, why
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        refuse_second(*ctx.what)
        return grad, None, None
