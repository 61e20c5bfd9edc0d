"""Closes, returns and membership of a universe as arrays, straight from a provider."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ...errors import ConfigError, ProviderError
from ...risk.returns import daily_returns
from ..provider.provider import Provider
from ..quality.exclusions import Exclusions


@dataclass(frozen=True)
class MarketData:
    """A universe on the provider's whole calendar of T days, with all N names that were ever in it.

    ``close`` (T, N) adjusted, NaN on a day without trade; ``member`` (T, N) bool;
    ``excluded`` (T, N) bool, moves that are invalid.
    """

    dates: pd.DatetimeIndex
    names: pd.Index
    close: np.ndarray
    member: np.ndarray
    excluded: np.ndarray

    @cached_property
    def returns(self) -> np.ndarray:
        """(T, N) close-to-close returns as fractions; NaN where suspended or excluded."""
        return np.where(self.excluded, np.nan, daily_returns(self.close))

    @cached_property
    def investable(self) -> np.ndarray:
        """(T, N) bool: a member with a valid close, known at the close of the day."""
        return self.member & np.isfinite(self.close) & ~self.excluded

    def equal_weight_returns(self) -> pd.Series:
        """Daily return of equal weights in the names that were investable the day before.

        A name without a return (suspended, excluded) counts as zero. NaN on the first day.
        """
        held = self.investable[:-1]
        total = np.where(held, np.nan_to_num(self.returns[1:]), 0.0).sum(1)
        mean = total / np.maximum(held.sum(1), 1)
        return pd.Series(np.concatenate([[np.nan], mean]), index=self.dates, name="bench_equal")


def load_market(
    provider: Provider, market: str, exclusions: Exclusions | None = None
) -> MarketData:
    """Read ``market`` from ``provider``.

    Raises
    ------
    ProviderError
        No provider, no such universe, a universe without members or without prices.
    """
    provider.require()
    codes = set(provider.spells(market)["instrument"])
    if not codes:
        raise ProviderError(
            f"universe {market!r} in {provider.root} has no members; "
            f"it has: {', '.join(provider.markets)}."
        )
    names = pd.Index(sorted(name for name in codes if "close" in provider.fields(name)))
    if not len(names):
        raise ProviderError(f"no member of {market!r} in {provider.root} has a close price.")
    dates = provider.calendar
    close = provider.frame("close", names).to_numpy(dtype=np.float64)
    excluded = (exclusions or Exclusions()).mask(dates, names)
    return MarketData(dates, names, close, provider.membership(market, dates, names), excluded)


AVERAGE_DAYS = 20
"""Trading days of the average value traded that participation is a share of."""


def average_traded(value: np.ndarray) -> np.ndarray:
    """Mean (N,) of the last 20 days of ``value`` traded (T, N), a day without trade as 0.

    It is the same bit for bit however many days come before those.
    """
    last = np.nan_to_num(value[-AVERAGE_DAYS:])
    return last.sum(0) / AVERAGE_DAYS


def value_traded(market: MarketData, provider: Provider, who: str, remedy: str) -> np.ndarray:
    """(T, N) value traded on each day, in currency; NaN on a day without trade.

    Raises
    ------
    ConfigError
        A name has no volume: ``who`` needs it, and what to do instead is ``remedy``.
    """
    lacking = [name for name in market.names if "volume" not in provider.fields(name)]
    if lacking:
        raise ConfigError(f"{who} needs the volume, which {lacking[0]} does not have; {remedy}")
    # An adjusted price times an adjusted volume is the value traded.
    volume = provider.frame("volume", market.names).reindex(market.dates)
    return market.close * volume.to_numpy(dtype=np.float64)
