"""Weights near the benchmark's: |w - w_b| bounded name by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..parts import Bound
from .base import ByName, MarketView, Term, check_each, shown


@dataclass(frozen=True, eq=False)
class ActiveWeights(Term):
    """|wᵢ − w_bᵢ| ≤ ``limit``.

    Parameters
    ----------
    limit : largest distance from the benchmark's weight: a number, or code → number (with
        ``default`` for the rest, otherwise 1); in Python a tensor too.
    """

    limit: ByName
    name: ClassVar[str] = "active_weights"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"active_weights": 0.05}
    needs: ClassVar[tuple[str, ...]] = ("benchmark",)

    def __post_init__(self) -> None:
        check_each(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"active_weights: within {shown(self.limit)} of the benchmark"

    def parts(self, view: MarketView) -> Iterator[Bound]:
        base = view.needed("benchmark", self.name)
        reach = view.per_name(self.limit, 1.0)
        rate = torch.ones_like(base)
        yield Bound(*self.head(), base - reach, base + reach, centre=base, rate=rate)
