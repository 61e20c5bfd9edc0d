"""Tracking-error penalty against the benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..parts import Quadratic
from .base import MarketView, Number, Term, number


@dataclass(frozen=True, eq=False)
class TrackingPenalty(Term):
    """Adds ½ ``limit`` (w−w_b)ᵀΣ(w−w_b) to the objective.

    Parameters
    ----------
    limit : aversion to the variance of the return over the benchmark's, as ``risk_aversion`` is to
        that of the portfolio's; in Python a tensor (T,) too.
    """

    limit: Number
    name: ClassVar[str] = "tracking_penalty"
    unit: ClassVar[str] = "1/(return per day)"
    example: ClassVar[Mapping[str, Any]] = {"tracking_penalty": 20.0}
    is_cost: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("benchmark",)

    def __post_init__(self) -> None:
        number(self.limit, self.name, low=0)

    def parts(self, view: MarketView) -> Iterator[Quadratic]:
        active = view.risk(view.needed("benchmark", self.name))
        yield Quadratic(*self.head(), active, view.per_day(self.limit, self.name))
