"""A caller's own function as a solver of smooth programs: its point is kept as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import SolverError
from ...problems.convex import ConvexProgram, SmoothSolution
from ..common.cache import CacheEntry
from ..common.protocol import SolverOptions
from .finalize import RawPoint, finalize


@dataclass(frozen=True)
class GivenPoint:
    """``function`` (program, z0 (n,) float64) → z (n,), or (z, nu (p,), lam (m,)).

    It returns arrays or tensors; z0 is the initial point of ``program``, a
    :class:`~bpqp_portfolio.problems.convex.ConvexProgram`. Settings are bound to it, for instance
    with ``functools.partial``.
    """

    function: Callable[[ConvexProgram, Any], Any]
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def solve(
        self,
        problem: ConvexProgram,
        *,
        options: SolverOptions = SolverOptions(),  # noqa: B008
        entry: CacheEntry | None = None,
    ) -> SmoothSolution:
        """The function's point; see :class:`~bpqp_portfolio.solvers.common.protocol.Solver`.

        Raises
        ------
        SolverError
            The function returned something else than a point.
        """
        raw = self._raw_point(problem, self.function(problem, problem.initial_point.copy()))
        return finalize(problem, raw, solver=self.name, options=options, given=True)

    def _raw_point(self, program: ConvexProgram, result: Any) -> RawPoint:
        """What the function returned, its shapes checked."""
        parts = result if isinstance(result, tuple) else (result,)
        if len(parts) not in (1, 3):
            raise SolverError(f"{self.name}: expected z or (z, nu, lam), got {len(parts)} values.")
        arrays: list[Any] = []
        sizes = {"z": program.n, "nu": program.p, "lam": program.m}
        for (field, size), value in zip(sizes.items(), parts, strict=False):
            if hasattr(value, "detach"):
                value = value.detach().cpu().numpy()
            array = np.array(value, dtype=np.float64)
            if array.shape != (size,):
                raise SolverError(
                    f"{self.name}: expected {field} of shape ({size},), got {array.shape}."
                )
            arrays.append(array)
        return RawPoint(*arrays)
