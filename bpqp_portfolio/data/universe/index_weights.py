"""Weights of an index by day: the user's table, or a proxy from what the data have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..provider.provider import Provider
from .dated import read_dated
from .market import MarketData, value_traded

PROXIES = ("equal", "traded_value")
COLUMNS = {"weight": "[no unit] from 0 on, in proportion to the name's weight in the index"}
"""Columns of a table of index weights besides those of every dated table."""
WINDOW = 250
"""Trading days of the average value traded."""


@dataclass(frozen=True)
class IndexWeights:
    """``weights`` (T, N), each day's summing to 1 (or 0 before the table begins); ``source``."""

    weights: np.ndarray
    source: str


def index_weights(how: str, market: MarketData, provider: Provider) -> IndexWeights:
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
    value = value_traded(
        market,
        provider,
        "mandate.index_weights: traded_value",
        "take `equal`, or give a CSV file of weights.",
    )
    mean = pd.DataFrame(value).rolling(WINDOW, min_periods=1).mean().to_numpy()
    return IndexWeights(
        _shares(np.where(market.member, np.nan_to_num(mean), 0.0)),
        f"a proxy: value traded over {WINDOW} days",
    )


def _shares(table: np.ndarray) -> np.ndarray:
    total = table.sum(1, keepdims=True)
    return table / np.where(total > 0, total, 1.0)


def _read(path: Path, market: MarketData) -> np.ndarray:
    table = read_dated(path, "index weights", market.names, list(COLUMNS), weights=True)
    at = table.at(market.dates)
    known = np.nan_to_num(table.values[np.maximum(at, 0), :, 0])
    return _shares(np.where((at >= 0)[:, None], known, 0.0))
