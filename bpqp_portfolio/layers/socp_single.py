"""The short way through the cone layer: one dense program; see :mod:`.single`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError
from ..problems.matrices import Array, FactorMatrix
from ..problems.qp import QP, check_argument
from ..problems.socp import SOCP, SOCPSolution, linear
from ..problems.solution import SolveStatus
from ..solvers.common.cache import CacheEntry
from ..solvers.common.parallel import blas_for, solve_one
from ..solvers.conic.adjoint import ConeGradient, cone_adjoint
from ..solvers.qp.adjoint import Adjoint
from .arguments import vector_gradient
from .base import Methods
from .cone_arguments import part_gradient
from .second_order import Grads, Tensors
from .single import SingleCall, SingleFunction, plain_array
from .socp_second_order import ConeProgram, cone_pairing

_VECTORS = {"q": "n", "b": "p", "h": "m", "lb": "n", "ub": "n"}
_ROWS = {"A": ("p", "b"), "G": ("m", "h")}
_PARTS = ("F", "g", "c", "d")


def solve_single(
    methods: Methods, values: Mapping[str, Any], cones: Sequence[Any], entry: CacheEntry | None
) -> SOCPSolution | None:
    """The solution, differentiable; None unless all is plain, right, and solved."""
    program = _read(values, cones)
    if program is None:
        return None
    tensors, names, problem = program
    with blas_for(_entries(problem)):
        found = solve_one(methods.forward, problem, methods.forward_options, entry)
    if found.status is not SolveStatus.SOLVED:
        return None
    call = _Single(methods, names, problem, found)
    z, nu, lam, lam_lb, lam_ub, *duals = SingleFunction.apply(call, *tensors)
    norm, count = torch.tensor(found.kkt_norm, dtype=torch.float64), torch.tensor(found.iterations)
    how = found.status, norm, count, found.solver
    return SOCPSolution(z, nu, lam, lam_lb, lam_ub, *how, cone_duals=tuple(duals))


def _entries(problem: SOCP) -> int:
    """Entries of the matrices that are worked on: none of ‖z‖ ≤ c."""
    qp = problem.qp
    rows = qp.p + qp.m + (0 if isinstance(qp.P, FactorMatrix) else qp.n)
    for group in problem.groups:
        rows += (len(group.d) if group.headed else 0) + (0 if group.F is None else group.r)
    return rows * (rows + qp.n)


@dataclass(frozen=True)
class _Single(SingleCall):
    """One program, its solution, and for each tensor what it is: "q", or a cone and its part."""

    methods: Methods
    names: list[Any]
    problem: SOCP
    solution: SOCPSolution
    layer: str = "SOCPLayer"

    @property
    def points(self) -> tuple[Array, ...]:
        s = self.solution
        return (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, *s.cone_duals)

    def gradients(self, grads: Grads, wanted: Sequence[bool]) -> list[Tensor | None]:
        methods, problem = self.methods, self.problem
        incoming = [
            np.zeros(len(value)) if g is None else g.detach().resolve_neg().numpy()
            for g, value in zip(grads[:5], self.points, strict=False)
        ]
        with blas_for(_entries(problem)):
            found, cones = cone_adjoint(
                problem,
                self.solution,
                *incoming,
                dcones=[None if g is None else g.detach().resolve_neg().numpy() for g in grads[5:]],
                **methods.adjoint,
            )
            return [
                _gradient(name, problem, found, cones) if want else None
                for name, want in zip(self.names, wanted, strict=True)
            ]

    def pairing(
        self, own: Sequence[Any], seen: Sequence[Any], point: Tensors, grads: Grads
    ) -> Tensor:
        here, there = self._program(own), self._program(seen)
        return cone_pairing(here, there, self.problem, self.solution, point, grads)

    def _program(self, tensors: Tensors) -> ConeProgram:
        """The program's parameters as dense tensors."""
        linear_part: dict[str, Tensor] = {}
        cones: list[dict[str, Tensor]] = [{} for _ in self.problem.cones]
        for name, tensor in zip(self.names, tensors, strict=True):
            if isinstance(name, tuple):
                cones[name[0]][name[1]] = tensor
            else:
                flat = name == "P" and tensor.ndim == 1
                linear_part[name] = torch.diag(tensor) if flat else tensor
        parts = [
            (own.get("F"), own.get("g"), own.get("c"), own.get("d", torch.tensor(cone[3]).double()))
            for own, cone in zip(cones, self.problem.cones, strict=True)
        ]
        return ConeProgram(linear_part, parts)


