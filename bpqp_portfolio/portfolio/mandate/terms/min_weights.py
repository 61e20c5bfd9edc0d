"""Smallest weights: w >= l, one number or by name; below zero it allows short positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..parts import Bound
from .base import ByName, MarketView, Term, check_each, shown


@dataclass(frozen=True, eq=False)
class MinWeights(Term):
    """w ≥ ``limit`` in place of 0.

    Parameters
    ----------
    limit : smallest weight: a number, or code → number (with ``default`` for the rest, otherwise
        0); in Python a tensor (n,) or (T, n) too. Below zero it allows short positions.
    """

    limit: ByName
    name: ClassVar[str] = "min_weights"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"min_weights": 0.01}
    sets_lower: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_each(self.limit, self.name)

    def __str__(self) -> str:
        return f"min_weights: weights >= {shown(self.limit)}"

    @property
    def allows_short(self) -> bool:
        values = self.limit.values() if isinstance(self.limit, dict) else [self.limit]
        return any(bool(torch.as_tensor(v).lt(0).any()) for v in values)

    def parts(self, view: MarketView) -> Iterator[Bound]:
        yield Bound(*self.head(), lower=view.per_name(self.limit, 0.0), base=True)
