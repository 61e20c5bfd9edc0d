"""The short way through the QP layer: one dense problem without bounds; see :mod:`.single`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problems.matrices import Array
from ..problems.solution import Solution, SolveStatus
from ..solvers.common.active_set import ActiveSet
from ..solvers.common.parallel import blas_for
from ..solvers.qp.dense import TOLERANCE, DenseSolver
from ..solvers.qp.direct import Direct, solve_direct
from .qp_second_order import NAMES, qp_pairing
from .second_order import Grads, Tensors
from .single import SingleCall, SingleFunction, plain_array

_ABSENT = np.zeros(0)


def solve_single(values: tuple[Any, ...], eps: float) -> Solution | None:
    """The solution for (P, q, A, b, G, h), differentiable; None unless all is plain and solved."""
    q = plain_array(values[1], 1)
    if q is None:
        return None
    n = len(q)
    arrays: list[Array] = []
    total = 0.0
    for position, value in enumerate(values):
        vector = position & 1
        if value is None and position > 1:
            arrays.append(_ABSENT if vector else np.zeros((0, n)))
            continue
        array = plain_array(value, 2 - vector)
        # A matrix's rows are those of its right-hand side; P's are n, and q's length is n.
        if array is None or array.shape[-1] != (len(arrays[-1]) if vector else n):
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
    z, nu, lam, lam_lb, lam_ub = SingleFunction.apply(_Single(found), *values)
    norm = torch.scalar_tensor(found.norm, dtype=torch.float64)
    steps = torch.scalar_tensor(found.steps, dtype=torch.int64)
    parts = (z, nu, lam, lam_lb, lam_ub)
    return Solution(*parts, SolveStatus.SOLVED, norm, steps, DenseSolver.name)


@dataclass(frozen=True)
class _Single(SingleCall):
    """A QP that our own direct method solved."""

    found: Direct
    layer: str = "QPLayer"

    @property
    def points(self) -> tuple[Array, ...]:
        at = self.found
        return at.z, at.nu, at.lam, *np.zeros((2, len(at.z)))

    def gradients(self, grads: Grads, wanted: Sequence[bool]) -> list[Tensor | None]:
        found = self.found
        z, nu, lam = found.z, found.nu, found.lam
        given = [None if g is None else g.detach().resolve_neg().numpy() for g in grads[:3]]
        P, q, A, b, G, h = wanted
        out: list[Array | None] = [None] * 6
        with blas_for((len(z) + len(nu) + len(lam)) ** 2):
            at_z, at_nu, at_lam = found.adjoint(*given)
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
        return [None if g is None else torch.from_numpy(g) for g in out]

    def pairing(
        self, own: Sequence[Any], seen: Sequence[Any], point: Tensors, grads: Grads
    ) -> Tensor:
        rows = np.zeros(len(self.found.lam), dtype=bool)
        rows[self.found.rows] = True
        none = np.zeros(len(self.found.z), dtype=bool)
        here, there = (dict(zip(NAMES, values, strict=True)) for values in (own, seen))
        rates = (*grads[:3], None, None)
        return qp_pairing(here, there, ActiveSet(rows, none, none), point[:3], rates)
