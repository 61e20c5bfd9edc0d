"""What a layer asks of a cvxpy problem, its parameters and the tensors that stand for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ...errors import ConfigError, ProblemError
from ..items import float_shape, lead

# Attributes of a variable for which cvxpy solves for another one in its place.
_REPLACED = ("symmetric", "diag", "sparsity", "PSD", "NSD", "hermitian")
_SYMMETRIC = ("symmetric", "PSD", "NSD")
_SHOWN = 60
# Half the digits of the parameter's dtype.
_SYMMETRY = {torch.float64: 1e-8, torch.float32: 1e-4}


@dataclass(frozen=True, eq=False)
class ParameterShape:
    """What a tensor must look like to stand for a parameter.

    ``limits`` are least and largest values (size,), ``unused`` the places of entries that must be
    0, None for none; entries are counted row by row.
    """

    name: str
    shape: tuple[int, ...]
    limits: tuple[Tensor, Tensor] | None
    unused: Tensor | None
    symmetric: bool

    def lead(self, value: Any) -> tuple[int, ...]:
        """Batch dimensions of ``value``.

        Raises
        ------
        ProblemError
            Its shape or dtype does not fit.
        """
        shape, d = float_shape(self.name, value), len(self.shape)
        if shape is None or shape[len(shape) - d :] != self.shape:
            wanted = ", ".join(("...", *map(str, self.shape)))
            got = "None" if shape is None else f"shape {shape}"
            raise ProblemError(f"{self.name}: expected shape ({wanted}), got {got}.")
        return lead(value, d)

    def flat(self, value: Tensor) -> Tensor:
        """``value`` as a float64 tensor (..., size) on the CPU."""
        batch = self.lead(value)
        return value.to("cpu", torch.float64).reshape(*batch, math.prod(self.shape))

    def faults(self, value: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        """Which items of a flat value (..., size) are bad, by what they should have been."""
        own = value.detach()
        # A sum is finite unless an entry is not: much the cheaper test.
        found = {"finite numbers": ~own.sum(-1).isfinite()}
        if self.limits is not None:
            low, high = self.limits
            inside = (own >= low) & (own <= high) | own.isnan()
            found["entries of its declared sign or within its bounds"] = ~inside.all(-1)
        if self.unused is not None:
            outside = own[..., self.unused].abs().sum(-1)
            found["zeros outside its diagonal or pattern"] = outside > 0
        if self.symmetric:
            matrix = own.unflatten(-1, self.shape)
            gap = (matrix - matrix.mT).abs().amax((-2, -1))
            most = matrix.abs().amax((-2, -1))
            found["a symmetric matrix"] = gap > _SYMMETRY.get(dtype, 1e-2) * most
        return found


def check_lists(problem: Any, parameters: Sequence[Any], variables: Sequence[Any]) -> None:
    """Raise ConfigError unless the lists hold the problem's parameters and some of its variables.

    Also refused are parameters and variables of a kind that a layer cannot have.
    """
    for what, given in (("parameters", parameters), ("variables", variables)):
        if not isinstance(given, list | tuple):
            raise ConfigError(f"{what}: expected a list of cvxpy {what}, got {_kind(given)}.")
        own = {leaf.id: leaf.name() for leaf in getattr(problem, what)()}
        seen: set[int] = set()
        for i, leaf in enumerate(given):
            if getattr(leaf, "id", None) not in own:
                raise ConfigError(
                    f"{what}[{i}]: {leaf} is none of the problem's {what} "
                    f"({', '.join(own.values()) or 'it has none'})."
                )
            if what == "parameters" and leaf.id in seen:
                raise ConfigError(f"{what}[{i}]: {leaf.name()!r} is listed twice.")
            seen.add(leaf.id)
        missing = [name for k, name in own.items() if k not in seen]
        if what == "parameters" and missing:
            raise ConfigError(
                f"parameters: {', '.join(map(repr, missing))} of the problem missing; "
                "list all, in the order of the layer's tensors."
            )
    if not variables:
        raise ConfigError("variables: expected at least one variable, which the layer returns.")
    for leaf in parameters:
        if leaf.is_complex():
            raise ConfigError(
                f"parameter {leaf.name()!r} is complex; write it as two real parameters."
            )
    for leaf in problem.variables():
        name = f"variable {leaf.name()!r}"
        if leaf.is_complex():
            raise ConfigError(f"{name} is complex; write its real and imaginary part as two.")
        if leaf.attributes["boolean"] or leaf.attributes["integer"]:
            raise ConfigError(
                f"{name} is {'boolean' if leaf.attributes['boolean'] else 'integer'}; a solution "
                "over integers has no gradient: relax it to bounds."
            )
    for leaf in variables:
        for attribute in _REPLACED:
            if leaf.attributes[attribute] not in (None, False):
                raise ConfigError(
                    f"variable {leaf.name()!r} is declared {attribute}, for which cvxpy solves for "
                    "another variable; use a plain one with constraints, such as X == X.T."
                )


def check_dpp(problem: Any) -> None:
    """Raise ProblemError, naming objective or constraint, unless the problem is DPP."""
    from cvxpy.utilities import scopes

    if problem.is_dpp(quad_form_dpp="qp"):
        return
    for label, part in (
        ("objective", problem.objective),
        *((f"constraint {i}", c) for i, c in enumerate(problem.constraints)),
    ):
        where = f"problem: {label}, {_short(part)},"
        if not part.is_dcp():
            raise ProblemError(
                f"{where} does not follow cvxpy's rules for convexity (DCP), so nothing tells "
                "that it is convex; rewrite it, or use bp.ConvexLayer."
            )
        with scopes.quad_form_dpp_scope():
            relaxed = part.is_dcp(dpp=True)
        if not (relaxed if label == "objective" else part.is_dcp(dpp=True)):
            raise ProblemError(
                f"{where} is not DPP: its data are not affine in the parameters. Make a product "
                "or function of parameters one new parameter, computed in torch before the layer, "
                "and write quad_form(x, S) in a constraint as sum_squares(F @ x)."
            )
    raise ProblemError(
        "problem: not DPP, because of a variable's bounds; write them as constraints."
    )


def check_cones(dims: Any) -> None:
    """Raise ProblemError for cones other than linear and second-order ones."""
    others = {
        "exponential": dims.exp,
        "positive semidefinite": len(dims.psd),
        "power": len(dims.p3d) + len(dims.pnd),
    }
    named = [f"{count} {name}" for name, count in others.items() if count]
    if named:
        raise ProblemError(
            f"problem: it needs {' and '.join(named)} cone{'s' if sum(others.values()) > 1 else ''}"
            "; this layer has linear and second-order ones. bp.ConvexLayer takes smooth convex "
            "functions (entropy, logarithms, exponentials) as torch callables."
        )


def parameter_map(
    parameters: Sequence[Any], ids: Sequence[int], columns: Mapping[int, int]
) -> tuple[tuple[ParameterShape, ...], sparse.csr_array]:
    """The parameters' shapes, and the matrix from the user's numbers to cvxpy's.

    ``ids`` are those of the parameters that cvxpy made of them (half of a symmetric one, say), and
    ``columns`` where these stand in cvxpy's vector; both vectors end with a 1. The user's holds
    each parameter row by row.
    """
    from cvxpy.reductions.cvx_attr2constr import lower_value

    shapes, rows, cols, weights, start = [], [], [], [], 0
    for p, own in zip(parameters, ids, strict=True):
        place = np.arange(p.size).reshape(p.shape)
        symmetric = p.ndim == 2 and any(p.attributes[a] for a in _SYMMETRIC)
        used = np.zeros(p.size, dtype=bool)
        # Each entry of a symmetric matrix is read as the mean of the two, and so is its gradient.
        readings = (place, place.T) if symmetric else (place,)
        for reading in readings:
            taken = np.asarray(lower_value(p, reading)).ravel(order="F")
            used[taken] = True
            rows.append(columns[own] + np.arange(len(taken)))
            cols.append(start + taken)
            weights.append(np.full(len(taken), 1.0 / len(readings)))
        start += p.size
        unused = None if used.all() else torch.from_numpy(np.flatnonzero(~used))
        name = f"parameter {p.name()!r}"
        shapes.append(ParameterShape(name, tuple(p.shape), _limits(p), unused, symmetric))
    rows.append(np.array([columns[-1]]))
    cols.append(np.array([start]))
    weights.append(np.ones(1))
    places = np.concatenate(rows), np.concatenate(cols)
    size = (columns[-1] + 1, start + 1)
    return tuple(shapes), sparse.csr_array((np.concatenate(weights), places), shape=size)


def _limits(parameter: Any) -> tuple[Tensor, Tensor] | None:
    """Least and largest value of each entry, from its sign and bounds."""
    has, bounds = parameter.attributes, parameter.attributes.get("bounds")
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    if has["nonneg"] or has["pos"]:
        low = 0.0
    if has["nonpos"] or has["neg"]:
        high = 0.0
    if np.all(np.isneginf(low)) and np.all(np.isposinf(high)):
        return None
    lower, upper = (np.broadcast_to(v, parameter.shape).ravel() for v in (low, high))
    return torch.tensor(lower, dtype=torch.float64), torch.tensor(upper, dtype=torch.float64)


def _kind(value: Any) -> str:
    return type(value).__name__


def _short(part: Any) -> str:
    text = str(part)
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
