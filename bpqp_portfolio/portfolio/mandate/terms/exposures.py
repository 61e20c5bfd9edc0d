"""Bounds on factor exposures, absolute or relative to the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ....config import lookup
from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class Exposures:
    """lower ≤ Σᵢ Xᵢⱼ wᵢ ≤ upper for named exposures j of the market, in the exposures' units.

    ``limit`` (upper) and ``lower`` map exposure → number, or are one number for all; with
    ``relative`` the exposure of w − w_b is bounded.
    """

    limit: Any = None
    lower: Any = None
    relative: bool = False
    name: ClassVar[str] = "exposures"

    def __post_init__(self) -> None:
        for key in ("limit", "lower"):
            value = getattr(self, key)
            for exposure, one in value.items() if isinstance(value, dict) else [("all", value)]:
                if one is not None:
                    number(one, f"exposures.{key}.{exposure}")

    @property
    def named(self) -> tuple[str, ...]:
        """Exposures that are bounded by name."""
        maps = [value for value in (self.limit, self.lower) if isinstance(value, dict)]
        return tuple(dict.fromkeys(str(key) for value in maps for key in value))

    @property
    def every(self) -> bool:
        """Whether a number bounds all exposures of the market."""
        bounds = (self.limit, self.lower)
        return any(value is not None and not isinstance(value, dict) for value in bounds)

    def __str__(self) -> str:
        parts = [
            f"{key} {sign} {shown(one)}"
            for value, sign in ((self.lower, ">="), (self.limit, "<="))
            for key, one in (value.items() if isinstance(value, dict) else [("each", value)])
            if one is not None
        ]
        tail = " (relative to the benchmark)" if self.relative else ""
        return f"exposures: {', '.join(parts)}{tail}"

    def apply(self, draft: Draft) -> None:
        X = draft.needed("exposures", self.name)
        names = draft.market.exposure_names or [str(j) for j in range(X.shape[-1])]
        known = {str(key): j for j, key in enumerate(names)}
        for value, floor in ((self.limit, False), (self.lower, True)):
            if value is None:
                continue
            pairs = value if isinstance(value, dict) else dict.fromkeys(known, value)
            for key, one in pairs.items():
                if one is None:
                    continue
                column = X[..., lookup(known, key, "exposure")]
                base: Any = 0.0
                if self.relative:
                    base = (column * draft.needed("benchmark", self.name)).sum(-1)
                words = f"exposures: {key} {'>=' if floor else '<='} {shown(one)}"
                draft.row(self.name, words, column, one + base, floor=floor)
