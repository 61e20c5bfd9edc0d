"""Weights of an index by day: the user's table, or a proxy from what the data have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import ConfigError, DataError
from .market import Market
from .provider import Provider

COLUMNS = ("date", "instrument", "weight")
PROXIES = ("equal", "traded_value")
WINDOW = 250
"""Trading days of the average value traded."""


@dataclass(frozen=True)
class IndexWeights:
    """``weights`` (T, N), each day's summing to 1 (or 0 before the table begins); ``source``."""

    weights: np.ndarray
    source: str


def index_weights(how: str, market: Market, provider: Provider) -> IndexWeights:
    """Weights of the index whose members are ``market``'s.

    Parameters
    ----------
    how : ``equal``; ``traded_value``, in proportion to the mean value traded over the last 250
        trading days, which is nearer to capitalisation; or a CSV file with the columns
        ``date,instrument,weight``, whose last table on or before a day is that day's.

    Raises
    ------
    ConfigError
        ``traded_value`` without a volume for every name.
    DataError
        A file that cannot be used.
    """
    if how == "equal":
        return IndexWeights(_shares(market.member.astype(float)), "a proxy: equal weights")
    if how != "traded_value":
        return IndexWeights(_read(Path(how), market), f"the table {Path(how).name}")
    lacking = [name for name in market.names if "volume" not in provider.fields(name)]
    if lacking:
        raise ConfigError(
            f"mandate.index_weights: traded_value needs the volume, which {lacking[0]} does not "
            "have; take `equal`, or give a CSV file of weights."
        )
    # An adjusted price times an adjusted volume is the value traded.
    volume = provider.frame("volume", market.names).reindex(market.dates)
    value = market.close * volume.to_numpy(dtype=np.float64)
    mean = pd.DataFrame(value).rolling(WINDOW, min_periods=1).mean().to_numpy()
    return IndexWeights(
        _shares(np.where(market.member, np.nan_to_num(mean), 0.0)),
        f"a proxy: value traded over {WINDOW} days",
    )


def _shares(table: np.ndarray) -> np.ndarray:
    total = table.sum(1, keepdims=True)
    return table / np.where(total > 0, total, 1.0)


def _read(path: Path, market: Market) -> np.ndarray:
    try:
        table = pd.read_csv(
            path.expanduser(), dtype={"instrument": str, "date": str}, keep_default_na=False
        )
        if sorted(table.columns) != sorted(COLUMNS):
            raise DataError(
                f"{path}: expected the columns {','.join(COLUMNS)}, "
                f"got {','.join(map(str, table.columns))}."
            )
        table["date"] = pd.to_datetime(table["date"], format="%Y-%m-%d")
        table["weight"] = table["weight"].astype(float)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read the index weights {path}: {error}") from error
    if not (np.isfinite(table["weight"]) & (table["weight"] >= 0)).all():
        raise DataError(f"{path}: a weight is negative or not finite.")
    table["instrument"] = table["instrument"].str.strip().str.upper()
    if table.duplicated(["date", "instrument"]).any():
        row = table[table.duplicated(["date", "instrument"])].iloc[0]
        raise DataError(f"{path}: {row['instrument']} occurs twice on {row['date']:%Y-%m-%d}.")
    wide = table.pivot(index="date", columns="instrument", values="weight").fillna(0.0)
    day = wide.index.searchsorted(market.dates, side="right") - 1
    known = wide.reindex(columns=market.names, fill_value=0.0).to_numpy()
    return _shares(np.where((day >= 0)[:, None], known[np.maximum(day, 0)], 0.0))
