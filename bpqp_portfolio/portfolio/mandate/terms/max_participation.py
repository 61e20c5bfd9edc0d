"""Participation limit: each trade as a share of the name's average daily traded value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..parts import Bound
from .base import ByName, MarketView, Term, check_each, shown


@dataclass(frozen=True, eq=False)
class MaxParticipation(Term):
    """|wᵢ − w⁰ᵢ| · account ≤ ``limit`` · the name's average daily traded value.

    The market's ``traded_value`` (T, n), over 20 days, and ``account`` (T,), both in currency, are
    needed; a name that was not traded is held. It does not apply to a market without ``previous``,
    and to names that the market itself holds.

    Parameters
    ----------
    limit : share: a number, or code → number (without a limit for the rest, unless ``default`` is
        given); in Python a tensor too.
    """

    limit: ByName
    name: ClassVar[str] = "max_participation"
    unit: ClassVar[str] = "share of the average daily traded value"
    example: ClassVar[Mapping[str, Any]] = {"max_participation": 0.1}
    needs: ClassVar[tuple[str, ...]] = ("traded_value", "account")

    def __post_init__(self) -> None:
        check_each(self.limit, self.name, low=0)

    def __str__(self) -> str:
        return f"max_participation: trades within {shown(self.limit)} of the daily traded value"

    def parts(self, view: MarketView) -> Iterator[Bound]:
        held = view.previous
        if held is not None:
            traded = view.needed("traded_value", self.name)
            rate = traded / view.needed("account", self.name).unsqueeze(-1)
            share = view.per_name(self.limit, torch.inf)
            reach = torch.where(share.isposinf(), torch.inf, share * rate)
            yield Bound(*self.head(), held - reach, held + reach, centre=held, rate=rate)
