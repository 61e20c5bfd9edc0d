"""Segments of a workflow: dates read, and turned into trading days without a look ahead."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..config import check_keys, keys_of
from ..errors import ConfigError
from ..files import workflow
from ..files.dates import FORM, iso_day

SEGMENTS = keys_of(workflow.Segments)
LEAST_TEST = 3
"""Days of a test: the target of the first is traded on the second and earns on the third."""
BEFORE, AFTER = 15, 31
"""Days that a segment may begin before the data do, or end after them: a holiday, or data that are
not up to date. More is taken for a mistake."""
Segments = dict[str, tuple[pd.Timestamp, pd.Timestamp]]


def read_segments(segments: Any) -> Segments:
    """The dates of ``train``, ``valid`` and ``test``, in order; no data are needed.

    Raises
    ------
    ConfigError
        A segment is missing or unknown, not a pair of dates of the form YYYY-MM-DD, or begins
        after its end or before the end of the one before it.
    """
    check_keys(segments, SEGMENTS, "segments")
    out: Segments = {}
    for name in SEGMENTS:
        if name not in segments:
            raise ConfigError(
                f"segments: {name!r} is missing; state two dates: "
                f"`{name}: [2015-01-05, 2016-12-30]`."
            )
        out[name] = _pair(segments[name], f"segments.{name}")
    _refuse_overlap(out)
    return out


def check_segments(
    segments: Mapping[str, Any],
    calendar: pd.DatetimeIndex,
    horizon: int = 1,
    *,
    quiet: bool = False,
) -> Segments:
    """Segments as trading days of ``calendar``, in order and without a label that looks ahead.

    Train and valid end early enough for their last label, of ``horizon`` days, to be known before
    the next segment begins. The test ends before the calendar does, since the last trade needs a
    day after it, which is printed unless ``quiet``.

    Raises
    ------
    ConfigError
        As :func:`read_segments`; or a segment is empty or outside the calendar by more than
        :data:`BEFORE` or :data:`AFTER` days, or the test is too short for a trade to earn anything.
    """
    if len(calendar) < 2:
        raise ConfigError(f"segments: the calendar of the data has {len(calendar)} trading days.")
    out = {
        name: _trading_days(span, calendar, f"segments.{name}")
        for name, span in read_segments(segments).items()
    }
    _refuse_overlap(out)
    # The label of day t needs the closes of t+1 and t+1+h.
    reach = 1 + horizon
    for first, second in itertools.pairwise(SEGMENTS):
        start, end = out[first]
        latest = calendar.get_loc(out[second][0]) - 1 - reach
        if latest < calendar.get_loc(start):
            raise ConfigError(f"segments.{first}: needs more than {reach} trading days.")
        out[first] = (start, min(end, calendar[latest]))
    out["test"] = _test_that_trades(out["test"], calendar, quiet)
    return out


def _pair(value: Any, where: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(
            f"{where}: expected two dates, got {value!r}; write `[2015-01-05, 2016-12-30]`."
        )
    days = [iso_day(one) for one in value]
    for day, said in zip(days, value, strict=True):
        if day is None:
            raise ConfigError(f"{where}: {said!r} is no date of the form {FORM}.")
    start, end = days
    assert start is not None and end is not None
    if start > end:
        raise ConfigError(f"{where}: {start:%Y-%m-%d} is after {end:%Y-%m-%d}.")
    return start, end


def _refuse_overlap(segments: Segments) -> None:
    for first, second in itertools.pairwise(SEGMENTS):
        if segments[first][1] >= segments[second][0]:
            raise ConfigError(
                f"segments: {first} (to {segments[first][1]:%Y-%m-%d}) overlaps {second} "
                f"(from {segments[second][0]:%Y-%m-%d}); each ends before the next begins."
            )


def _trading_days(
    span: tuple[pd.Timestamp, pd.Timestamp], calendar: pd.DatetimeIndex, where: str
) -> tuple[pd.Timestamp, pd.Timestamp]:
    """First and last day of ``calendar`` in ``span``, which lies within it but for a few days."""
    start, end = span
    first, last = calendar[0], calendar[-1]
    if start > last or end < first:
        raise ConfigError(
            f"{where}: {start:%Y-%m-%d} to {end:%Y-%m-%d} is outside the calendar, which runs from "
            f"{first:%Y-%m-%d} to {last:%Y-%m-%d}. Choose days in it, or get the data of these."
        )
    if start < first - pd.Timedelta(days=BEFORE):
        raise ConfigError(
            f"{where}: begins on {start:%Y-%m-%d}, {_length(first - start)} before the calendar "
            f"({first:%Y-%m-%d} to {last:%Y-%m-%d}). Begin on {first:%Y-%m-%d} or later."
        )
    if end > last + pd.Timedelta(days=AFTER):
        raise ConfigError(
            f"{where}: ends on {end:%Y-%m-%d}, but the data end on {last:%Y-%m-%d}: "
            f"{_length(end - last)} of it are missing. End it on {last:%Y-%m-%d}, or bring the "
            "data up to date."
        )
    days = calendar[(calendar >= start) & (calendar <= end)]
    if not len(days):
        raise ConfigError(f"{where}: no trading day from {start:%Y-%m-%d} to {end:%Y-%m-%d}.")
    return days[0], days[-1]


def _length(time: pd.Timedelta) -> str:
    return f"{time.days} days" if time.days < 366 else f"{time.days / 365.25:.1f} years"


def _test_that_trades(
    test: tuple[pd.Timestamp, pd.Timestamp], calendar: pd.DatetimeIndex, quiet: bool
) -> tuple[pd.Timestamp, pd.Timestamp]:
    """The test without the calendar's last day, and long enough for a trade to earn something."""
    start, end = test
    if end >= calendar[-1]:
        end = calendar[-2]
        if not quiet:
            print(
                f"note: the test segment ends on the calendar's last day; it is cut to "
                f"{end:%Y-%m-%d}, since the last trade needs a day after it.",
                flush=True,
            )
        if start > end:
            raise ConfigError("segments.test: needs a trading day before the calendar's last.")
    days = int(((calendar >= start) & (calendar <= end)).sum())
    if days < LEAST_TEST:
        raise ConfigError(
            f"segments.test: {days} trading day{'s' if days > 1 else ''} ({start:%Y-%m-%d} to "
            f"{end:%Y-%m-%d}), on which nothing could be earned: the target of the first day is "
            f"traded at the close of the second and earns on the third. Take {LEAST_TEST} days or "
            "more; a figure a year needs at least a month of them."
        )
    return start, end
