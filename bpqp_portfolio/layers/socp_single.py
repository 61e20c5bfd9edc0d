"""The short way through the cone layer for one float64 program on the CPU, as most calls are.

Whatever is unusual, wrong or not solved is left to the ordinary way, which says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ProblemError
from ..problems.matrices import FactorMatrix
from ..problems.qp import QP, check_argument
from ..problems.socp import SOCP, SOCPSolution, linear
from ..problems.solution import SolveStatus
from ..solvers.common.cache import CacheEntry
from ..solvers.common.parallel import blas_for, solve_one
from ..solvers.conic.adjoint import ConeGradient, cone_adjoint
from ..solvers.qp.adjoint import Adjoint
from .second_order import Known, pulled, view
from .socp_second_order import ConeProgram, cone_pairing
from .transforms import refuse_forward_mode, refuse_transforms

_VECTORS = {"q": "n", "b": "p", "h": "m", "lb": "n", "ub": "n"}
_ROWS = {"A": ("p", "b"), "G": ("m", "h")}
_PARTS = ("F", "g", "c", "d")
_PLAIN = (Tensor, nn.Parameter)


def solve_single(
    methods: Any, values: Mapping[str, Any], cones: Sequence[Any], entry: CacheEntry | None
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
    z, nu, lam, lam_lb, lam_ub, *duals = _SingleFunction.apply(call, *tensors)
    norm = torch.tensor(found.kkt_norm, dtype=torch.float64)
    return SOCPSolution(
        z,
        nu,
        lam,
        lam_lb,
        lam_ub,
        found.status,
        norm,
        torch.tensor(found.iterations),
        found.solver,
        cone_duals=tuple(duals),
    )


def _entries(problem: SOCP) -> int:
    """Entries of the matrices that are worked on: none of ‖z‖ ≤ c."""
    qp = problem.qp
    rows = qp.p + qp.m + (0 if isinstance(qp.P, FactorMatrix) else qp.n)
    for group in problem.groups:
        rows += (len(group.d) if group.headed else 0) + (0 if group.F is None else group.r)
    return rows * (rows + qp.n)


@dataclass(frozen=True)
class _Single:
    """One program, its solution, and for each tensor what it is: "q", or a cone and its part."""

    methods: Any
    names: list[Any]
    problem: SOCP
    solution: SOCPSolution

    @property
    def fields(self) -> tuple[np.ndarray, ...]:
        """z, ν, λ, λ_lb, λ_ub and the cones' duals."""
        s = self.solution
        return (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, *s.cone_duals)


def _array(value: Any, ndim: int) -> np.ndarray | None:
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


def _read(
    values: Mapping[str, Any], cones: Sequence[Any]
) -> tuple[list[Tensor], list[Any], SOCP] | None:
    """The tensors, what each is, and the program; None where anything is out of the ordinary."""
    q = _array(values["q"], 1)
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
            array = _array(value, 2 if isinstance(value, Tensor) and value.ndim == 2 else 1)
            expected = (n,) * getattr(array, "ndim", 1)
        elif name in _ROWS:
            array = _array(value, 2)
            expected = (sizes.setdefault(_ROWS[name][0], 0 if array is None else len(array)), n)
        else:
            array = _array(value, 1)
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
                seen[id(value)] = _array(value, ndim)
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


class _SingleFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Single, *tensors: Tensor) -> Any:  # type: ignore[override]
        ctx.call = call
        ctx.set_materialize_grads(False)
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*tensors)
        # Copies: the caller may overwrite the results, and the backward needs them.
        return tuple(torch.from_numpy(field.copy()) for field in call.fields)

    jvp = refuse_forward_mode("SOCPLayer")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_transforms("SOCPLayer", grads)
        call: _Single = ctx.call
        # Raises where an argument was changed in place.
        tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_again(call, tensors, ctx.needs_input_grad[1:], grads))
        methods, problem = call.methods, call.problem
        s = call.solution
        incoming = [
            np.zeros(len(value)) if g is None else g.detach().numpy()
            for g, value in zip(grads, (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub), strict=False)
        ]
        with blas_for(_entries(problem)):
            found, cones = cone_adjoint(
                problem,
                call.solution,
                *incoming,
                dcones=[None if g is None else g.detach().numpy() for g in grads[5:]],
                solver=methods.backward,
                options=methods.backward_options,
            )
            out = [
                _gradient(name, problem, found, cones) if want else None
                for name, want in zip(call.names, ctx.needs_input_grad[1:], strict=True)
            ]
        return (None, *out)


def _again(
    call: _Single,
    tensors: Sequence[Tensor],
    wanted: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    points = tuple(torch.from_numpy(field.copy()) for field in call.fields)
    point = Known({"call": call}, points, _SingleFunction.backward).again(*tensors)
    views = [view(t, w) for t, w in zip(tensors, wanted, strict=True)]
    seen = [t if v is None else v for t, v in zip(tensors, views, strict=True)]
    own, same = (_program(call, given) for given in (tensors, seen))
    return pulled(cone_pairing(own, same, call.problem, call.solution, point, grads), views)


def _program(call: _Single, tensors: Sequence[Tensor]) -> ConeProgram:
    """The program's parameters as dense tensors."""
    linear_part: dict[str, Tensor] = {}
    cones: list[dict[str, Tensor]] = [{} for _ in call.problem.cones]
    for name, tensor in zip(call.names, tensors, strict=True):
        if isinstance(name, tuple):
            cones[name[0]][name[1]] = tensor
        else:
            flat = name == "P" and tensor.ndim == 1
            linear_part[name] = torch.diag(tensor) if flat else tensor
    parts = [
        (own.get("F"), own.get("g"), own.get("c"), own.get("d", torch.tensor(cone[3]).double()))
        for own, cone in zip(cones, call.problem.cones, strict=True)
    ]
    return ConeProgram(linear_part, parts)


def _gradient(name: Any, problem: SOCP, a: Adjoint, cones: Sequence[ConeGradient]) -> Tensor:
    """The gradient in one tensor; the formulas of Adjoint and ConeGradient."""
    if isinstance(name, tuple):
        i, part = name
        cone = cones[i]
        if part == "d":
            return torch.tensor(cone.d, dtype=torch.float64)
        if part == "g":
            return torch.from_numpy(cone.g.copy())
        if part == "c":
            return torch.from_numpy(cone.d * a.at_z - cone.t * a.z)
        return torch.from_numpy(np.outer(cone.g, a.at_z) - np.outer(cone.w, a.z))
    match name:
        case "P" if isinstance(problem.qp.P, FactorMatrix):
            return torch.from_numpy(a.z * a.at_z)
        case "P":
            half = np.outer(0.5 * a.z, a.at_z)
            return torch.from_numpy(half + half.T)
        case "q":
            return torch.from_numpy(a.z.copy())
        case "A":
            return torch.from_numpy(np.outer(a.nu, a.at_z) + np.outer(a.at_nu, a.z))
        case "G":
            return torch.from_numpy(np.outer(a.lam, a.at_z) + np.outer(a.at_lam, a.z))
        case "b":
            return torch.from_numpy(-a.nu)
        case "h":
            return torch.from_numpy(-a.lam)
        case "lb":
            return torch.from_numpy(a.lb.copy())
        case _:
            return torch.from_numpy(a.ub.copy())
