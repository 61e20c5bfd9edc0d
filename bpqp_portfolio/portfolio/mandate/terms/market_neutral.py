"""Market neutral: as much short as long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ....errors import ConfigError
from ..parts import Row, Sense
from .base import MarketView, Term


@dataclass(frozen=True, eq=False)
class MarketNeutral(Term):
    """1ᵀw = 0 in place of the budget; needs short positions (``min_weights`` or ``long_only:
    false``).

    Parameters
    ----------
    limit : true; leave the name out otherwise.

    Raises
    ------
    ConfigError
        Any other limit than true.
    """

    limit: bool = True
    name: ClassVar[str] = "market_neutral"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"market_neutral": True, "min_weights": -0.2}
    sets_budget: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.limit is not True:
            raise ConfigError(
                f"market_neutral: expected true, got {self.limit!r}; leave it out for a budget."
            )

    def __str__(self) -> str:
        return "market_neutral: weights sum to 0"

    @property
    def allows_short(self) -> bool:
        """Nothing is held without short positions."""
        return True

    def parts(self, view: MarketView) -> Iterator[Row]:
        yield Row(*self.head(), view.zero + 1.0, view.per_day(0.0, self.name), Sense.EQUAL)
