"""Units: the same problem with z, the objective and every row measured in others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .problem import Array, Problem, Random

_RANGE = (-8.0, 8.0)


@dataclass(frozen=True)
class Units:
    """z is multiplied by ``z``, the objective by ``objective``, rows and cones by the others."""

    z: float
    objective: float
    rows_A: Array
    rows_G: Array
    cones: Array

    @classmethod
    def draw(cls, rng: Random, problem: Problem) -> Units:
        """None in a third of the draws, else one of them alone, or all."""
        choice = rng.choice(
            ["none", "z", "objective", "rows", "all"], p=[0.3, 0.2, 0.1, 0.15, 0.25]
        )

        def factors(kind: str, *count: int) -> Any:
            drawn = 10.0 ** rng.uniform(*_RANGE, count or None)
            return drawn if choice in (kind, "all") else np.ones_like(drawn) if count else 1.0

        return cls(
            float(factors("z")),
            float(factors("objective")),
            factors("rows", len(problem.b)),
            factors("rows", len(problem.h)),
            factors("rows", len(problem.cones)),
        )

    def factors(self, problem: Problem) -> dict[str, Any]:
        """Argument → factor that takes it from natural units to these."""
        c, s = self.z, self.objective
        out: dict[str, Any] = {
            "P": s / c**2,
            "q": s / c,
            "A": self.rows_A[:, None] / c,
            "b": self.rows_A,
            "G": self.rows_G[:, None] / c,
            "h": self.rows_G,
            "lb": c,
            "ub": c,
            "B": s**0.5 / c,
            "d": s / c**2,
        }
        for i, (cone, r) in enumerate(zip(problem.cones, self.cones, strict=True)):
            # An F that is not given is the identity in any unit.
            r = c if cone.F is None else r
            out |= {f"{i}.F": r / c, f"{i}.g": r, f"{i}.c": r / c, f"{i}.d": r}
        return out

    def __str__(self) -> str:
        parts = [
            f"{name} {value:.1e}"
            for name, value in (("z", self.z), ("objective", self.objective))
            if value != 1.0
        ]
        for name in ("rows_A", "rows_G", "cones"):
            values = getattr(self, name)
            if len(values) and (values != 1.0).any():
                parts.append(f"{name} {values.min():.0e}..{values.max():.0e}")
        return ", ".join(parts) or "natural"
