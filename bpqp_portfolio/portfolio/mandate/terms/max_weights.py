"""Largest weights: w <= u, one number or by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..parts import Bound
from .base import ByName, MarketView, Term, check_each, shown


@dataclass(frozen=True, eq=False)
class MaxWeights(Term):
    """w ≤ ``limit``, and never above 1.

    Parameters
    ----------
    limit : largest weight: a number, or code → number (with ``default`` for the rest, otherwise 1);
        in Python a tensor (n,) or (T, n) too. The training problem has the largest of them.
    """

    limit: ByName
    name: ClassVar[str] = "max_weights"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"max_weights": 0.15}

    def __post_init__(self) -> None:
        check_each(self.limit, self.name)

    def __str__(self) -> str:
        return f"max_weights: weights <= {shown(self.limit)}"

    def parts(self, view: MarketView) -> Iterator[Bound]:
        most = torch.minimum(view.zero + 1.0, view.per_name(self.limit, 1.0))
        yield Bound(*self.head(), upper=most, base=True)