def _read(
    values: Mapping[str, Any], cones: Sequence[Any]
) -> tuple[list[Tensor], list[Any], SOCP] | None:
    """The tensors, what each is, and the program; None where anything is out of the ordinary."""
    q = plain_array(values["q"], 1)
    if q is None or not len(q):
        return None
    n = len(q)
    tensors: list[Tensor] = []
    names: list[Any] = []
    own: dict[str, Any] = {}
    array: Any
    sizes = {"n": n}
    for name, value in values.items():
        if value is None:
            continue
        if name == "P":
            array = plain_array(value, 2 if isinstance(value, Tensor) and value.ndim == 2 else 1)
            expected = (n,) * getattr(array, "ndim", 1)
        elif name in _ROWS:
            array = plain_array(value, 2)
            expected = (sizes.setdefault(_ROWS[name][0], 0 if array is None else len(array)), n)
        else:
            array = plain_array(value, 1)
            expected = (sizes.get(_VECTORS[name], -1),)
        if array is None or array.shape != expected:
            return None
        if name == "P" and array.ndim == 1:
            array = FactorMatrix(np.zeros((n, 0)), array)
        tensors.append(value)
        names.append(name)
        own[name] = array
    if any((matrix in own) != (vector in own) for matrix, (_, vector) in _ROWS.items()):
        return None
    try:
        own = {name: check_argument(name, array) for name, array in own.items()}
        own.setdefault("P", linear(n))
        qp = QP.of_checked(n, own)
    except ProblemError:
        return None
    blocks = []
    seen: dict[int, np.ndarray | None] = {}
    for i, cone in enumerate(cones):
        if not isinstance(cone, tuple) or len(cone) != 4 or cone[3] is None:
            return None
        parts: list[Any] = []
        for part, ndim, value in zip(_PARTS, (2, 1, 1, 0), cone, strict=True):
            if value is None or (part == "d" and type(value) in (int, float)):
                parts.append(value)
                continue
            if id(value) not in seen:
                seen[id(value)] = plain_array(value, ndim)
            array = seen[id(value)]
            if array is None or array.ndim != ndim:
                return None
            parts.append(array)
            tensors.append(value)
            names.append((i, part))
        F, g, c, d = parts
        r = n if F is None else len(F)
        fits = (F is None or F.shape[1] == n) and (g is None or len(g) == r)
        if not (fits and (c is None or len(c) == n)):
            return None
        if not np.isfinite(float(d) + sum(float(v.sum()) for v in (F, g, c) if v is not None)):
            return None
        blocks.append(
            (F, np.zeros(r) if g is None else g, np.zeros(n) if c is None else c, float(d))
        )
    return tensors, names, SOCP.of_checked(qp, blocks)


def _gradient(name: Any, problem: SOCP, a: Adjoint, cones: Sequence[ConeGradient]) -> Tensor:
    """The gradient in one tensor; the formulas of Adjoint and ConeGradient."""
    if isinstance(name, tuple):
        i, part = name
        return torch.tensor(part_gradient(part, cones[i], a), dtype=torch.float64)
    match name:
        case "P" if isinstance(problem.qp.P, FactorMatrix):
            return torch.from_numpy(a.z * a.at_z)
        case "P":
            half = np.outer(0.5 * a.z, a.at_z)
            return torch.from_numpy(half + half.T)
        case "A":
            return torch.from_numpy(np.outer(a.nu, a.at_z) + np.outer(a.at_nu, a.z))
        case "G":
            return torch.from_numpy(np.outer(a.lam, a.at_z) + np.outer(a.at_lam, a.z))
        case _:
            return torch.tensor(vector_gradient(name, a))
