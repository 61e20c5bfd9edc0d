"""What a run leaves behind for its report: plain tables and small facts, saved without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import nearest
from ..errors import DataError
from ..files.atomic import replacing_folder
from ..files.digests import sha256_of
from ..markets.rules import QLIB_DAYS_PER_YEAR

SCHEMA = 1
FACTS = "results.json"
_WEIGHTS = ("datetime", "instrument", "weight")
COLUMNS: dict[str, tuple[str, ...]] = {
    "daily": (
        *("return", "cost", "turnover", "bench", "bench_equal"),
        *("names_held", "effective_names", "blocked", "orders"),
    ),
    "signal": (
        *("ic", "rank_ic", "mse"),
        *("regret", "regret_equal", "regret_shuffled", "decision_value"),
        *("kkt_norm", "iterations", "status", "universe"),
    ),
    "weights": _WEIGHTS,
    "realised": _WEIGHTS,
    "epochs": (
        *("epoch", "member", "train_loss", "train_prediction", "train_decision"),
        *("valid_prediction", "valid_decision", "valid_ic", "seconds"),
    ),
    "activity": ("datetime", "constraint", "binding", "price"),
    "events": ("datetime", "action", "reason"),
    "implementation_shortfall": (
        *("gap", "gap_drift", "gap_lots", "gap_unfilled"),
        *("gap_return", "gap_return_drift", "gap_return_lots", "gap_return_unfilled"),
        *("orders", "unfilled", "cut"),
    ),
    "truth": ("datetime", "portfolio", "regret", "expected", "realised", "turnover"),
}
"""The tables of a run and their columns."""
REQUIRED = {**COLUMNS, "daily": ("return",), "signal": (), "epochs": ("epoch",)}
"""The columns that each table must have where it holds anything."""
TEXTS = ("datetime", "instrument", "status", "constraint", "action", "reason", "portfolio")
"""Columns that hold no numbers."""
OPTIONAL = ("activity", "events", "implementation_shortfall", "truth")
"""Tables that only the run of a mandate or of a simulated market has, saved where they hold
anything."""
STORED = {"implementation_shortfall": "shortfall", "timing": "stages"}
"""What a field of :class:`RunResults` is called in the files, where it is not its own name."""


# A day's status where nothing was decided, as on a test segment's last day under a mandate.
NO_DECISION = "no decision"


@dataclass(frozen=True, eq=False)
class RunResults:
    """Everything the report of one run shows; tables are checked when this is built.

    Parameters
    ----------
    name, run_id : what the run is called, and its identity in the tracker.
    created : ISO date and time.
    config : the task's configuration.
    manifest : the data's manifest.
    settings : small facts, shown as they are. Some keys have a place of their own in the page:
        ``benchmark`` (name of the index, None where there is none), ``days_per_year`` (trading
        days that annual figures count), ``excluded_name_days`` (how many name-days were left out as
        doubtful) and ``survivorship`` (one sentence).
    daily : indexed by trading day, of ``return`` (daily fraction, before cost), ``cost`` (daily
        fraction of the account), ``turnover`` (value traded over account value, buys and sells
        both counted, as Qlib reports it), ``bench`` and ``bench_equal`` (daily return of the
        index and of the equally weighted universe), ``names_held``, ``effective_names``
        (1/Σw² of the targets), ``orders`` (trades that were wanted) and ``blocked`` (those of them
        that could not be made). Only ``return`` is mandatory.
    signal : indexed by the day t of the signal, of ``ic``, ``rank_ic``, ``mse`` (of returns
        standardised by day: 1 is a model without any information), ``regret`` (daily
        fraction, against the hindsight portfolio), ``regret_equal`` and ``regret_shuffled``
        (that of equal weights, and of decisions on shuffled scores; absent from the results of an
        earlier version), ``decision_value`` (daily fraction),
        ``kkt_norm``, ``iterations``, ``status`` (text, "solved" when it was, or NO_DECISION),
        ``universe`` (names in the problem). May be empty.
    weights : target weights > 0, one row for each signal day t and name.
    realised : weights held at the close of the trading day ``datetime``, one row for each name;
        the target of day t is traded at the close of the next trading day.
    epochs : one row for each epoch, empty where there were none; ``member`` numbers the networks
        where there are several, one after the other. ``best_epoch`` is the epoch
        whose network was kept.
    activity : of a mandate, one row for each signal day and constraint: whether it was
        ``binding`` (0 or 1) and its shadow ``price``, the return a day for a unit of its limit.
    events : fallbacks that were used on days that could not be solved as they were: ``action``
        and ``reason`` as text.
    implementation_shortfall : by trading day, realised against target weights; see
        :mod:`~bpqp_portfolio.backtest.implementation_shortfall`.
    truth : of a simulated market, what portfolios were worth by its truth; see
        :func:`~bpqp_portfolio.backtest.truth.judge_by_truth`.
    timing : stage → seconds.

    Raises
    ------
    DataError
        A table lacks a column, has an unknown one, or is not ordered by day.
    """

    name: str
    run_id: str
    created: str
    config: dict
    manifest: dict
    settings: dict
    daily: pd.DataFrame
    signal: pd.DataFrame
    weights: pd.DataFrame
    realised: pd.DataFrame = field(default_factory=lambda: _empty("realised"))
    epochs: pd.DataFrame = field(default_factory=lambda: _empty("epochs"))
    activity: pd.DataFrame = field(default_factory=lambda: _empty("activity"))
    events: pd.DataFrame = field(default_factory=lambda: _empty("events"))
    implementation_shortfall: pd.DataFrame = field(
        default_factory=lambda: _empty("implementation_shortfall")
    )
    truth: pd.DataFrame = field(default_factory=lambda: _empty("truth"))
    best_epoch: int | None = None
    timing: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in COLUMNS:
            _check_columns(table, getattr(self, table))
        for table in ("weights", "realised", "epochs", *OPTIONAL):
            if getattr(self, table).empty:
                object.__setattr__(self, table, _empty(table))
        if self.daily.empty:
            raise DataError("results.daily has no trading day: the backtest returned nothing.")
        for table in ("daily", "signal", "implementation_shortfall"):
            _check_days(table, getattr(self, table))
        for table in ("weights", "realised"):
            _check_weights(table, getattr(self, table))
        for column in self.daily:
            if np.isinf(self.daily[column].to_numpy(dtype=float)).any():
                raise DataError(f"results.daily[{column!r}] holds an infinite value.")

    @property
    def benchmark(self) -> str:
        """Name of the index, as the figures call it."""
        return str(self.settings.get("benchmark") or "index")

    @property
    def has_index(self) -> bool:
        """Is there an index to compare with?"""
        return bool(self.series("daily", "bench").notna().any())

    @property
    def days_per_year(self) -> float:
        """Trading days in a year of its market; Qlib's in a run saved before this was kept."""
        return float(self.settings.get("days_per_year") or QLIB_DAYS_PER_YEAR)

    @property
    def risk_degree(self) -> float:
        """Part of the account that target weights are fractions of; 1 where the run states none."""
        stated = self.settings.get("account") or self.settings.get("backtest") or {}
        return float(stated.get("risk_degree", 1.0))

    @property
    def years(self) -> float:
        """Length of the test."""
        return len(self.daily) / self.days_per_year

    def series(self, table: str, column: str) -> pd.Series:
        """One column of ``daily`` or ``signal`` as floats, all NaN where the run has none."""
        frame = getattr(self, table)
        if column in frame:
            return frame[column].astype(float)
        return pd.Series(np.nan, index=frame.index, name=column, dtype=float)


