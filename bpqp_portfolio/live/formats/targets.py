"""A target list: what to hold, by code; a name that is held and is to be sold has a zero."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...report.metrics import counted
from ..target import Target, quoted
from .request import Listing, Request, currency_notes

COLUMNS = ("date", "code", "weight", "shares", "reference_price", "value", "currency", "account")


def rows(target: Target, request: Request) -> Listing:
    """One row a name, the largest weight first.

    ``date`` of the decision; ``weight``, a fraction of the invested part; ``shares`` to hold,
    ``reference_price`` and ``value``, empty where there is no account to size them by.
    """
    table = target.table
    sized = target.is_sized
    listed = table["weight"] > 0
    if sized:
        listed |= (table["shares"] > 0) | (table["target_shares"] > 0)
    kept = table[listed]
    columns = {
        "date": target.summary["date"],
        "code": kept["instrument"],
        "weight": kept["weight"],
        "shares": kept["target_shares"] if sized else np.nan,
        "reference_price": quoted(kept["price"]) if sized else np.nan,
        "value": kept["value"] if sized else np.nan,
        "currency": target.summary["currency"],
        "account": request.account,
    }
    frame = pd.DataFrame(columns, index=kept.index, columns=list(COLUMNS)).reset_index(drop=True)
    return Listing(frame, counted(len(frame), "target"), currency_notes(target.summary))
