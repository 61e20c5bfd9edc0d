"""The cones of a call: tensors (F, g, c, d) to the cones of every item, and gradients back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError
from ..problems.socp import SecondOrderCone, check_cone_shapes, cone_parts
from ..solvers.conic.adjoint import ConeGradient
from ..solvers.qp.adjoint import Adjoint
from .arguments import Argument, Pattern, shaped
from .items import Batch, flat_array, flat_shape, float_shape, lead
from .socp_second_order import ConeValues

_TRAILING = {"F": 2, "g": 1, "c": 1, "d": 0}


@dataclass(frozen=True)
class Cone:
    """One cone of a call: those of its parts that are tensors, r, and where a sparse F stands."""

    tensors: dict[str, Tensor]
    r: int
    pattern: Pattern | None = None

    def trailing(self, part: str) -> int:
        """How many dimensions of a part's tensor belong to one item."""
        return 1 if self.is_sparse(part) else _TRAILING[part]

    def is_sparse(self, part: str) -> bool:
        """Whether ``part`` is a sparse F."""
        return part == "F" and self.pattern is not None

    def places(self, part: str, batch: Batch) -> np.ndarray:
        """Which of a part's own items every item of the batch uses."""
        return batch.positions(lead(self.tensors[part], self.trailing(part)))

    def dense_item(self, tensors: Iterator[Tensor], batch: Batch, item: int) -> ConeValues:
        """(F, g, c, d) of ``item``, dense and in float64, as functions of ``tensors``."""
        parts: dict[str, Tensor] = {}
        for part in self.tensors:
            tensor = next(tensors)
            if part == "F" and self.pattern is not None:
                parts[part] = self.pattern.dense(tensor)
            else:
                flat = tensor.reshape(flat_shape(tensor, self.trailing(part)))
                parts[part] = flat[int(self.places(part, batch)[item])].to("cpu", torch.float64)
        return parts.get("F"), parts.get("g"), parts.get("c"), parts["d"]

    def gradient(
        self,
        part: str,
        tensor: Tensor,
        batch: Batch,
        items: np.ndarray,
        gradients: Sequence[ConeGradient],
        found: Sequence[Adjoint],
    ) -> Tensor:
        """Gradient in one part, summed over the items that share it."""
        at = self.pattern
        out = np.zeros(flat_shape(tensor, self.trailing(part)))
        places = self.places(part, batch)[items]
        for place, own, a in zip(places, gradients, found, strict=True):
            if part == "F" and at is not None:
                out[place] += own.g[at.rows] * a.at_z[at.columns] - own.w[at.rows] * a.z[at.columns]
            else:
                out[place] += part_gradient(part, own, a)
        return shaped(out, tensor)


def part_gradient(part: str, cone: ConeGradient, a: Adjoint) -> Any:
    """Gradient in one part of one item's cone; the formulas of :class:`ConeGradient`."""
    match part:
        case "F":
            return np.outer(cone.g, a.at_z) - np.outer(cone.w, a.z)
        case "c":
            return cone.d * a.at_z - cone.t * a.z
        case "g":
            return cone.g
        case _:
            return cone.d


def read_cones(cones: Sequence[Any], q: Tensor) -> list[Cone]:
    """The cones that a caller passed.

    Raises
    ------
    ProblemError
        Names cone and part: not a cone, a part of the wrong shape, dtype or layout.
    """
    # The sparse F met so far, by identity.
    patterns: dict[int, Argument] = {}
    return [_read_cone(i, cone, q, patterns) for i, cone in enumerate(cones)]


def _read_cone(index: int, cone: Any, q: Tensor, patterns: dict[int, Argument]) -> Cone:
    parts = cone_parts(index, cone)._asdict()
    if isinstance(parts["d"], int | float):
        parts["d"] = torch.as_tensor(float(parts["d"]), dtype=q.dtype, device=q.device)
    F, pattern = parts["F"], None
    if isinstance(F, Tensor) and F.layout is not torch.strided:
        name = f"cones[{index}].F"
        if F.layout not in (torch.sparse_coo, torch.sparse_csr) or F.ndim != 2 or F.dense_dim():
            raise ProblemError(
                f"{name}: a sparse F is a single matrix in COO or CSR layout, without batch or "
                f"dense dimensions; got shape {tuple(F.shape)}, {F.layout}."
            )
        float_shape(name, F)
        if id(F) not in patterns:
            patterns[id(F)] = Argument.of("G", F)
        pattern, parts["F"] = patterns[id(F)].pattern, patterns[id(F)].tensors[0]
    shapes = {k: float_shape(f"cones[{index}].{k}", v) for k, v in parts.items()}
    if pattern is not None:
        shapes["F"] = pattern.shape
    r = check_cone_shapes(index, shapes, q.shape[-1])
    return Cone({k: v for k, v in parts.items() if v is not None}, r, pattern)


def item_cones(cones: Sequence[Cone], batch: Batch) -> list[list[SecondOrderCone]]:
    """The cones of every item as arrays.

    A tensor that several cones use is read once, so that its cones are known to be alike.
    """
    seen: dict[int, list[Any]] = {}
    columns: list[dict[str, tuple[list[Any], np.ndarray]]] = []
    for cone in cones:
        parts = {}
        for part, tensor in cone.tensors.items():
            if id(tensor) not in seen:
                own: list[Any] = list(flat_array(tensor, cone.trailing(part)))
                if part == "F" and cone.pattern is not None:
                    own = [cone.pattern.matrix(values) for values in own]
                seen[id(tensor)] = own
            parts[part] = seen[id(tensor)], cone.places(part, batch)
        columns.append(parts)
    return [
        [
            SecondOrderCone(
                *(p[k][0][p[k][1][item]] if k in p else None for k in SecondOrderCone._fields)
            )
            for p in columns
        ]
        for item in range(batch.items)
    ]
