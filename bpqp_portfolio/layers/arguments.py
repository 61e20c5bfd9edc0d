"""A layer's arguments: tensors to checked matrices of every item, and gradients back to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..errors import ProblemError
from ..problems.matrices import FactorMatrix, Matrix
from ..problems.qp import QP, all_sound, check_argument, check_shapes
from ..solvers.common.parallel import blas_for
from ..solvers.qp.adjoint import Adjoint
from .items import Batch, flat_array, flat_shape, float_shape, lead

_MATRICES = ("P", "A", "G")
_LAYOUTS = (torch.sparse_coo, torch.sparse_csr)


@dataclass(frozen=True)
class Pattern:
    """Where the values of a sparse tensor stand."""

    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]

    def matrix(self, values: np.ndarray) -> Any:
        """The csr_array with these values."""
        return sparse.csr_array((values, (self.rows, self.columns)), shape=self.shape)

    def dense(self, values: Tensor) -> Tensor:
        """The dense float64 matrix with these values on the CPU, a function of them."""
        own = values.to("cpu", torch.float64)
        at = torch.as_tensor(self.rows), torch.as_tensor(self.columns)
        return own.new_zeros(self.shape).index_put(at, own, accumulate=True)


@dataclass(frozen=True)
class Argument:
    """One argument of a QP: its kind, and the tensors that carry its numbers.

    ``kind`` is "dense" (a matrix or vector), "diagonal" (P as a vector), "factor" (P as B and d)
    or "sparse" (the values, with their ``pattern``). ``names`` and ``trailing`` are, for each
    tensor, what to call it and how many of its dimensions belong to one item.
    """

    name: str
    kind: str
    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    trailing: tuple[int, ...]
    shape: tuple[int, ...]
    pattern: Pattern | None = None

    @classmethod
    def of(cls, name: str, value: Any, n: int | None = None) -> Argument:
        """Read what a caller passed as ``name``; ``n``, for P, is the number of variables.

        Raises
        ------
        ProblemError
            Not a tensor of floating point numbers; a sparse tensor with batch dimensions.
        """
        if name == "P" and isinstance(value, (tuple, list)):
            return cls._factor(value)
        if isinstance(value, Tensor) and value.layout is not torch.strided:
            return cls._sparse(name, value)
        shape = float_shape(name, value)
        assert shape is not None
        if (
            name == "P"
            and n is not None
            and shape[-1:] == (n,)
            and (len(shape) == 1 or shape[-2] != n)
        ):
            return cls(name, "diagonal", (value,), (name,), (1,), (*shape, n))
        return cls(name, "dense", (value,), (name,), (2 if name in _MATRICES else 1,), shape)

    @classmethod
    def _factor(cls, value: Any) -> Argument:
        if len(value) != 2:
            raise ProblemError(
                f"P: a pair (B, d) stands for B Bᵀ + diag(d), got {len(value)} items."
            )
        B, d = value
        shape_B, shape_d = float_shape("P's B", B), float_shape("P's d", d)
        if shape_B is None or shape_d is None:
            raise ProblemError("P: both of (B, d) are required; B may have no columns.")
        if len(shape_B) < 2 or len(shape_d) < 1 or shape_B[-2] != shape_d[-1]:
            raise ProblemError(
                f"P: in the pair (B, d), B is (..., n, k) and d (..., n), got {shape_B} and "
                f"{shape_d}."
            )
        n = shape_d[-1]
        return cls("P", "factor", (B, d), ("P's B", "P's d"), (2, 1), (n, n))

    @classmethod
    def _sparse(cls, name: str, value: Tensor) -> Argument:
        flat = value.ndim == 2 and value.dense_dim() == 0
        if (
            name not in _MATRICES
            or value.layout not in _LAYOUTS
            or not (flat and value.is_floating_point())
        ):
            raise ProblemError(
                f"{name}: a sparse tensor may be P, A or G, a single floating point matrix in COO "
                f"or CSR layout without batch or dense dimensions; got shape "
                f"{tuple(value.shape)}, {value.dtype}, {value.layout}."
            )
        if value.layout is torch.sparse_csr:
            pointers = value.crow_indices().cpu().numpy()
            rows = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
            columns = value.col_indices().cpu().numpy()
        else:
            value = value.coalesce()
            rows, columns = value.indices().cpu().numpy()
        shape = (int(value.shape[0]), int(value.shape[1]))
        pattern = Pattern(rows, columns, shape)
        return cls(name, "sparse", (value.values(),), (name,), (1,), shape, pattern)

    def stacked(self) -> np.ndarray:
        """The distinct matrices of a dense argument in one array, float64."""
        return flat_array(self.tensors[0], self.trailing[0])

    def own_items(self, batch: Batch) -> tuple[list[Matrix], np.ndarray]:
        """The distinct matrices of this argument, and which of them every item uses (T,)."""
        flat = [flat_array(t, k) for t, k in zip(self.tensors, self.trailing, strict=True)]
        places = self.places(batch)
        if self.kind == "factor":
            pairs, which = np.unique(np.stack(places), axis=1, return_inverse=True)
            return [FactorMatrix(flat[0][i], flat[1][j]) for i, j in pairs.T], which.reshape(-1)
        if self.kind == "sparse":
            assert self.pattern is not None
            return [self.pattern.matrix(flat[0].reshape(-1))], places[0]
        own = list(flat[0])
        if self.kind == "diagonal":
            own = [FactorMatrix(np.zeros((len(d), 0)), d) for d in own]
        return own, places[0]

    def places(self, batch: Batch) -> list[np.ndarray]:
        """For each tensor, which of its own items every item of the batch uses."""
        return [
            np.zeros(batch.items, dtype=int)
            if self.kind == "sparse"
            else batch.positions(lead(t, k))
            for t, k in zip(self.tensors, self.trailing, strict=True)
        ]

    def dense_item(self, tensors: Sequence[Tensor], batch: Batch, item: int) -> Tensor:
        """What ``item`` uses, dense and in float64 on the CPU, a function of ``tensors``."""
        if self.kind == "sparse":
            assert self.pattern is not None
            return self.pattern.dense(tensors[0])
        parts = [
            t.reshape(flat_shape(t, k))[int(place[item])].to("cpu", torch.float64)
            for t, k, place in zip(tensors, self.trailing, self.places(batch), strict=True)
        ]
        match self.kind:
            case "factor":
                return parts[0] @ parts[0].mT + torch.diag(parts[1])
            case "diagonal":
                return torch.diag(parts[0])
            case _:
                return parts[0]

    def gradients(
        self, found: Adjoint, items: np.ndarray, batch: Batch, problems: list[Any]
    ) -> list[np.ndarray]:
        """Gradients in the tensors, from the backward QPs of the solved ``items``."""
        shapes = [flat_shape(t, k) for t, k in zip(self.tensors, self.trailing, strict=True)]
        places = [place[items] for place in self.places(batch)]
        if self.kind == "sparse":
            assert self.pattern is not None
            columns, rows = _outer(self.name, found)
            products = columns[:, :, self.pattern.rows] * rows[:, :, self.pattern.columns]
            return [products.sum((0, 1))]
        if self.kind == "dense" and self.name in _MATRICES:
            return [_sum_outer(*_outer(self.name, found), places[0], shapes[0])]
        if self.kind == "factor":
            z, at = found.z, found.at_z
            in_B = np.stack([problem.P.B.T @ v for problem, v in zip(problems, z, strict=True)])
            at_B = np.stack([problem.P.B.T @ v for problem, v in zip(problems, at, strict=True)])
            own = _sum_outer(np.array((z, at)), np.array((at_B, in_B)), places[0], shapes[0])
            return [own, _sum(z * at, places[1], shapes[1])]
        values = (
            found.z * found.at_z if self.kind == "diagonal" else vector_gradient(self.name, found)
        )
        return [_sum(values, places[0], shapes[0])]


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call: those given, the sizes (n, p, m), and their tensors by name.

    ``trailing`` says of each tensor how many of its dimensions belong to one item.
    """

    given: list[Argument]
    sizes: tuple[int, int, int]
    tensors: dict[str, Tensor]
    trailing: dict[str, int]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Arguments:
        """Read what a caller passed by name, None for nothing.

        Raises
        ------
        ProblemError
            What :meth:`Argument.of` refuses; shapes that do not fit each other.
        """
        q = values["q"]
        n = int(q.shape[-1]) if isinstance(q, Tensor) and q.ndim else None
        given = [Argument.of(k, v, n) for k, v in values.items() if v is not None]
        shapes = {argument.name: argument.shape for argument in given}
        sizes = check_shapes({"P": None if n is None else (n, n), **shapes})
        tensors: dict[str, Tensor] = {}
        trailing: dict[str, int] = {}
        for a in given:
            tensors |= dict(zip(a.names, a.tensors, strict=True))
            trailing |= dict(zip(a.names, a.trailing, strict=True))
        return cls(given, sizes, tensors, trailing)

    def programs(
        self,
        batch: Batch,
        build: Callable[[int, QP], Any],
        no_P: Matrix,
        change: Callable[[Any], Any] | None = None,
    ) -> tuple[dict[int, Any], dict[int, ProblemError]]:
        """Every item's program, and what is wrong with the data of those that have none.

        ``build`` makes an item's program from its QP, whose P is ``no_P`` where none was given;
        ``change`` is put on each distinct P.
        """
        columns, refused = self._items(batch, change)
        columns.setdefault("P", [no_P] * batch.items)
        problems: dict[int, Any] = {}
        for item in range(batch.items):
            if item in refused:
                continue
            own = {name: column[item] for name, column in columns.items()}
            try:
                problems[item] = build(item, QP.of_checked(self.sizes[0], own))
            except ProblemError as error:
                refused[item] = error
        return problems, refused

    def _items(
        self, batch: Batch, change: Callable[[Any], Any] | None
    ) -> tuple[dict[str, list[Any]], dict[int, ProblemError]]:
        """What every item has of each argument, and what is wrong with items that have bad data."""
        refused: dict[int, ProblemError] = {}
        columns: dict[str, list[Any]] = {}
        for argument in self.given:
            own, places = argument.own_items(batch)
            sound = argument.kind == "dense" and all_sound(argument.name, argument.stacked())
            checked: list[Any] = list(own) if sound else []
            for position, value in enumerate(() if sound else own):
                try:
                    checked.append(check_argument(argument.name, value))
                except ProblemError as error:
                    checked.append(None)
                    for item in np.flatnonzero(places == position).tolist():
                        refused.setdefault(item, error)
            if change and argument.name == "P":
                checked = [None if P is None else change(P) for P in checked]
            columns[argument.name] = [checked[place] for place in places]
        return columns, refused

    def dense_item(self, tensors: Iterator[Tensor], batch: Batch, item: int) -> dict[str, Tensor]:
        """What ``item`` uses of each argument, dense, as functions of ``tensors``."""
        return {
            a.name: a.dense_item([next(tensors) for _ in a.tensors], batch, item)
            for a in self.given
        }

    def gradients(
        self,
        found: Adjoint,
        items: np.ndarray,
        batch: Batch,
        problems: list[Any],
        tensors: Iterator[tuple[bool, Tensor]],
    ) -> list[Tensor | None]:
        """Gradients in the tensors, of which the iterator says whether each is wanted."""
        out: list[Tensor | None] = []
        for argument in self.given:
            own = [next(tensors) for _ in argument.tensors]
            if not any(want for want, _ in own):
                out += [None] * len(own)
                continue
            with blas_for(self.sizes[0] ** 2):
                arrays = argument.gradients(found, items, batch, problems)
            for (want, tensor), array in zip(own, arrays, strict=True):
                out.append(shaped(array, tensor) if want else None)
        return out

    @property
    def kinds(self) -> list[str]:
        """The kind of each tensor."""
        return [a.kind for a in self.given for _ in a.tensors]


