"""Trades of a run, name by name: what was wanted, what was done, and which orders did nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..runs.results import RunResults
from .figures_holdings import next_day

SUSPENDED = "suspended"
AT_UPPER = "at the upper price limit"
AT_LOWER = "at the lower price limit"
OTHER = "less than a lot, or short of cash"

# A trade below this part of the account is rounding.
_NOTHING = 1e-7


def trade_table(results: RunResults, returns: pd.DataFrame, risk_degree: float) -> pd.DataFrame:
    """Wanted and done trades by (trading day, instrument), as fractions of the last day's account.

    Worked out from weights and returns alone: what is held at a close, less what was held at the
    close before, grown by its return. The sum of |traded| over a day is the turnover that Qlib
    reports.

    Parameters
    ----------
    returns : (T, N) close-to-close returns by day and name, NaN (as zero) without a trade; the day
        of resumption carries the whole return since the last close.
    risk_degree : part of the account that target weights are fractions of.

    Returns
    -------
    ``held`` at the close of the signal day, ``wanted`` (target less held; NaN on a day without a
    target) and ``traded``, a purchase above zero.
    """
    days = results.daily.index
    realised = _wide(results.realised, "datetime")
    names = realised.columns.union(pd.Index(results.weights["instrument"].unique()))
    realised = realised.reindex(index=days, columns=names).fillna(0.0)
    held = realised.shift(1).fillna(0.0)
    target = results.weights.assign(day=next_day(results.weights["datetime"], days))
    wanted = risk_degree * _wide(target.dropna(subset=["day"]), "day").reindex(columns=names)
    wanted = wanted.fillna(0.0).reindex(days) - held
    grown = held * (1 + returns.reindex(index=days, columns=names).fillna(0.0))
    account = 1 + results.series("daily", "return") - results.series("daily", "cost").fillna(0.0)
    traded = realised.mul(account, axis=0) - grown
    traded = traded.where(traded.abs() > _NOTHING, 0.0)
    parts = {"held": held, "wanted": wanted, "traded": traded}
    table = pd.DataFrame({name: part.stack() for name, part in parts.items()})
    table.index.names = ["datetime", "instrument"]
    moved = (table["held"] > 0) | (table["traded"] != 0) | (table["wanted"].abs() > _NOTHING)
    return table[moved]


def blocked_orders(
    trades: pd.DataFrame,
    least: pd.DataFrame,
    suspended: pd.DataFrame,
    at_upper: pd.DataFrame,
    at_lower: pd.DataFrame,
) -> pd.DataFrame:
    """Orders that did nothing, each with its reason, in the order of days.

    Parameters
    ----------
    trades : of :func:`trade_table`.
    least : (T, N) value of the smallest order, as a fraction of the last day's account; what is
        wanted below it is no order.
    suspended, at_upper, at_lower : (T, N) bool, of the trading day.

    Returns
    -------
    ``datetime``, ``instrument``, ``wanted``, ``reason``.
    """
    smallest = _looked_up(least, trades.index, np.inf)
    orders = trades[(trades["wanted"].abs() >= smallest) & (trades["traded"] == 0)]
    buys = orders["wanted"].to_numpy() > 0
    reasons = np.select(
        [
            _looked_up(suspended, orders.index, False).astype(bool),
            buys & _looked_up(at_upper, orders.index, False).astype(bool),
            ~buys & _looked_up(at_lower, orders.index, False).astype(bool),
        ],
        [SUSPENDED, AT_UPPER, AT_LOWER],
        OTHER,
    )
    return orders[["wanted"]].assign(reason=reasons).reset_index()


def _wide(table: pd.DataFrame, day: str) -> pd.DataFrame:
    return table.pivot(index=day, columns="instrument", values="weight")


def _looked_up(table: pd.DataFrame, index: pd.MultiIndex, missing: float) -> np.ndarray:
    """Values of a (T, N) ``table`` at (day, name), ``missing`` where it has none."""
    row = table.index.get_indexer(index.get_level_values(0))
    column = table.columns.get_indexer(index.get_level_values(1))
    there = (row >= 0) & (column >= 0)
    return np.where(there, table.to_numpy()[row, column], missing)
