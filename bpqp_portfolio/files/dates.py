"""Dates as users write them: YYYY-MM-DD, or refused, since 02.01.2015 has two readings."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

import pandas as pd

FORM = "YYYY-MM-DD"
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
# A day is kept to the nanosecond in places, which ends in 2262.
_LAST_YEAR = 2261


def iso_day(value: Any) -> pd.Timestamp | None:
    """The day that ``value`` names: text of the form YYYY-MM-DD, or a date; None for any other.

    >>> iso_day("2015-01-02")
    Timestamp('2015-01-02 00:00:00')
    >>> iso_day("02.01.2015") is None, iso_day("2015-02-30") is None
    (True, True)
    """
    if value is pd.NaT:
        return None
    if isinstance(value, datetime):
        whole = value.tzinfo is None and value == datetime(value.year, value.month, value.day)
        value = f"{value:%Y-%m-%d}" if whole else None
    elif isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str) or not _ISO.fullmatch(value):
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return None
    return pd.Timestamp(day) if 1700 <= day.year <= _LAST_YEAR else None


def iso_days(texts: pd.Series) -> pd.Series:
    """Days of a column of text, NaT where a cell is not of the form YYYY-MM-DD.

    >>> iso_days(pd.Series(["2015-01-02", "1/2/2015", "2015-1-2"])).isna().tolist()
    [False, True, True]
    """
    days = pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce")
    return days.where(texts.str.fullmatch(_ISO.pattern))
