"""What a format is asked for besides the decision, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import ConfigError
from ...files.atomic import replacing_file
from ...files.dates import FORM, iso_day


@dataclass(frozen=True)
class Request:
    """Who trades and when.

    ``account`` name or number of the account, empty for none; ``trade_date`` YYYY-MM-DD on which
    the orders are to be traded, None for the trading day after the decision's, which the provider's
    calendar then has to know.

    Raises
    ------
    ConfigError
        ``trade_date`` is no date of that form.
    """

    account: str = ""
    trade_date: str | None = None

    def __post_init__(self) -> None:
        if self.trade_date is not None and iso_day(self.trade_date) is None:
            raise ConfigError(f"trade date: {self.trade_date!r} is no date of the form {FORM}.")


@dataclass(frozen=True, eq=False)
class Listing:
    """The ``rows`` of a file, a ``title`` of one line, and ``notes`` on what the rows leave out."""

    rows: pd.DataFrame
    title: str
    notes: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the rows as CSV, whole or not at all; numbers are read back exactly."""
        with replacing_file(path) as scratch:
            self.rows.to_csv(scratch, index=False, lineterminator="\n")


def currency_notes(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on a column ``currency`` that is empty, none where it is not."""
    if summary["currency"] is not None:
        return ()
    return (
        "currency: the column is empty, since the run's market rules state none: it was tracked "
        "before they had one, or its workflow says null. Run its workflow again with `qlib_init: "
        "{region: …}` or `market_rules: {currency: …}` of your market to have it.",
    )