def _empty(table: str) -> pd.DataFrame:
    return pd.DataFrame({column: [] for column in REQUIRED[table]})


def _check_columns(table: str, frame: pd.DataFrame) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"results.{table}: expected a table, got {type(frame).__name__}.")
    for column in frame.columns:
        if column not in COLUMNS[table]:
            raise DataError(
                f"results.{table}: unknown column {column!r}.{nearest(column, COLUMNS[table])}"
            )
        if column in TEXTS:
            continue
        if not pd.api.types.is_numeric_dtype(frame[column]) and len(frame):
            raise DataError(f"results.{table}[{column!r}] must hold numbers.")
    missing = [column for column in REQUIRED[table] if column not in frame]
    if missing and (len(frame) or table == "daily"):
        raise DataError(f"results.{table}: missing {', '.join(missing)}.")


def _check_days(table: str, frame: pd.DataFrame) -> None:
    if frame.empty:
        return
    if not isinstance(frame.index, pd.DatetimeIndex):
        raise DataError(f"results.{table} must be indexed by day (a DatetimeIndex).")
    if not (frame.index.is_monotonic_increasing and frame.index.is_unique):
        raise DataError(f"results.{table}: days must be increasing and unique.")


def _check_weights(table: str, frame: pd.DataFrame) -> None:
    if frame.empty:
        return
    if not pd.api.types.is_datetime64_any_dtype(frame["datetime"]):
        raise DataError(f"results.{table}['datetime'] must hold dates.")
    if frame.duplicated(["datetime", "instrument"]).any():
        row = frame[frame.duplicated(["datetime", "instrument"])].iloc[0]
        raise DataError(
            f"results.{table}: {row['instrument']} occurs twice on {row['datetime']:%Y-%m-%d}."
        )
    if not np.isfinite(frame["weight"].to_numpy(dtype=float)).all():
        raise DataError(f"results.{table}: a weight is not finite.")


