"""No short positions: w >= 0, whatever other bounds say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ....errors import ConfigError
from ..parts import Bound
from .base import MarketView, Term


@dataclass(frozen=True, eq=False)
class LongOnly(Term):
    """w ≥ 0 where ``limit`` is true, w ≥ −1 where it is false; the first holds without being said,
    unless ``min_weights`` is.

    Parameters
    ----------
    limit : whether short positions are refused.

    Raises
    ------
    ConfigError
        A limit that is neither true nor false.
    """

    limit: bool = True
    name: ClassVar[str] = "long_only"
    unit: ClassVar[str] = "fraction of the account"
    example: ClassVar[Mapping[str, Any]] = {"long_only": False}
    sets_lower: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.limit, bool):
            raise ConfigError(f"long_only: expected true or false, got {self.limit!r}.")

    def __str__(self) -> str:
        return "long_only: weights >= 0" if self.limit else "long_only: off, weights >= -1"

    @property
    def allows_short(self) -> bool:
        return not self.limit

    @property
    def forbids_short(self) -> bool:
        return self.limit

    def parts(self, view: MarketView) -> Iterator[Bound]:
        yield Bound(*self.head(), lower=view.zero - float(not self.limit), base=True)
