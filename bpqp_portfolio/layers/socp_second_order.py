"""The backward QP of one cone program by torch's operations; see :mod:`.second_order`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problems.socp import SOCP, ConePoint, SOCPSolution
from ..solvers.conic.kkt import ActiveGroup, ActiveSystem
from .qp_second_order import Values, linear_constraints, linear_multipliers, quadratic
from .second_order import pairing

# F, g and c of a cone, None for I, 0 and 0, and d; float64 and dense.
ConeValues = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]


@dataclass(frozen=True)
class ConeProgram:
    """The parameters of one cone program: those of its linear part by name, and its cones."""

    linear: Values
    cones: Sequence[ConeValues]

    def norm_vector(self, i: int, x: Tensor) -> Tensor:
        """Fx + g of cone ``i``."""
        F, g, _, _ = self.cones[i]
        out = x if F is None else F @ x
        return out if g is None else out + g

    def head(self, i: int, x: Tensor) -> Tensor:
        """cᵀx + d of cone ``i``."""
        _, _, c, d = self.cones[i]
        return d if c is None else c @ x + d


def cone_pairing(
    own: ConeProgram,
    seen: ConeProgram,
    problem: SOCP,
    solution: SOCPSolution,
    point: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    what: str = "SOCPLayer",
) -> Tensor:
    """:func:`~.second_order.pairing` of a cone program at a point (z, ν, λ, λ_lb, λ_ub, *cones').

    ``grads`` are the loss's gradients in these.
    """
    system = ActiveSystem.at(problem, ConePoint.of(problem, solution), solution.factors)
    active, z = system.linear, point[0]
    linear = linear_multipliers(own.linear, active, point[1:5])
    rates = linear_multipliers(own.linear, active, grads[1:5])
    duals, on_duals = point[5:], grads[5:]
    k = len(linear)
    y = torch.cat([linear, *(_multipliers(a, duals) for a in system.groups)])
    dy = torch.cat([rates, y.new_zeros(len(y) - k)])
    dz = torch.zeros_like(z) if grads[0] is None else grads[0]

    def program(x: Tensor, y: Tensor, values: ConeProgram) -> tuple[Tensor, Tensor, Tensor | None]:
        c, extra, start = [linear_constraints(x, values.linear, active)], None, k
        for a in system.groups:
            found, more, size = _cones(a, x, y[start:], values, on_duals)
            c += found
            start += size
            if more is not None:
                extra = more if extra is None else extra + more
        return quadratic(x, values.linear), torch.cat(c), extra

    return pairing(program, z, y, own, seen, dz, dy, what)


def _members(a: ActiveGroup) -> list[int]:
    return [a.group.members[j] for j in np.flatnonzero(a.rows).tolist()]


def _multipliers(a: ActiveGroup, duals: Sequence[Tensor]) -> Tensor:
    """τ of a group's active cones, and at its apex the sum of their w."""
    members = _members(a)
    if not members:
        return torch.zeros(0, dtype=torch.float64)
    tau = torch.stack([duals[i][0] for i in members])
    if not a.apex:
        return tau
    return torch.cat([tau, torch.stack([duals[i][1:] for i in members]).sum(0)])


def _cones(
    a: ActiveGroup, x: Tensor, y: Tensor, values: ConeProgram, on_duals: Sequence[Tensor | None]
) -> tuple[list[Tensor], Tensor | None, int]:
    """A group's active constraints, the terms its duals (t, w) bring into the loss, and how many
    multipliers of ``y`` are its own."""
    members = _members(a)
    k = len(members)
    if not k:
        return [], None, 0
    extra: Tensor | None = None
    tau = y[:k]
    each: list[Tensor] = []
    w = y[k : k + a.group.r]
    share = tau / tau.sum()
    for j, i in enumerate(members):
        s1 = values.norm_vector(i, x)
        if a.apex:
            each.append(-values.head(i, x))
            dual = share[j] * w
        else:
            norm = s1.norm()
            each.append(norm - values.head(i, x))
            dual = -tau[j] * s1 / norm
        rate: Any = on_duals[i]
        if rate is not None:
            term = rate[0] * tau[j] + rate[1:] @ dual
            extra = term if extra is None else extra + term
    out = [torch.stack(each)]
    if a.apex:
        fixed = share.detach()
        parts = [fixed[j] * values.norm_vector(i, x) for j, i in enumerate(members)]
        out.append(-torch.stack(parts).sum(0))
        return out, extra, k + a.group.r
    return out, extra, k