def save_results(results: RunResults, folder: Path | str) -> Path:
    """Write ``results`` as Parquet and JSON into ``folder``, which is replaced as a whole.

    Returns the folder.

    Raises
    ------
    DataError
        The folder holds something else, which is not replaced.
    """
    folder = Path(folder).expanduser().absolute()
    ours = (folder / FACTS).is_file() or (folder.is_dir() and not any(folder.iterdir()))
    if folder.exists() and not ours:
        raise DataError(f"{folder} exists and holds no saved results: choose another place.")
    with replacing_folder(folder) as fresh:
        digests = {}
        for table in COLUMNS:
            if table in OPTIONAL and getattr(results, table).empty:
                continue
            path = fresh / f"{STORED.get(table, table)}.parquet"
            getattr(results, table).to_parquet(path, engine="pyarrow")
            digests[path.name] = sha256_of(path)
        facts = {
            STORED.get(f.name, f.name): plain(getattr(results, f.name))
            for f in fields(results)
            if f.name not in COLUMNS
        }
        document = {"schema": SCHEMA, "files": digests, **facts}
        (fresh / FACTS).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return folder


def load_results(folder: Path | str) -> RunResults:
    """Read what :func:`save_results` wrote.

    Raises
    ------
    DataError
        The folder is absent, foreign, damaged, or of another schema version.
    """
    folder = Path(folder).expanduser()
    path = folder / FACTS
    if not path.is_file():
        raise DataError(f"no saved results in {folder}: it has no {FACTS}.")
    again = "Run the workflow again, or take another copy of the folder."
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        schema, digests = facts.pop("schema"), facts.pop("files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged or not ours ({error!r}). {again}") from error
    if schema != SCHEMA:
        raise DataError(
            f"{path} has schema version {schema}, this program reads {SCHEMA}: "
            "use the version of bpqp-portfolio that wrote it."
        )
    tables = {}
    for table in COLUMNS:
        file = folder / f"{STORED.get(table, table)}.parquet"
        if table in OPTIONAL and file.name not in digests:
            continue
        if not file.is_file():
            raise DataError(f"{file} is missing. {again}")
        if sha256_of(file) != digests.get(file.name):
            raise DataError(f"{file} is damaged: its checksum differs from {FACTS}. {again}")
        tables[table] = pd.read_parquet(file, engine="pyarrow")
    names = {stored: name for name, stored in STORED.items()}
    facts = {names.get(name, name): value for name, value in facts.items()}
    try:
        return RunResults(**facts, **tables)
    except TypeError as error:
        raise DataError(f"{path} is damaged: {error}. {again}") from error


def plain(value: Any) -> Any:
    """``value`` in JSON's own types; anything that JSON has no type for becomes its text.

    >>> plain({1: np.float32(0.5), "days": (np.int64(2), None)})
    {'1': 0.5, 'days': [2, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value)
