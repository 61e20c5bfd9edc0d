"""The backward pass of portfolio QPs by torch's operations; see :mod:`.second_order`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from .second_order import pulled, refuse_singular, view

_RANK = 1e-10


@dataclass(frozen=True)
class Held:
    """How the days' names stand (T, n), and which rows of G are ``binding`` (T, m).

    A name is ``free``, held ``at_lower``, ``at_upper`` or at its ``reference``, or outside the
    problem; ``side`` is −1 or 1 where it is below or above its reference.
    """

    free: Tensor
    at_lower: Tensor
    at_upper: Tensor
    reference: Tensor
    side: Tensor
    binding: Tensor


def weights_on(values: Mapping[str, Tensor | None], held: Held, day: int, what: str) -> Tensor:
    """The weights (n,) of one day as a function of its ``values`` while everything stands as held.

    They solve the KKT equations of the free names and the binding rows.

    Raises
    ------
    SolverError
        These equations are singular: no second derivatives.
    """

    def own(name: str) -> Tensor | None:
        value = values.get(name)
        return None if value is None else value[day]

    q, B, d, low, high = (values[k] for k in ("q", "loadings", "d", "lb", "ub"))
    assert q is not None and B is not None and d is not None
    assert low is not None and high is not None
    q, B, d, low, high = q[day], B[day], d[day], low[day], high[day]
    cost, reference = own("cost"), own("reference")
    lower, upper, free = held.at_lower[day], held.at_upper[day], held.free[day]
    # A pinned name (l = u) moves with both of its bounds, half with each.
    part = 1.0 / (1.0 + (lower & upper))
    fixed = torch.where(lower, part * low, 0.0) + torch.where(upper, part * high, 0.0)
    if cost is not None and reference is not None:
        fixed = torch.where(held.reference[day], reference, fixed)
        q = q + cost * held.side[day]
    fixed = torch.where(free, 0.0, fixed)
    rows, sides = [], []
    budget = own("budget")
    if budget is not None:
        rows.append(torch.ones_like(q).unsqueeze(0))
        sides.append(budget.reshape(1))
    for matrix, side, on in (("A", "b", None), ("G", "h", held.binding[day])):
        M, v = own(matrix), own(side)
        if M is not None and v is not None:
            rows.append(M if on is None else M[on])
            sides.append(v if on is None else v[on])
    E = torch.cat(rows) if rows else q.new_zeros(0, len(q))
    e = torch.cat(sides) if sides else q.new_zeros(0)
    index = torch.nonzero(free).squeeze(-1)
    inside = torch.nonzero(free | lower | upper | held.reference[day]).squeeze(-1)
    given = (values.get(k) for k in ("lb", "ub", "budget", "A", "b", "G", "h"))
    if not any(v is not None and v.requires_grad for v in given):
        # Which of dependent rows are kept then makes no difference.
        rows_kept = _independent(E[:, index])
        E, e = E[rows_kept], e[rows_kept]
    # A name outside the problem may have any data.
    F, C = B[index], E[:, index]
    H = F @ F.mT + torch.diag(d[index])
    slope = q[index] + F @ (B[inside].mT @ fixed[inside])
    K = torch.cat([torch.cat([H, C.mT], 1), torch.cat([C, C.new_zeros(len(e), len(e))], 1)])
    refuse_singular(K.detach(), len(index), what)
    rhs = torch.cat([-slope, e - E[:, inside] @ fixed[inside]])
    return fixed.index_put((index,), torch.linalg.solve(K, rhs)[: len(index)])


def _independent(rows: Tensor) -> Tensor:
    """Positions of as many independent ``rows`` (r, f) as there are."""
    if not rows.numel():
        return torch.zeros(0, dtype=torch.int64, device=rows.device)
    R, order = linalg.qr(rows.detach().cpu().numpy().T, mode="r", pivoting=True)
    size = np.abs(np.diag(R))
    rank = int(np.count_nonzero(size > _RANK * size.max()))
    return torch.as_tensor(np.sort(order[:rank]), device=rows.device)


def gradients_again(
    values: Mapping[str, Tensor | None],
    held: Held,
    solved: Tensor,
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients in ``values``, where ``wanted``, of grad · w; differentiable themselves.

    Days that are not ``solved`` (T,) give none.
    """
    pairs = zip(values.values(), wanted, strict=False)
    views = [view(v, w) if v is not None else None for v, w in pairs]
    names = list(values)
    seen = {k: values[k] if v is None else v for k, v in zip(names, views, strict=True)}
    total = grad.new_zeros(())
    for day in torch.nonzero(solved).squeeze(-1).tolist():
        total = total + grad[day] @ weights_on(seen, held, day, f"factor_qp, day {day}")
    return pulled(total, views)
