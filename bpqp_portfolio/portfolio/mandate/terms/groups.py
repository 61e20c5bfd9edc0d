"""Bounds on the weight of groups, such as sectors; absolute or relative to the benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Row, Sense
from .base import MarketView, Ranged, by_title, shown


@dataclass(frozen=True, eq=False)
class Groups(Ranged):
    """``lower`` ≤ Σ wᵢ over the names i of a group ≤ ``limit``, for each group of the market."""

    name: ClassVar[str] = "groups"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"groups": 0.3}

    def parts(self, view: MarketView) -> Iterator[Row]:
        members = view.groups()
        upper, lower = (by_title(value, members, "group") for value in (self.limit, self.lower))
        tail = " of the benchmark's" if self.relative else ""
        for group, own in members.items():
            base: Any = 0.0
            if self.relative:
                base = (own * view.needed("benchmark", self.name)).sum(-1)
            for limits, sense in ((upper, Sense.UPPER), (lower, Sense.LOWER)):
                if group in limits:
                    one = limits[group]
                    label = f"groups: {group} {sense.value} {shown(one)}{tail}"
                    yield Row(*self.head(label), own, view.per_day(one + base, label), sense)
