"""The backward QP of one quadratic program by torch's operations; see :mod:`.second_order`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..solvers.common.active_set import ActiveSet
from .second_order import pairing

NAMES = ("P", "q", "A", "b", "G", "h")
Values = Mapping[str, Tensor | None]


def linear_constraints(z: Tensor, values: Values, active: ActiveSet) -> Tensor:
    """(Az − b, Gz − h, lb − z, z − ub) (k,), of the inequalities the active ones."""
    out = [z.new_zeros(0)]
    A, b, G, h, lb, ub = (values.get(k) for k in ("A", "b", "G", "h", "lb", "ub"))
    if A is not None and b is not None:
        out.append(A @ z - b)
    if G is not None and h is not None:
        rows = np.flatnonzero(active.rows)
        out.append(G[rows] @ z - h[rows])
    if lb is not None:
        lower = np.flatnonzero(active.lower)
        out.append(lb[lower] - z[lower])
    if ub is not None:
        upper = np.flatnonzero(active.upper)
        out.append(z[upper] - ub[upper])
    return torch.cat(out)


def linear_multipliers(values: Values, active: ActiveSet, parts: Sequence[Tensor | None]) -> Tensor:
    """The entries of (ν, λ, λ_lb, λ_ub), None for zeros, that belong to those constraints."""
    every = [("b", None), ("h", active.rows), ("lb", active.lower), ("ub", active.upper)]
    out = [torch.zeros(0, dtype=torch.float64)]
    for (name, mask), part in zip(every, parts, strict=True):
        side = values.get(name)
        if side is None:
            continue
        own = torch.zeros(len(side), dtype=torch.float64) if part is None else part
        out.append(own if mask is None else own[np.flatnonzero(mask)])
    return torch.cat(out)


def quadratic(z: Tensor, values: Values) -> Tensor:
    """½ zᵀPz + qᵀz; the gradient in P is symmetric."""
    P, q = values.get("P"), values["q"]
    assert q is not None
    return q @ z if P is None else q @ z + 0.25 * z @ ((P + P.mT) @ z)


def qp_pairing(
    own: Values,
    seen: Values,
    active: ActiveSet,
    point: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    what: str = "QPLayer",
) -> Tensor:
    """:func:`~.second_order.pairing` of a QP; ``point`` is z, ν, λ and, with bounds, λ_lb, λ_ub.

    ``grads`` are the loss's gradients in z, ν, λ, λ_lb and λ_ub.
    """
    z = point[0]
    bounds = (None, None) if len(point) == 3 else point[3:5]
    y = linear_multipliers(own, active, (*point[1:3], *bounds))
    dy = linear_multipliers(own, active, grads[1:5])
    dz = torch.zeros_like(z) if grads[0] is None else grads[0]

    def program(x: Tensor, _: Tensor, values: Values) -> tuple[Tensor, Tensor, None]:
        return quadratic(x, values), linear_constraints(x, values, active), None

    return pairing(program, z, y, own, seen, dz, dy, what)
