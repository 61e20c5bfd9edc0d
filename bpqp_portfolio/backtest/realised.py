"""What an account really held in a backtest, by day and name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd


def held_by_signal(realised: pd.DataFrame, days: pd.DatetimeIndex) -> pd.Series:
    """Weights of the account by (signal day, name): held at the close of the next of ``days``."""
    before = pd.Series(days[:-1], index=days[1:])
    frame = realised.assign(datetime=realised["datetime"].map(before)).dropna()
    return frame.set_index(["datetime", "instrument"])["weight"]


def realised_weights(positions: Mapping[pd.Timestamp, Any]) -> pd.DataFrame:
    """Weights at the close of each trading day, of the account's total value, by day and name."""
    rows = [
        (pd.Timestamp(date), name, weight)
        for date, position in positions.items()
        for name, weight in position.get_stock_weight_dict(only_stock=False).items()
    ]
    # A position lists its names in the order of their orders, which a set decides.
    return pd.DataFrame(sorted(rows), columns=["datetime", "instrument", "weight"]).astype(
        {"datetime": "datetime64[ns]", "weight": float}
    )
