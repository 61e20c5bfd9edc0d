"""A caller's own function as a solver of smooth programs: its point is kept as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import SolverError
from ...problems.convex import ConvexProgram
from ..common.protocol import SolverOptions
from .base import SmoothSolver
from .finalize import RawPoint


@dataclass(frozen=True)
class GivenPoint(SmoothSolver):
    """``function`` (program, z0 (n,) float64) → z (n,), or (z, nu (p,), lam (m,)).

    It returns arrays or tensors; z0 is the initial point of ``program``, a
    :class:`~bpqp_portfolio.problems.convex.ConvexProgram`. Settings are bound to it, for instance
    with ``functools.partial``.
    """

    function: Callable[[ConvexProgram, Any], Any]
    name: str = field(init=False)
    given = True

    def __post_init__(self) -> None:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        object.__setattr__(self, "name", name)

    def find(self, program: ConvexProgram, options: SolverOptions) -> RawPoint:
        """The function's point.

        Raises
        ------
        SolverError
            The function returned something else than a point.
        """
        result = self.function(program, program.initial_point.copy())
        parts = result if isinstance(result, tuple) else (result,)
        if len(parts) not in (1, 3):
            raise SolverError(f"{self.name}: expected z or (z, nu, lam), got {len(parts)} values.")
        arrays: list[Any] = []
        sizes = {"z": program.n, "nu": program.p, "lam": program.m}
        for (part, size), value in zip(sizes.items(), parts, strict=False):
            if hasattr(value, "detach"):
                value = value.detach().cpu().numpy()
            array = np.array(value, dtype=np.float64)
            if array.shape != (size,):
                raise SolverError(
                    f"{self.name}: expected {part} of shape ({size},), got {array.shape}."
                )
            arrays.append(array)
        return RawPoint(*arrays)
