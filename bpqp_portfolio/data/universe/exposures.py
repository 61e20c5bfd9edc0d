"""Exposures of names by day: the user's table, or computed from prices and volumes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ...config import nearest
from ...errors import ConfigError, DataError
from ..provider.provider import Provider
from .dated import DatedTable, read_dated
from .market import MarketData, value_traded

BUILT_IN = {"beta": 1.0, "size": 0.0, "momentum": 0.0}
"""Exposures that need no table, and what a name with too short a history counts as."""
LEAST = 20
"""Returns below which a name has no beta or momentum of its own."""
WINDOW = 250
"""Trading days of the mean value traded, and of momentum."""
RECENT = 20
"""Last days that momentum leaves out."""


class MarketExposures:
    """Exposures of the names of a market, by day.

    A name that is a column of the table is that; of the others,

    - ``beta`` is the slope of the name's daily returns on those of equal weights in the universe,
      over the last ``window`` days;
    - ``size`` is the log of the mean value traded over the last 250 days;
    - ``momentum`` is the log return of the last 250 days but the last 20;

    the last two less the mean, and over the standard deviation, of the day's members. All are
    known at the close of the day.

    Of a table, the last date on or before a day counts. A name that it leaves out then has no
    exposure (NaN) or the ``fill``; one that has left the universe keeps the last that it had.

    Parameters
    ----------
    names : exposures that are wanted, besides the table's own where ``every`` is set.
    table : CSV file with the columns ``date,instrument`` and one for each exposure.

    Raises
    ------
    ConfigError
        An exposure that is neither in the table nor built in; ``size`` without a volume.
    DataError
        A table that cannot be used.
    """

    def __init__(
        self,
        names: Sequence[str],
        market: MarketData,
        provider: Provider,
        *,
        window: int,
        every: bool = False,
        table: str | None = None,
        fill: float | None = None,
    ) -> None:
        self._market, self._window, self._fill = market, window, fill
        self._table: DatedTable | None = None
        if table is not None:
            self._table = read_dated(table, "exposures", market.names)
        columns = () if self._table is None else self._table.columns
        self.names = wanted_exposures(names, every, columns, table)
        self._own = [j for j, name in enumerate(self.names) if name in columns]
        self._built = [j for j, name in enumerate(self.names) if name not in columns]
        if self._table is not None:
            chosen = [columns.index(self.names[j]) for j in self._own]
            self._values = self._table.values[:, :, chosen]
            self._carried = _carried(self._values)
        built = [self.names[j] for j in self._built]
        parts = [] if table is None or not self._own else [f"the table {Path(table).name}"]
        self.source = " and ".join([*parts, *([f"prices ({', '.join(built)})"] if built else [])])
        self._base = market.equal_weight_returns().to_numpy() if "beta" in built else None
        self._traded: np.ndarray | None = None
        if "size" in built:
            self._traded = value_traded(
                market,
                provider,
                "mandate.exposures: size",
                "give its values in the exposure_table.",
            )

    @property
    def unknown(self) -> np.ndarray:
        """(f,) what a name counts as of which nothing at all is known, NaN without a ``fill``."""
        fill = np.nan if self._fill is None else self._fill
        return np.array([fill if j in self._own else BUILT_IN[n] for j, n in enumerate(self.names)])

    def of_day(self, day: int) -> np.ndarray:
        """(N, f) exposures on a day of the market; NaN where the table has none."""
        out = np.full((len(self._market.names), len(self.names)), np.nan)
        if self._table is not None:
            at = int(self._table.at(self._market.dates[[day]])[0])
            if at >= 0:
                member = self._market.member[day][:, None]
                own = np.where(member, self._values[at], self._carried[at])
                out[:, self._own] = own if self._fill is None else _filled(own, self._fill)
        for j in self._built:
            out[:, j] = getattr(self, f"_{self.names[j]}")(day)
        return out

    def check(self, first: pd.Timestamp, last: pd.Timestamp) -> None:
        """Check that each member has an exposure on each day from ``first`` to ``last``.

        Raises
        ------
        DataError
            One has none; the message names exposure, name and day.
        """
        if self._table is None or not self._own:
            return
        market = self._market
        days = np.flatnonzero((market.dates >= first) & (market.dates <= last))
        at = self._table.at(market.dates[days])
        if at[0] < 0:
            raise DataError(
                f"{self.source} begins on {self._table.dates[0]:%Y-%m-%d}, after "
                f"{market.dates[days[0]]:%Y-%m-%d}, the first day that is decided: add the "
                "exposures of a date on or before it."
            )
        if self._fill is not None:
            return
        for day, row in zip(days, at, strict=True):
            lacking = market.member[day][:, None] & np.isnan(self._values[row])
            if lacking.any():
                name, j = np.argwhere(lacking)[0]
                raise no_exposure(self.names[self._own[j]], market.names[name], market.dates[day])

    def _beta(self, day: int) -> np.ndarray:
        last = slice(max(day + 1 - self._window, 0), day + 1)
        returns, base = self._market.returns[last], self._base[last, None]  # type: ignore[index]
        both = np.isfinite(returns) & np.isfinite(base)
        count = np.maximum(both.sum(0), 1)
        x = np.where(both, base, 0.0)
        x = np.where(both, x - x.sum(0) / count, 0.0)
        spread = (x**2).sum(0)
        known = (both.sum(0) >= LEAST) & (spread > 0)
        slope = (x * np.where(both, returns, 0.0)).sum(0) / np.where(known, spread, 1.0)
        return np.where(known, slope, BUILT_IN["beta"])

    def _size(self, day: int) -> np.ndarray:
        value = self._traded[max(day + 1 - WINDOW, 0) : day + 1]  # type: ignore[index]
        mean = np.nansum(value, 0) / np.maximum(np.isfinite(value).sum(0), 1)
        logs = np.log(np.where(mean > 0, mean, np.nan))
        return _standardised(logs, self._market.member[day])

    def _momentum(self, day: int) -> np.ndarray:
        past = self._market.returns[max(day + 1 - WINDOW, 0) : max(day + 1 - RECENT, 0)]
        total = np.nansum(np.log1p(past), 0)
        total[np.isfinite(past).sum(0) < LEAST] = np.nan
        return _standardised(total, self._market.member[day])


def wanted_exposures(
    names: Sequence[str], every: bool, columns: Sequence[str], table: str | None
) -> tuple[str, ...]:
    """The exposures ``names``, and all ``columns`` of the table where ``every`` is set.

    Raises
    ------
    ConfigError
        One is neither in the table nor built in, or there is none.
    """
    built = ", ".join(BUILT_IN)
    for name in names:
        if name not in columns and name not in BUILT_IN:
            lack = (
                f"mandate.exposure_table: {table} has no column {name!r}, and it is not built in."
                if table is not None
                else f"mandate.exposures: {name!r} is not built in and there is no "
                "exposure_table, a CSV file with the columns date,instrument and one for each "
                "exposure."
            )
            raise ConfigError(f"{lack}{nearest(name, [*columns, *BUILT_IN])}")
    wanted = tuple(dict.fromkeys([*(columns if every else ()), *names]))
    if not wanted or (every and not columns):
        raise ConfigError(
            "mandate.exposures: no exposure is named. Give limit or lower by name, of "
            f"{built} or of the columns of an exposure_table; one number for all needs a table."
        )
    return wanted


def no_exposure(exposure: str, name: str, date: pd.Timestamp) -> DataError:
    """The error of a name that the table leaves out."""
    return DataError(
        f"mandate.exposure_table: no {exposure!r} of {name} in the last table on or before "
        f"{date:%Y-%m-%d}; complete it, or set mandate.exposure_fill to what such a name counts "
        "as."
    )


def _carried(values: np.ndarray) -> np.ndarray:
    """(D, N, f) the last value of each name up to each date of the table."""
    order = np.arange(len(values))[:, None, None]
    last = np.maximum.accumulate(np.where(np.isfinite(values), order, 0), axis=0)
    return np.take_along_axis(values, last, axis=0)


def _filled(values: np.ndarray, fill: float) -> np.ndarray:
    return np.where(np.isnan(values), fill, values)


def _standardised(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Less the members' mean, over their standard deviation; 0 where there is no value."""
    own = values[member & np.isfinite(values)]
    if len(own) < 2 or not own.std() > 0:
        return np.zeros(len(values))
    return _filled((values - own.mean()) / own.std(), 0.0)
