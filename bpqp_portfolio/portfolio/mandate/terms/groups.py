"""Bounds on the weight of groups, such as sectors; absolute or relative to the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ....config import lookup
from .base import Draft, number, shown


@dataclass(frozen=True, eq=False)
class Groups:
    """lower ≤ Σ_{i in group} wᵢ ≤ upper, fractions, for each group of the market.

    ``limit`` (``max``) and ``lower`` (``min``) are numbers for all groups or mappings group →
    number; with ``relative`` they bound the difference from the benchmark's weight.
    """

    limit: Any = None
    lower: Any = None
    relative: bool = False
    name: ClassVar[str] = "groups"

    def __post_init__(self) -> None:
        for key in ("limit", "lower"):
            value = getattr(self, key)
            for group, one in value.items() if isinstance(value, dict) else [("all", value)]:
                if one is not None:
                    number(one, f"groups.{key}.{group}")

    def __str__(self) -> str:
        parts = [
            f"{group} {sign} {shown(one)}"
            for value, sign in ((self.lower, ">="), (self.limit, "<="))
            for group, one in (value.items() if isinstance(value, dict) else [("each", value)])
            if one is not None
        ]
        tail = " (relative to the benchmark)" if self.relative else ""
        return f"groups: {', '.join(parts)}{tail}"

    def apply(self, draft: Draft) -> None:
        members = draft.market.members()
        draft.used.add("groups")
        for value in (self.limit, self.lower):
            if isinstance(value, dict):
                for group in value:
                    lookup(members, group, "group")
        tail = " of the benchmark's" if self.relative else ""
        for group, own in members.items():
            base: Any = 0.0
            if self.relative:
                base = (own * draft.needed("benchmark", self.name)).sum(-1)
            for value, floor in ((self.limit, False), (self.lower, True)):
                one = value.get(group) if isinstance(value, dict) else value
                if one is not None:
                    words = f"groups: {group} {'>=' if floor else '<='} {shown(one)}{tail}"
                    draft.row(self.name, words, own, one + base, floor=floor)
