"""What an import corrects in one name's daily fields, and how it finds a source's units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

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


def is_traded(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """Days with a finite, positive close, and volume where the name has volumes at all; (T,)."""
    close = fields["close"]
    traded = np.isfinite(close) & (close > 0)
    volume = fields.get("volume")
    # An index often has no volume, or zeros throughout: then volume says nothing.
    if volume is not None and (volume > 0).any():
        traded &= volume != 0
    return traded


def close_to_close(close: np.ndarray) -> np.ndarray:
    """Return from the last day with a close to this one, as a fraction, (T,) float64."""
    out = np.full(len(close), np.nan)
    days = np.flatnonzero(~np.isnan(close))
    prices = close[days].astype(np.float64)
    out[days[1:]] = prices[1:] / prices[:-1] - 1
    return out


@dataclass(frozen=True)
class Units:
    """What a source measures in.

    ``change``: ``"fraction"``, ``"percent"``, or ``"none"`` where it is absent or agrees with
    neither, and is recomputed. ``volume``: ``"hands"`` (lots of 100 shares, with ``amount`` in
    thousands, as Tushare has them), or ``"as given"``.
    """

    change: str = "none"
    volume: str = "as given"


@dataclass
class UnitEvidence:
    """Gathers from every name of a source what its units are: medians over names of medians."""

    change: list[float] = field(default_factory=list)
    amount: list[float] = field(default_factory=list)

    def add(self, fields: Mapping[str, np.ndarray]) -> None:
        """Take one name into account; ``fields`` are (T,) each, as the source has them."""
        if "close" in fields and "change" in fields:
            returns = close_to_close(np.where(is_traded(fields), fields["close"], np.nan))
            usable = (np.abs(returns) > 0.005) & np.isfinite(fields["change"])
            self._add(self.change, fields["change"][usable], returns[usable])
        if all(name in fields for name in ("vwap", "volume", "amount")):
            value = fields["vwap"].astype(np.float64) * fields["volume"]
            usable = np.isfinite(value) & (value > 0) & (fields["amount"] > 0)
            self._add(self.amount, value[usable], fields["amount"][usable])

    @staticmethod
    def _add(medians: list[float], top: np.ndarray, bottom: np.ndarray) -> None:
        if len(top):
            medians.append(float(np.median(top.astype(np.float64) / bottom)))

    def units(self) -> Units:
        """The verdict on the source."""
        change = float(np.median(self.change)) if self.change else np.nan
        amount = float(np.median(self.amount)) if self.amount else np.nan
        return Units(
            # Half to twice: dividends and a source's own rounding stay well inside.
            change="fraction" if 0.5 < change < 2 else "percent" if 50 < change < 200 else "none",
            # price × (shares / 100) against amount / 1000 is ten.
            volume="hands" if 8 < amount < 12.5 else "as given",
        )


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

    if units.volume == "hands" and "volume" in out:
        counts["volumes_converted"] += int(np.isfinite(out["volume"]).sum())
        out["volume"] *= np.float32(100)
        if "amount" in out:
            out["amount"] *= np.float32(1000)
    returns = close_to_close(out["close"])
    change = returns
    if "change" in out and units.change != "none":
        change = out["change"].astype(np.float64)
        if units.change == "percent":
            counts["changes_converted"] += int(np.isfinite(change).sum())
            change /= 100
        missing = np.isnan(change) & ~np.isnan(returns)
        change[missing] = returns[missing]
        counts["changes_recomputed"] += int(missing.sum())
    else:
        made = "changes_recomputed" if "change" in out else "changes_computed"
        counts[made] += int(np.isfinite(returns).sum())
    out["change"] = change.astype(np.float32)
    return out


def _blank(values: np.ndarray, bad: np.ndarray) -> int:
    values[bad] = np.nan
    return int(bad.sum())
