"""Daily OHLCV from CSV and Parquet files, one file a name or long files with a symbol column."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import DataError
from ...files.bounds import check_csv, check_parquet, listed
from ...files.progress import progress_bar
from .cleaning import Fields, is_traded
from .provider import CODE

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".pq")
COUNTS = ("duplicate_rows", "rows_out_of_order")

# Headings, lower case with underscores, by what they mean here.
_HEADINGS = {
    "date": ("date", "datetime", "trade_date", "tradedate"),
    "symbol": ("symbol", "instrument", "ticker", "code"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume", "vol"),
    "vwap": ("vwap",),
    "change": ("change",),
    "factor": ("factor",),
    "adj_factor": ("adj_factor",),
    "adj_close": ("adj_close", "adjclose", "adjusted_close"),
}
_MEANING = {heading: name for name, headings in _HEADINGS.items() for heading in headings}
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "--"]
# From pandas 3.1 every number is read to the nearest double, and asking for it is deprecated.
_EXACT = (
    {"float_precision": "round_trip"}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    else {}
)
_QUOTED_PRICES = ("open", "high", "low", "close", "vwap")


def is_table(path: Path) -> bool:
    """Is the file, by its name, a table that :func:`read_tables` reads?"""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


@dataclass(frozen=True)
class Tables:
    """Daily tables by name, adjusted; ``counts`` of what was mended, ``ignored`` column names.

    ``calendar`` (T,) holds the days on which at least one name traded.
    """

    calendar: pd.DatetimeIndex
    frames: dict[str, pd.DataFrame]
    counts: Counter
    ignored: list[str]

    def read(self, name: str) -> Fields:
        """The fields of ``name`` on the calendar, each (T,) float32, NaN where it has no row."""
        frame = self.frames[name].reindex(self.calendar)
        with np.errstate(over="ignore"):  # becomes infinite, and is then counted as such
            return {field: frame[field].to_numpy(dtype=np.float32) for field in frame.columns}


def read_tables(files: Iterable[Path], *, progress: bool = True) -> Tables:
    """Read daily tables; columns are matched without regard to case.

    Needed: ``date`` (or ``datetime``, ``trade_date``) and ``close``; taken where present:
    ``open high low volume vwap change symbol``. Without a ``symbol`` (``instrument``, ``ticker``,
    ``code``) column the file's name is the symbol. Adjustment, at most one of

    - ``factor``: prices and volume are adjusted already, quoted price = price / factor (Qlib's);
    - ``adj_factor``: prices are as quoted, adjusted = price × adj_factor, volume / adj_factor;
    - ``adj_close``: prices are as quoted, the factor is adj_close / close (Yahoo's);

    and with none of them the factor is 1. Rows out of order are sorted, and repeated rows that
    are equal are dropped: both are harmless, and counted.

    Raises
    ------
    DataError
        A file is unreadable, lacks a column, has a bad date or number; a name has two different
        rows for one day; a ``factor`` column goes with prices that are not adjusted; no prices.
    """
    files = list(files)
    parts: dict[str, list[pd.DataFrame]] = defaultdict(list)
    ignored: set[str] = set()
    with progress_bar("read", len(files), progress, "file") as bar:
        for path in files:
            frame, unknown = _read_file(path)
            ignored.update(unknown)
            for symbol, rows in frame.groupby("symbol", sort=False):
                parts[symbol].append(rows.drop(columns="symbol"))
            bar.update()
    counts = Counter(dict.fromkeys(COUNTS, 0))
    frames, days = {}, pd.DatetimeIndex([])
    for symbol in sorted(parts):
        frames[symbol] = _one_row_a_day(symbol, pd.concat(parts.pop(symbol)), counts)
        traded = is_traded({name: col.to_numpy() for name, col in frames[symbol].items()})
        days = days.union(frames[symbol].index[traded])
    if not len(days):
        raise DataError("the tables hold no day with a positive close.")
    _refuse_quoted(frames)
    return Tables(days, frames, counts, sorted(ignored))


def _read_file(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """One file as columns date, symbol and adjusted fields, and the columns left out."""
    try:
        if path.name.lower().endswith((".parquet", ".pq")):
            check_parquet(path)
            frame = pd.read_parquet(path)
            if isinstance(frame.index, pd.DatetimeIndex):
                frame = frame.rename_axis("date")
            if any(name is not None for name in frame.index.names):
                frame = frame.reset_index()
            columns, unknown = _match(frame.columns, path)
            frame = frame[list(columns)]
        else:
            check_csv(path, f"cannot read {path.name}:")
            names = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
            columns, unknown = _match(names, path)
            texts = [c for c, name in columns.items() if name in ("date", "symbol")]
            frame = pd.read_csv(
                path,
                usecols=list(columns),
                dtype=dict.fromkeys(texts, str),
                # A symbol may be "NA" or "NULL".
                keep_default_na=False,
                na_values={c: _MISSING for c in columns if c not in texts},
                **_EXACT,
                encoding="utf-8-sig",
                low_memory=False,
            )
    except DataError:
        raise
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parser errors are ValueErrors
        raise DataError(f"cannot read {path.name}: {error}") from error
    frame = frame.rename(columns=columns)
    for column, name in columns.items():
        if name not in ("date", "symbol"):
            try:
                frame[name] = pd.to_numeric(frame[name]).astype(np.float64)
            except (ValueError, TypeError) as error:
                raise DataError(f"{path.name}, column {column!r}: {error}") from error
    frame["date"] = _dates(frame["date"], path)
    frame["symbol"] = _symbols(frame, path)
    return _adjusted(frame), unknown


def _match(columns: Sequence[str], path: Path) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    unknown = []
    for column in columns:
        name = _MEANING.get(re.sub(r"[\s-]+", "_", str(column).strip().lower()))
        if name is None:
            unknown.append(str(column))
        elif name in found.values():
            raise DataError(f"{path.name} has two columns for {name!r}; remove one.")
        else:
            found[column] = name
    for name in ("date", "close"):
        if name not in found.values():
            raise DataError(
                f"{path.name} has no column for {name!r} (its columns: {listed(columns)}); name "
                f"one of them {_HEADINGS[name][0]!r}."
            )
    adjustments = [name for name in found.values() if name in ("factor", "adj_factor", "adj_close")]
    if len(adjustments) > 1:
        raise DataError(f"{path.name} has {' and '.join(adjustments)}; keep one of them.")
    return found, unknown


def _dates(column: pd.Series, path: Path) -> pd.Series:
    """Days at midnight, as the file writes them: a time of day or zone is cut off."""
    if pd.api.types.is_datetime64_any_dtype(column):
        dates = column.dt.tz_localize(None).dt.normalize()
    else:
        parts = column.astype(str).str.strip()
        parts = parts.str.extract(r"^(\d{4})[-/]?(\d{2})[-/]?(\d{2})(?:[T ].*)?$")
        text = parts[0] + parts[1] + parts[2]
        dates = pd.to_datetime(text, format="%Y%m%d", errors="coerce")
    if dates.isna().any():
        row = int(np.flatnonzero(dates.isna())[0])
        raise DataError(
            f"{path.name}, row {row + 1}: {column.iloc[row]!r} is no date; write YYYY-MM-DD."
        )
    return dates


def _symbols(frame: pd.DataFrame, path: Path) -> pd.Series | str:
    if "symbol" not in frame:
        stem = re.sub(r"\.(csv|csv\.gz|parquet|pq)$", "", path.name, flags=re.IGNORECASE)
        symbols = pd.Series(stem, index=frame.index)
    else:
        symbols = frame["symbol"].astype("string").fillna("")
    symbols = symbols.str.strip().str.upper()
    bad = ~symbols.str.fullmatch(CODE)
    if bad.any():
        raise DataError(
            f"{path.name}: {symbols[bad].iloc[0][:40]!r} is no symbol; use letters, digits and "
            "- _ ^ . (not first), without spaces, slashes or control characters."
        )
    return symbols


def _adjusted(frame: pd.DataFrame) -> pd.DataFrame:
    if "factor" in frame:
        return frame
    if "adj_close" in frame:
        # Zero over zero, on a suspended day, is a missing factor.
        frame["factor"] = frame["adj_close"] / frame["close"].where(frame["close"] > 0)
    elif "adj_factor" in frame:
        frame["factor"] = frame.pop("adj_factor")
    else:
        frame["factor"] = 1.0
        return frame
    for name in _QUOTED_PRICES:
        if name in frame:
            frame[name] = frame[name] * frame["factor"]
    if "volume" in frame:
        frame["volume"] = frame["volume"] / frame["factor"]
    if "adj_close" in frame:
        frame["close"] = frame.pop("adj_close")  # the product may differ in its last digit
    return frame


def _one_row_a_day(symbol: str, frame: pd.DataFrame, counts: Counter) -> pd.DataFrame:
    counts["rows_out_of_order"] += int((frame["date"].diff() < pd.Timedelta(0)).sum())
    repeated = frame.duplicated()
    counts["duplicate_rows"] += int(repeated.sum())
    frame = frame[~repeated].set_index("date").sort_index()
    if frame.index.has_duplicates:
        day = frame.index[frame.index.duplicated()][0]
        raise DataError(
            f"{symbol} has two different rows for {day:%Y-%m-%d}; keep one row a day "
            "(intraday bars are not supported)."
        )
    return frame


def _refuse_quoted(frames: dict[str, pd.DataFrame]) -> None:
    """Refuse quoted prices beside a ``factor`` column, which promises adjusted ones.

    Where the factor jumps by a quarter or more (a split), an adjusted price hardly moves and a
    quoted one jumps the other way. The majority of such days over all names decides.
    """
    quoted = jumps = 0
    for frame in frames.values():
        rows = frame[(frame["close"] > 0) & (frame["factor"] > 0)]
        price = np.diff(np.log(rows["close"].to_numpy()))
        factor = np.diff(np.log(rows["factor"].to_numpy()))
        jump = np.abs(factor) > np.log(1.25)
        jumps += int(jump.sum())
        quoted += int((np.abs(price + factor) < np.abs(price))[jump].sum())
    if 2 * quoted > jumps:
        raise DataError(
            f"prices look quoted, not adjusted: on {quoted} of {jumps} days on which the factor "
            "jumps, the price jumps against it. A column `factor` means that prices are adjusted "
            "already (quoted = price / factor); name it `adj_factor` to have them multiplied by it."
        )
