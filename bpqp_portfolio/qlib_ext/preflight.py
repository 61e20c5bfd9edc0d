"""Checks that come before any long work: segments, universe, problem, and the task's records."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.utils import get_callable_kwargs

from ..config import check_keys
from ..data.market import Market
from ..errors import ConfigError, DataError
from ..portfolio.problem import ProblemConfig
from ..risk.config import RiskConfig

SEGMENTS = ("train", "valid", "test")
# The label of day t needs the closes of t+1 and t+2.
LABEL_DAYS = 2

Segments = dict[str, tuple[pd.Timestamp, pd.Timestamp]]


def check_segments(segments: Mapping[str, Any], calendar: pd.DatetimeIndex) -> Segments:
    """Segments as trading days of ``calendar``, in order and without a label that looks ahead.

    Train and valid end early enough for their last label to be known before the next segment
    begins. The test ends before the calendar does, since the last trade needs a day after it.

    Raises
    ------
    ConfigError
        A segment is missing, not a pair of dates, outside the calendar, empty or overlapping.
    """
    check_keys(segments, SEGMENTS, "segments")
    out: Segments = {}
    for name in SEGMENTS:
        if name not in segments:
            raise ConfigError(f"segments: {name!r} is missing.")
        try:
            start, end = (pd.Timestamp(str(d)) for d in segments[name])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"segments.{name}: expected two dates, got {segments[name]!r} ({error})."
            ) from error
        if start > end:
            raise ConfigError(f"segments.{name}: {start:%Y-%m-%d} is after {end:%Y-%m-%d}.")
        if start > calendar[-1] or end < calendar[0]:
            raise ConfigError(
                f"segments.{name}: {start:%Y-%m-%d} to {end:%Y-%m-%d} is outside the calendar, "
                f"which runs from {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}."
            )
        if start < calendar[0] - pd.Timedelta(days=15):
            raise ConfigError(
                f"segments.{name}: begins on {start:%Y-%m-%d}, before the calendar "
                f"({calendar[0]:%Y-%m-%d})."
            )
        days = calendar[(calendar >= start) & (calendar <= end)]
        if not len(days):
            raise ConfigError(f"segments.{name}: no trading day in it.")
        out[name] = (days[0], days[-1])
    for first, second in itertools.pairwise(SEGMENTS):
        if out[first][1] >= out[second][0]:
            raise ConfigError(
                f"segments: {first} (to {out[first][1]:%Y-%m-%d}) overlaps {second} "
                f"(from {out[second][0]:%Y-%m-%d})."
            )
    for first, second in itertools.pairwise(SEGMENTS):
        latest = calendar[calendar.get_loc(out[second][0]) - 1 - LABEL_DAYS]
        start, end = out[first]
        if end > latest:
            if latest < start:
                raise ConfigError(f"segments.{first}: needs more than {LABEL_DAYS} trading days.")
            out[first] = (start, latest)
    start, end = out["test"]
    if end >= calendar[-1]:
        end = calendar[-2]
        print(
            f"note: the test segment ends on the calendar's last day; it is cut to {end:%Y-%m-%d}, "
            "since the last trade needs a day after it.",
            flush=True,
        )
        if start > end:
            raise ConfigError("segments.test: needs a trading day before the calendar's last.")
        out["test"] = (start, end)
    return out


def check_universe(
    market: Market, segments: Segments, risk: RiskConfig, problem: ProblemConfig
) -> None:
    """Every day has enough names for the risk model and for the largest weight.

    Raises
    ------
    DataError, ConfigError
        A day without a name, with too few for the factors, or for ``max_weight``.
    """
    first, last = segments["train"][0], segments["test"][1]
    days = (market.dates >= first) & (market.dates <= last)
    count = market.investable[days].sum(1)
    dates = market.dates[days]
    worst = int(np.argmin(count))
    if count[worst] == 0:
        raise DataError(
            f"no name can be invested in on {dates[worst]:%Y-%m-%d} ({int((count == 0).sum())} "
            "such days): the universe is empty or all its prices are missing. Run "
            "`bpqp data check`, or choose other segments."
        )
    if count[worst] <= risk.factors:
        raise DataError(
            f"{count[worst]} names can be invested in on {dates[worst]:%Y-%m-%d}, but the risk "
            f"model has {risk.factors} factors: set risk.factors below {count[worst]}."
        )
    if count[worst] * problem.max_weight < 1:
        raise ConfigError(
            f"problem.max_weight {problem.max_weight:g} cannot reach a sum of 1 with the "
            f"{count[worst]} names of {dates[worst]:%Y-%m-%d}: set it to at least "
            f"{1 / count[worst]:.4g}."
        )
    before = int(np.flatnonzero(days)[0]) + 1
    if before < risk.min_history:
        raise DataError(
            f"the risk model needs {risk.min_history} days up to the first training day, but the "
            f"data begin {before} days before {first:%Y-%m-%d}: start the train segment later or "
            "lower risk.min_history."
        )


def check_records(task: Mapping[str, Any]) -> None:
    """Every record of ``task`` exists and its settings are known, before anything is trained.

    Raises
    ------
    ConfigError
        An unknown key of the task, a record that cannot be found, or a bad setting of one of ours.
    """
    check_keys(task, ("model", "dataset", "record", "reweighter"), "task")
    records = task.get("record", [])
    for record in [records] if isinstance(records, Mapping) else records:
        try:
            cls, kwargs = get_callable_kwargs(record, "qlib.workflow.record_temp")
        except (AttributeError, ModuleNotFoundError) as error:
            raise ConfigError(
                f"task.record: no record {record.get('class')!r} ({error})."
            ) from error
        if hasattr(cls, "check_settings"):
            cls.check_settings(kwargs)
