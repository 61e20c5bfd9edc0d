"""Bounds on factor exposures, absolute or relative to the benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Row, Sense
from .base import MarketView, Ranged, by_title, shown


@dataclass(frozen=True, eq=False)
class Exposures(Ranged):
    """``lower`` ≤ Σᵢ Xᵢⱼ wᵢ ≤ ``limit`` for named exposures j of the market.

    One number for all needs a table of exposures.
    """

    name: ClassVar[str] = "exposures"
    unit: ClassVar[str] = "the exposure's own"
    example: ClassVar[Mapping[str, Any]] = {
        "exposures": {"limit": {"size": 0.1}, "lower": {"size": -0.1}}
    }

    @property
    def exposures_named(self) -> tuple[str, ...]:
        maps = [value for value in (self.limit, self.lower) if isinstance(value, dict)]
        return tuple(dict.fromkeys(str(key) for value in maps for key in value))

    @property
    def exposures_all(self) -> bool:
        """Whether a number bounds all exposures of the market."""
        bounds = (self.limit, self.lower)
        return any(value is not None and not isinstance(value, dict) for value in bounds)

    def parts(self, view: MarketView) -> Iterator[Row]:
        known = view.exposures(self.name)
        for value, sense in ((self.limit, Sense.UPPER), (self.lower, Sense.LOWER)):
            for title, one in by_title(value, known, "exposure").items():
                base: Any = 0.0
                if self.relative:
                    base = (known[title] * view.needed("benchmark", self.name)).sum(-1)
                label = f"exposures: {title} {sense.value} {shown(one)}"
                yield Row(*self.head(label), known[title], view.per_day(one + base, label), sense)
