"""Quadratic (impact) cost around the drifted weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Form, Quadratic
from .base import ByName, MarketView, Term, check_each


@dataclass(frozen=True, eq=False)
class QuadraticCost(Term):
    """Adds Σ κᵢ(wᵢ−w⁰ᵢ)², with ``limit`` κ.

    It does not apply to a market without ``previous``.

    Parameters
    ----------
    limit : return that a trade of the whole account would cost: a number, or code → number (with
        ``default`` for the rest, otherwise 0); in Python a tensor too.
    """

    limit: ByName
    name: ClassVar[str] = "quadratic_cost"
    unit: ClassVar[str] = "return for a squared unit of weight traded"
    example: ClassVar[Mapping[str, Any]] = {"quadratic_cost": 0.005}
    is_cost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_each(self.limit, self.name, low=0)

    def parts(self, view: MarketView) -> Iterator[Quadratic]:
        if view.previous is not None:
            impact = Form(specific=2 * view.per_name(self.limit, 0.0), centre=view.previous)
            yield Quadratic(*self.head(), impact, view.per_day(1.0, self.name))
