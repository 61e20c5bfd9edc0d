"""An order list for a broker: what to buy and sell, sales first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ...backtest.rebalance import LEFT_UNIVERSE
from ...errors import ConfigError
from ...report.metrics import counted
from ..target import Target, quoted
from .request import Listing, Request

COLUMNS = ("date", "side", "quantity", "code", "reference_price", "currency", "account")
BUY, SELL = "BUY", "SELL"


def rows(target: Target, request: Request) -> Listing:
    """One row an order, the sales before the purchases that they pay for, each in order of code.

    ``date`` of the trade; ``side`` BUY or SELL; ``quantity`` of shares, a whole number but where
    the market's rules have no lots; ``reference_price``, the quoted close that it was sized by.

    Raises
    ------
    ConfigError
        The date of the trade is not known, or another than the calendar's.
    """
    table = target.table
    traded = table[table["trade"] != 0]
    sells = traded["trade"] < 0
    columns = {
        "date": _trade_date(target, request),
        "side": np.where(sells, SELL, BUY),
        "quantity": traded["trade"].abs(),
        "code": traded["instrument"],
        "reference_price": quoted(traded["price"]),
        "currency": target.summary["currency"],
        "account": request.account,
    }
    frame = pd.DataFrame(columns, index=traded.index, columns=list(COLUMNS))
    frame = frame.sort_values(["side", "code"], ascending=[False, True], ignore_index=True)
    notes = tuple(_notes(table[~table["instrument"].isin(list(target.summary["left_out"]))]))
    return Listing(frame, _title(traded, sells, target.summary["currency"]), notes)


def _trade_date(target: Target, request: Request) -> str:
    """The date that is asked for, which the calendar may not contradict, or else the calendar's."""
    decided, known = target.summary["date"], target.summary["trade_on"]
    given = request.trade_date
    if given is None and known is None:
        raise ConfigError(
            f"format 'orders': the calendar of {target.summary['provider']} ends on {decided}, so "
            "the trading day after it is not known. Give it by --trade-date YYYY-MM-DD, or list "
            "the days to come in calendars/day_future.txt, as Qlib does."
        )
    if given is not None and known is not None and given != known:
        raise ConfigError(
            f"trade date: {given}, but the trading day after {decided} is {known}; leave "
            "--trade-date out, or decide on the trading day before yours by --date."
        )
    if given is not None and given <= decided:
        raise ConfigError(
            f"trade date: {given} is not after {decided}, at whose close the orders were decided."
        )
    return str(given or known)


def _title(traded: pd.DataFrame, sells: pd.Series, currency: str | None) -> str:
    """How much is sold and bought."""
    value = (traded["trade"].abs() * traded["price"]).astype(float)
    unit = f" {currency}" if currency else ""
    return (
        f"{counted(len(traded), 'order')}: {counted(sells.sum(), 'sale')} of "
        f"{value[sells].sum():,.2f}{unit}, {counted((~sells).sum(), 'purchase')} of "
        f"{value[~sells].sum():,.2f}{unit}"
    )


def _notes(table: pd.DataFrame) -> Iterator[str]:
    """Names that are held or wanted and cannot be traded, and fractions of a share that stay.

    Members that are no part of the decision are listed in its ``left_out``.
    """
    still = table[(table["trade"] == 0) & ~table["reason"].isin(["", LEFT_UNIVERSE])]
    for row in still.itertuples(index=False):
        held = f", {row.shares:,} shares are kept" if row.shares else ""
        yield f"no order: {row.instrument} ({row.reason}{held})"
    left = table[(table["weight"] == 0) & (table["target_shares"] > 0)]
    for row in left[left["target_shares"] < 1].itertuples(index=False):
        yield (
            f"not sold: {row.target_shares:g} of a share of {row.instrument}, since the market "
            "trades whole shares"
        )
