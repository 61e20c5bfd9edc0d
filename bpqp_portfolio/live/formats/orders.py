"""An order list for a broker: what to buy and sell, sales first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ...backtest.rebalance import LEFT_UNIVERSE
from ...errors import ConfigError
from ...report.metrics import counted
from ..target import Target, quoted
from .request import Listing, Request, currency_notes

COLUMNS = ("date", "side", "quantity", "code", "reference_price", "currency", "account")
BUY, SELL = "BUY", "SELL"
SATURDAY = 5


def rows(target: Target, request: Request) -> Listing:
    """One row an order, the sales before the purchases that they pay for, each in order of code.

    ``date`` of the trade; ``side`` BUY or SELL; ``quantity`` of shares, a whole number but where
    the market's rules have no lots; ``reference_price``, the quoted close that it was sized by.

    Raises
    ------
    ConfigError
        The date of the trade is not known, another than the calendar's, or on a weekend.
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
    inside = table[~table["instrument"].isin(list(target.summary["left_out"]))]
    notes = (*_notes(inside, target.summary["lot"]), *currency_notes(target.summary))
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
    if known is None and pd.Timestamp(given).weekday() >= SATURDAY:
        day = pd.Timestamp(given)
        monday = day + pd.Timedelta(days=7 - day.weekday())
        raise ConfigError(
            f"trade date: {given} is a {day:%A}, on which no exchange trades; the next Monday is "
            f"{monday:%Y-%m-%d}. List a weekend's session in calendars/day_future.txt."
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


def _notes(table: pd.DataFrame, lot: int | None) -> Iterator[str]:
    """Names that are held or wanted and cannot be traded, and fractions of a share that stay.

    Members that are no part of the decision are listed in its ``left_out``.
    """
    still = table[(table["trade"] == 0) & ~table["reason"].isin(["", LEFT_UNIVERSE])]
    for row in still.itertuples(index=False):
        held = f", {row.shares:,} shares are kept" if row.shares else ""
        yield f"no order: {row.instrument} ({row.reason}{held})"
    if lot is None:
        return
    part = table["target_shares"].astype(float) % 1
    kept = (part > 0) & ~table.index.isin(still.index)
    for name, share in zip(table.loc[kept, "instrument"], part[kept], strict=True):
        yield f"not sold: {share:g} of a share of {name}, since the market trades whole shares"