def shaped(array: np.ndarray, tensor: Tensor) -> Tensor:
    """An array as a tensor of the shape, dtype and device of ``tensor``."""
    return torch.from_numpy(array).reshape(tensor.shape).to(tensor)


def _outer(name: str, found: Adjoint) -> tuple[np.ndarray, np.ndarray]:
    """The two columns (2, T, r) and two rows (2, T, n) whose products add up to the gradient."""
    if name == "P":
        return np.array((found.z, found.at_z)), 0.5 * np.array((found.at_z, found.z))
    dual, at = (found.nu, found.at_nu) if name == "A" else (found.lam, found.at_lam)
    return np.array((dual, at)), np.array((found.at_z, found.z))


def vector_gradient(name: str, found: Adjoint) -> np.ndarray:
    """Gradient in a vector of the program, by the formulas of :class:`Adjoint`."""
    match name:
        case "q":
            return found.z
        case "b":
            return -found.nu
        case "h":
            return -found.lam
        case "lb":
            return found.lb
        case _:
            return found.ub


def _sum_outer(
    columns: np.ndarray, rows: np.ndarray, places: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Outer products (2, T, r) × (2, T, n) of every item, summed over those that share a matrix."""
    if shape[0] == 1:
        two, items, r = columns.shape
        flat = columns.reshape(two * items, r)
        return (flat.T @ rows.reshape(two * items, -1))[None]
    return _sum(np.matmul(columns.transpose(1, 2, 0), rows.swapaxes(0, 1)), places, shape)


def _sum(values: np.ndarray, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``values`` (T, ...) of the items, summed into their places of an array of ``shape``."""
    if shape[0] == len(places) and np.array_equal(places, np.arange(len(places))):
        return values
    out = np.zeros(shape)
    np.add.at(out, places, values)
    return out
