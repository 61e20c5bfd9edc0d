"""What an import corrects in one name's daily fields, and how it finds a source's units.

A unit is found by ratios that should be one: ``change`` over the return of the closes (near 1 for
fractions, 100 for percent), and vwap × volume over amount (near 10 where volume is in lots of 100
shares and amount in thousands). Most values of all names up to a day decide for that day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PRICES = ("open", "high", "low", "close", "vwap", "adjclose", "adj_close")
# Everything that cleaning may count, so that a manifest always has the same keys.
COUNTS = (
    "non_finite_values",
    "suspended_days",
    "non_positive_prices",
    "negative_volumes",
    "bad_factors",
    "changes_converted",
    "changes_recomputed",
    "changes_computed",
    "volumes_converted",
)

Fields = dict[str, np.ndarray]
# Number of values by day, (T,): of all that are usable, and of those that agree with a unit.
Counts = dict[str, Any]
ALL = "all"


def is_traded(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """Days with a finite, positive close, and volume once the name has had volumes at all; (T,)."""
    close = fields["close"]
    traded = np.isfinite(close) & (close > 0)
    volume = fields.get("volume")
    # An index often has no volume, or zeros throughout: until the first, volume proves nothing.
    if volume is not None:
        traded &= (volume != 0) | ~np.logical_or.accumulate(volume > 0)
    return traded


def close_to_close(close: np.ndarray) -> np.ndarray:
    """Return from the last day with a close to this one, as a fraction, (T,) float64.

    >>> close_to_close(np.array([10.0, np.nan, 11.0])).round(6).tolist()
    [nan, nan, 0.1]
    """
    out = np.full(len(close), np.nan)
    days = np.flatnonzero(~np.isnan(close))
    prices = close[days].astype(np.float64)
    out[days[1:]] = prices[1:] / prices[:-1] - 1
    return out


@dataclass(frozen=True)
class Units:
    """What a source measures in, on all its days or on each of them, (T,).

    ``change``: ``"fraction"``, ``"percent"``, or ``"none"`` where it is absent or agrees with
    neither, and is recomputed. ``volume``: ``"hands"`` (lots of 100 shares, with ``amount`` in
    thousands, as Tushare has them), or ``"as given"``.
    """

    change: str | np.ndarray = "none"
    volume: str | np.ndarray = "as given"


# The unit that a ratio shows, by its bounds. Half to twice: dividends and a source's own rounding
# stay well inside; price × (shares / 100) against amount / 1000 is ten.
_CHANGE = {"fraction": (0.5, 2.0), "percent": (50.0, 200.0)}
_VOLUME = {"hands": (8.0, 12.5)}


@dataclass
class UnitEvidence:
    """Gathers from every name of a source what its units are, by day.

    A day's units are what most values of all names show from the first day up to it, so that later
    data never change how an earlier day is read; the days before any evidence go by the first.
    """

    _change: Counts = field(default_factory=dict)
    _volume: Counts = field(default_factory=dict)

    def add(self, fields: Mapping[str, np.ndarray]) -> None:
        """Take one name into account; ``fields`` are (T,) each, as the source has them."""
        if "close" in fields and "change" in fields:
            returns = close_to_close(np.where(is_traded(fields), fields["close"], np.nan))
            usable = (np.abs(returns) > 0.005) & np.isfinite(fields["change"])
            _count(self._change, _CHANGE, fields["change"], returns, usable)
        if all(name in fields for name in ("vwap", "volume", "amount")):
            value = fields["vwap"].astype(np.float64) * fields["volume"]
            usable = np.isfinite(value) & (value > 0) & (fields["amount"] > 0)
            _count(self._volume, _VOLUME, value, fields["amount"], usable)

    def units(self) -> Units:
        """The verdict on the source."""
        return Units(_most(self._change, "none"), _most(self._volume, "as given"))


def _count(
    counts: Counts,
    bounds: Mapping[str, tuple[float, float]],
    top: np.ndarray,
    bottom: np.ndarray,
    usable: np.ndarray,
) -> None:
    """Add one name's days to ``counts``: all that are usable, and those of each unit."""
    ratio = np.full(len(top), np.nan)
    ratio[usable] = top[usable].astype(np.float64) / bottom[usable]
    shown = {what: (ratio > low) & (ratio < high) for what, (low, high) in bounds.items()}
    for what, days in {ALL: usable, **shown}.items():
        counts[what] = counts.get(what, 0) + days.astype(np.int64)


def _most(counts: Counts, otherwise: str) -> str | np.ndarray:
    """What more than half of the values show up to each day, (T,)."""
    if not counts:
        return otherwise
    total = np.cumsum(counts[ALL])
    verdict = np.full(len(total), otherwise, dtype=object)
    for what, days in counts.items():
        if what != ALL:
            verdict[2 * np.cumsum(days) > total] = what
    first = int(np.argmax(total > 0))
    verdict[:first] = verdict[first]
    return verdict


def clean(fields: Mapping[str, np.ndarray], units: Units, counts: Counter) -> Fields:
    """The fields of one name as Qlib wants them, each (T,) float32; ``counts`` is added to.

    Suspended days (see :func:`is_traded`) are NaN in every field but ``factor``; values that are
    not finite, prices that are not positive and negative volumes are NaN; ``change`` is a
    fraction, recomputed from the closes where it is missing, and computed from them where there is
    no such field; volume is in (adjusted) shares.
    A name without any traded day gives an empty mapping.
    """
    out = {name: np.array(values, dtype=np.float32) for name, values in fields.items()}
    for values in out.values():
        counts["non_finite_values"] += _blank(values, np.isinf(values))
    if "close" not in out or not (traded := is_traded(out)).any():
        return {}
    data = [values for name, values in out.items() if name != "factor"]
    counts["suspended_days"] += int((~np.isnan(data).all(axis=0) & ~traded).sum())
    for values in data:
        values[~traded] = np.nan
    for name in PRICES:
        if name in out:
            counts["non_positive_prices"] += _blank(out[name], out[name] <= 0)
    if "volume" in out:
        counts["negative_volumes"] += _blank(out["volume"], out["volume"] < 0)
    if "factor" in out:
        counts["bad_factors"] += _blank(out["factor"], out["factor"] <= 0)

    days = len(out["close"])
    hands = np.broadcast_to(units.volume == "hands", days)
    if "volume" in out:
        counts["volumes_converted"] += int(np.isfinite(out["volume"][hands]).sum())
        out["volume"][hands] *= np.float32(100)
        if "amount" in out:
            out["amount"][hands] *= np.float32(1000)
    returns = close_to_close(out["close"])
    change = returns
    if "change" in out:
        change = out["change"].astype(np.float64)
        percent = np.broadcast_to(units.change == "percent", days)
        counts["changes_converted"] += int(np.isfinite(change[percent]).sum())
        change[percent] /= 100
        change[np.broadcast_to(units.change == "none", days)] = np.nan
        missing = np.isnan(change) & ~np.isnan(returns)
        change[missing] = returns[missing]
        counts["changes_recomputed"] += int(missing.sum())
    else:
        counts["changes_computed"] += int(np.isfinite(returns).sum())
    out["change"] = change.astype(np.float32)
    return out


def _blank(values: np.ndarray, bad: np.ndarray) -> int:
    values[bad] = np.nan
    return int(bad.sum())
