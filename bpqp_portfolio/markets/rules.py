"""The rules of a market, by Qlib's region: trading days a year, lot, price limits, currency."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..config import check_keys, check_number, lookup
from ..errors import ConfigError
from .price_limits import price_limits

BOARDS = "boards"


@dataclass(frozen=True)
class MarketRules:
    """What every annual figure, order and backtest of a market rests on.

    Where a workflow leaves one out, it is that of its ``qlib_init.region``.

    Parameters
    ----------
    days_per_year : [days] trading days in a year, which annual figures and limits count.
    lot : [shares] shares in a lot, of which backtest and tomorrow's orders are multiples; null for
        any amount, fractions of a share too.
    price_limits : [fraction of the last close] largest move of a day, beyond which an order is not
        filled: ``boards`` for that of each Chinese board and date (see
        :mod:`bpqp_portfolio.markets.price_limits`), one number for every name and date, null for
        none.
    currency : of prices, cash and account, a code of ISO 4217; null where it is not known.

    Raises
    ------
    ConfigError
        A value outside its range.
    """

    days_per_year: float
    lot: int | None
    price_limits: str | float | None
    currency: str | None

    def __post_init__(self) -> None:
        check_number(self.days_per_year, "days_per_year", low=1)
        if self.lot is not None:
            check_number(self.lot, "lot", low=1, integer=True)
        if isinstance(self.price_limits, str) and self.price_limits != BOARDS:
            raise ConfigError(
                f"price_limits: expected {BOARDS}, a fraction or null, got {self.price_limits!r}."
            )
        if not isinstance(self.price_limits, str) and self.price_limits is not None:
            check_number(self.price_limits, "price_limits", low=0, high=1, open_low=True)
        if self.currency is not None and not re.fullmatch("[A-Z]{3}", str(self.currency)):
            raise ConfigError(
                f"currency: expected a code of three capitals such as USD, got {self.currency!r}."
            )

    def limits(self, names: Iterable[str], dates: Any) -> np.ndarray:
        """Largest daily move of each name on each day, as a fraction: (T, n), NaN where none."""
        if self.price_limits == BOARDS:
            return price_limits(names, dates)
        one = np.nan if self.price_limits is None else float(self.price_limits)
        return np.full((len(dates), len(list(names))), one)


MARKET_RULES = {
    "cn": MarketRules(days_per_year=238, lot=100, price_limits=BOARDS, currency="CNY"),
    "us": MarketRules(days_per_year=252, lot=1, price_limits=None, currency="USD"),
    "tw": MarketRules(days_per_year=245, lot=1000, price_limits=0.10, currency="TWD"),
}
"""By Qlib's region. China's days are those of Qlib's ``risk_analysis``; Taiwan's limit is that
since June 2015."""

QLIB_DAYS_PER_YEAR = MARKET_RULES["cn"].days_per_year
"""What Qlib's own annual figures count, whatever the market."""


def market_rules(region: str, changes: Mapping[str, Any] | None = None) -> MarketRules:
    """The rules of Qlib's ``region`` with a workflow's ``changes`` to them.

    Raises
    ------
    ConfigError
        An unknown region or rule (the nearest is named), or a value outside its range.

    Examples
    --------
    >>> market_rules("cn", {"lot": 1})
    MarketRules(days_per_year=238, lot=1, price_limits='boards', currency='CNY')
    """
    rules = lookup(MARKET_RULES, region, "region")
    check_keys(changes or {}, asdict(rules), "market_rules")
    try:
        return replace(rules, **(changes or {}))
    except ConfigError as error:
        raise ConfigError(f"market_rules.{error}") from error
