"""The short way through the QP layer for one dense float64 problem without bounds on the CPU.

Whatever is unusual, wrong, hard or not solved is left to the ordinary way, which says what it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..problems.solution import Solution, SolveStatus
from ..solvers.common.active_set import ActiveSet
from ..solvers.common.parallel import blas_for
from ..solvers.qp.dense import TOLERANCE, DenseSolver
from ..solvers.qp.direct import Direct, solve_direct
from .qp_second_order import NAMES, qp_pairing
from .second_order import Known, pulled, view
from .transforms import refuse_forward_mode, refuse_transforms

_PLAIN = (Tensor, nn.Parameter)
_ABSENT = np.zeros(0)


def solve_single(values: tuple[Any, ...], eps: float) -> Solution | None:
    """The solution for (P, q, A, b, G, h), differentiable; None unless all is plain and solved."""
    q = values[1]
    if type(q) not in _PLAIN or q.ndim != 1:
        return None
    n = len(q)
    arrays: list[np.ndarray] = []
    total = 0.0
    for position, value in enumerate(values):
        vector = position & 1
        if value is None and position > 1:
            arrays.append(_ABSENT if vector else np.zeros((0, n)))
            continue
        if (
            type(value) not in _PLAIN
            or value.dtype is not torch.float64
            or value.layout is not torch.strided
            or not value.is_cpu
        ):
            return None
        array = value.detach().numpy()
        # A matrix's rows are those of its right-hand side; P's are n, and q's length is n.
        if array.ndim != 2 - vector or array.shape[-1] != (len(arrays[-1]) if vector else n):
            return None
        total += float(array.sum())
        arrays.append(array)
    P, linear, A, b, G, h = arrays
    # A sum is finite unless an entry is not, or it overflows.
    if not math.isfinite(total) or len(P) != n or not n or not (P == P.T).all():
        return None
    # A matrix without its vector, or a vector without its matrix, has other sizes unless empty.
    if any((values[i] is None) != (values[i + 1] is None) for i in (2, 4)):
        return None
    with blas_for((n + len(A) + len(G)) ** 2):
        found = solve_direct(P, linear, A, b, G, h, min(eps, TOLERANCE))
    if found is None:
        return None
    z, nu, lam, lam_lb, lam_ub = _SingleFunction.apply(found, *values)
    return Solution(
        z,
        nu,
        lam,
        lam_lb,
        lam_ub,
        SolveStatus.SOLVED,
        torch.scalar_tensor(found.norm, dtype=torch.float64),
        torch.scalar_tensor(found.steps, dtype=torch.int64),
        DenseSolver.name,
    )


class _SingleFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Direct, *values: Tensor | None) -> Any:  # type: ignore[override]
        ctx.found = found
        ctx.set_materialize_grads(False)
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*values)
        zero = np.zeros((2, len(found.z)))
        # Copies: the caller may overwrite the results, and the backward needs them.
        points = (found.z.copy(), found.nu.copy(), found.lam.copy(), *zero)
        return tuple(map(torch.from_numpy, points))

    jvp = refuse_forward_mode("QPLayer")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_transforms("QPLayer", grads)
        found: Direct = ctx.found
        # Raises where an argument was changed in place.
        values = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_again(found, values, ctx.needs_input_grad[1:], grads))
        z, nu, lam = found.z, found.nu, found.lam
        given = [None if g is None else g.detach().numpy() for g in grads[:3]]
        _, P, q, A, b, G, h = ctx.needs_input_grad
        n = len(z)
        with blas_for((n + len(nu) + len(lam)) ** 2):
            at_z, at_nu, at_lam = found.adjoint(*given)
            out: list[np.ndarray | None] = [None] * 6
            if P:
                half = np.outer(0.5 * at_z, z)
                out[0] = half + half.T
            if A:
                out[2] = np.outer(at_nu, z) + np.outer(nu, at_z)
            if G:
                out[4] = np.outer(at_lam, z) + np.outer(lam, at_z)
            out[1] = at_z if q else None
            out[3] = -at_nu if b else None
            out[5] = -at_lam if h else None
        return (None, *(None if g is None else torch.from_numpy(g) for g in out))


def _again(
    found: Direct,
    values: tuple[Tensor | None, ...],
    wanted: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    n, m = len(found.z), len(found.lam)
    points = tuple(map(torch.from_numpy, (found.z, found.nu, found.lam, *np.zeros((2, n)))))
    known = Known({"found": found}, points, _SingleFunction.backward)
    z, nu, lam = known.again(*values)[:3]
    rows = np.zeros(m, dtype=bool)
    rows[found.rows] = True
    none = np.zeros(n, dtype=bool)
    views = [None if v is None else view(v, w) for v, w in zip(values, wanted, strict=True)]
    own = dict(zip(NAMES, values, strict=True))
    seen = {k: own[k] if v is None else v for k, v in zip(NAMES, views, strict=True)}
    active = ActiveSet(rows, none, none)
    return pulled(qp_pairing(own, seen, active, (z, nu, lam), (*grads[:3], None, None)), views)
