"""Which coordinates have which bounds, and their duals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .matrices import Array


@dataclass(frozen=True, eq=False)
class BoundPlaces:
    """Which coordinates have equal bounds (``fixed``), and else a finite lower or upper one."""

    fixed: Array
    lower: Array
    upper: Array

    @classmethod
    def of(cls, lb: Array, ub: Array) -> BoundPlaces:
        """The places, as indices, of bounds (n,)."""
        equal = lb == ub
        finite = (np.flatnonzero(np.isfinite(bound) & ~equal) for bound in (lb, ub))
        return cls(np.flatnonzero(equal), *finite)

    def duals(
        self, n: int, on_fixed: Array, on_lower: Array, on_upper: Array
    ) -> tuple[Array, Array]:
        """λ_lb and λ_ub (n,) from the duals at the places; a fixed coordinate's is split by sign:
        it is λ_ub where it is positive."""
        lam_lb, lam_ub = np.zeros(n), np.zeros(n)
        lam_lb[self.lower], lam_ub[self.upper] = on_lower, on_upper
        lam_lb[self.fixed], lam_ub[self.fixed] = split_by_sign(on_fixed)
        return lam_lb, lam_ub


def split_by_sign(duals: Array) -> tuple[Array, Array]:
    """λ_lb and λ_ub ≥ 0 of bounds whose duals λ_ub − λ_lb are given."""
    return np.maximum(-duals, 0.0), np.maximum(duals, 0.0)
