"""Bounds on factor exposures, absolute or relative to the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...config import lookup
from .base import Draft, shown


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
        X = draft.market.needed("exposures", self.name)
        names = draft.market.exposure_names or [str(j) for j in range(X.shape[-1])]
        known = {str(key): j for j, key in enumerate(names)}
        for value, sign, word in ((self.limit, 1.0, "<="), (self.lower, -1.0, ">=")):
            if value is None:
                continue
            pairs = value if isinstance(value, dict) else dict.fromkeys(known, value)
            for key, one in pairs.items():
                column = X[..., lookup(known, key, "exposure")]
                base: Any = 0.0
                if self.relative:
                    base = (column * draft.market.needed("benchmark", self.name)).sum(-1)
                words = f"exposures: {key} {word} {shown(one)}"
                draft.row(words, sign * column, sign * (one + base))
