"""Daily bars from CSV and Parquet files of any accepted shape, by name, adjusted, one row a day."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import ConfigError, DataError
from ...files.bounds import listed
from ...files.progress import progress_bar
from .cleaning import Fields, is_traded
from .shapes import HEADINGS, TEXTS, is_named_after_a_field
from .table_file import AS_WRITTEN, Bars, Reading, read_file

COUNTS = ("duplicate_rows", "empty_rows", "rows_out_of_order")
SHOWN = 5
MOSTLY = 0.75
"""Share of a wide table's values but zeros that must be positive for them to be closes."""

_QUOTED_PRICES = ("open", "high", "low", "close", "vwap")
_PLACE = ["line", "file"]


@dataclass(frozen=True)
class Tables:
    """Daily tables by name, adjusted; ``counts`` of what was mended, ``ignored`` column names.

    ``calendar`` (T,) holds the days on which at least one name traded; ``files`` are the names of
    what was read, which a row's ``file`` counts; ``codes`` are those that were rewritten, and
    ``open_ended`` the files without a last line break, where most have one; ``maybe_lots`` the
    files whose volumes may be in lots of 100 shares.
    """

    calendar: pd.DatetimeIndex
    frames: dict[str, pd.DataFrame]
    files: list[str]
    counts: Counter
    ignored: list[str]
    codes: dict[str, str]
    open_ended: list[str]
    maybe_lots: list[str]

    def read(self, name: str, calendar: pd.DatetimeIndex | None = None) -> Fields:
        """The fields of ``name`` on the calendar, each (T,) float32, NaN where it has no row."""
        frame = self.frames[name].drop(columns=_PLACE)
        frame = frame.reindex(self.calendar if calendar is None else calendar)
        with np.errstate(over="ignore"):  # becomes infinite, and is then counted as such
            return {field: frame[field].to_numpy(dtype=np.float32) for field in frame.columns}

    def place(self, name: str, day: pd.Timestamp) -> str:
        """File and line of the row of ``name`` on ``day``."""
        row = self.frames[name].loc[day]
        return f"{self.files[int(row['file'])]} line {int(row['line'])}"


def read_tables(
    files: Iterable[Path], reading: Reading = AS_WRITTEN, *, progress: bool = True
) -> Tables:
    """Read daily tables: long ones, two rows of headings (yfinance), or dates × names.

    Columns are matched without regard to case. Needed: ``date`` (or ``datetime``, ``trade_date``)
    and ``close``; taken where present: ``open high low volume vwap change symbol``. Without a
    ``symbol`` (``instrument``, ``ticker``, ``code``, or ``name`` where it has codes) column the
    file's name is the symbol. Adjustment, at most one of

    - ``factor``: prices and volume are adjusted already, quoted price = price / factor (Qlib's);
    - ``adj_factor``: prices are as quoted, adjusted = price × adj_factor, volume / adj_factor;
    - ``adj_close``: prices are as quoted, the factor is adj_close / close (Yahoo's);

    and with none of them the factor is 1. Rows out of order are sorted; repeated rows that are
    equal, and empty ones beside a good one, are dropped: all are harmless, and counted.

    Raises
    ------
    DataError
        A file is unreadable or cut off, lacks a column, has a bad date or number; a name has two
        different rows for one day; a ``factor`` column goes with prices that are not adjusted; no
        prices.
    ConfigError
        A time zone is said, and no stamp has an offset.
    """
    files = list(files)
    parts: dict[str, list[pd.DataFrame]] = defaultdict(list)
    wide: list[tuple[str, pd.DataFrame]] = []
    read: list[tuple[Path, Bars]] = []
    with progress_bar("read", len(files), progress, "file") as bar:
        for i, path in enumerate(files):
            bars = read_file(path, reading)
            frame = bars.frame.assign(file=np.int16(i) if len(files) < 2**15 else i)
            read.append((path, bars))
            if bars.layout.kind == "wide":
                wide.append((bars.layout.columns[-1].field, frame))
            else:
                _split(_adjusted(frame, files), parts)
            bar.update()
    if reading.timezone is not None:
        _check_offsets(read, reading.timezone)
    if wide:
        _check_wide([path for path, bars in read if bars.layout.kind == "wide"], wide)
        _split(_adjusted(_joined(wide), files), parts)
    counts = Counter(dict.fromkeys(COUNTS, 0))
    names = [path.name for path in files]
    frames = _by_name(parts, names, counts)
    days = pd.DatetimeIndex([])
    for frame in frames.values():
        traded = is_traded({name: col.to_numpy() for name, col in frame.items()})
        days = days.union(frame.index[traded])
    if not len(days):
        raise DataError("the tables hold no day with a positive close.")
    _refuse_quoted(frames, names)
    return Tables(
        days,
        frames,
        names,
        counts,
        sorted({column for _, bars in read for column in bars.ignored}),
        {code: to for _, bars in read for code, to in bars.codes.items()},
        _open_ended(read),
        [path.name for path, bars in read if bars.layout.may_be_lots],
    )


def _check_offsets(read: Sequence[tuple[Path, Bars]], zone: str) -> None:
    """Refuse a time zone where no file, or not every file, can be shifted to it."""
    without = [path.name for path, bars in read if not bars.offsets]
    if len(without) == len(read):
        raise ConfigError(
            f"timezone: no stamp of the source has an offset from UTC (as +00:00), so nothing can "
            f"be shifted to {zone}; leave --timezone out, or add the offset."
        )
    if without:
        having = next(path.name for path, bars in read if bars.offsets)
        raise DataError(
            f"{listed(without)}: no stamp has an offset from UTC, and those of {having} have one "
            f"and are shifted to {zone}; write the dates of all files in one way."
        )


def _check_wide(paths: Sequence[Path], wide: Sequence[tuple[str, pd.DataFrame]]) -> None:
    """Refuse wide tables that are read as closes and hold something else."""
    other = [path.name for path in paths if not is_named_after_a_field(path)]
    if other and len(other) < len(paths):
        fields = ", ".join(field for field in HEADINGS if field not in TEXTS)
        raise DataError(
            f"{listed(other)}: beside wide tables that are named after their fields, no name of a "
            f"field; name the file so ({fields}), or take it out of the source."
        )
    for path, (field, frame) in zip(paths, wide, strict=True):
        known = frame.loc[frame[field] != 0, field]  # zeros are days before a listing
        positive = float((known > 0).mean()) if len(known) else 1.0
        if field == "close" and positive < MOSTLY:
            raise DataError(
                f"{path.name} holds no closes: only {positive:.0%} of its values are positive (as "
                "of returns); take it out of the source."
            )


def _open_ended(read: Sequence[tuple[Path, Bars]]) -> list[str]:
    """Files without a last line break, where most files have one."""
    without = [path.name for path, bars in read if not bars.ended]
    return without if 2 * len(without) < len(read) else []


def _split(frame: pd.DataFrame, parts: dict[str, list[pd.DataFrame]]) -> None:
    for symbol, rows in frame.groupby("symbol", sort=False):
        parts[str(symbol)].append(rows.drop(columns="symbol"))


def _joined(wide: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """One table of the wide files, each of one field."""
    keys = ["date", "symbol"]
    by_field: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for field, frame in wide:
        by_field[field].append(frame)
    if "close" not in by_field:
        raise DataError(
            f"the tables hold {' and '.join(sorted(by_field))} by name and no closes; add them as "
            "close.csv."
        )
    if len(by_field) == 1:
        return pd.concat(by_field["close"], ignore_index=True)
    table = None
    for field in ["close", *sorted(by_field.keys() - {"close"})]:
        frame = pd.concat(by_field[field], ignore_index=True).drop_duplicates([*keys, field])
        if frame.duplicated(keys).any():
            day, symbol = frame.loc[frame.duplicated(keys), keys].iloc[0]
            raise DataError(
                f"{symbol} has two different values of {field} for {day:%Y-%m-%d} in the wide "
                "tables; keep one."
            )
        if table is None:
            table = frame
        else:
            table = table.merge(frame.drop(columns=_PLACE), "outer", keys)
    assert table is not None
    table[_PLACE] = table[_PLACE].fillna(0).astype(np.int32)
    return table


def _adjusted(frame: pd.DataFrame, files: Sequence[Path]) -> pd.DataFrame:
    """Adjusted prices and volumes, and their factor.

    Raises
    ------
    DataError
        A close without the value that adjusts it; name, day, file and line.
    """
    if "factor" in frame:
        return frame
    for field in ("adj_close", "adj_factor"):
        if field in frame:
            lacking = ((frame["close"] > 0) & frame[field].isna()).to_numpy(dtype=bool)
            if lacking.any():
                row = frame.iloc[int(lacking.argmax())]
                raise DataError(
                    f"{files[int(row['file'])].name} line {int(row['line'])}: {row['symbol']} has "
                    f"a close on {row['date']:%Y-%m-%d} and no {field} ({int(lacking.sum())} such "
                    "rows), so that it cannot be adjusted; add it, or import names without it from "
                    "files without that column."
                )
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


def _by_name(
    parts: dict[str, list[pd.DataFrame]], files: Sequence[str], counts: Counter
) -> dict[str, pd.DataFrame]:
    """Each name's rows in order of its days, one a day.

    Raises
    ------
    DataError
        Two rows of a day differ; the largest differences are shown first.
    """
    frames, differ = {}, []
    for symbol in sorted(parts):
        frame = pd.concat(parts.pop(symbol), ignore_index=True)
        counts["rows_out_of_order"] += int((frame["date"].diff() < pd.Timedelta(0)).sum())
        fields = list(frame.columns.difference(_PLACE, sort=False))
        repeated = frame.duplicated(fields)
        counts["duplicate_rows"] += int(repeated.sum())
        frame = frame[~repeated]
        if (twice := frame.duplicated("date", keep=False)).any():
            empty = twice & _is_empty(frame)
            # Of a day with nothing but empty rows, the first stays.
            empty &= frame["date"].isin(frame.loc[~empty, "date"]) | frame.duplicated("date")
            counts["empty_rows"] += int(empty.sum())
            frame = frame[~empty]
            differ += _differences(symbol, frame, files)
        frames[symbol] = frame.set_index("date").sort_index()
    if differ:
        differ.sort(key=lambda found: -found[0])
        more = f"; and {len(differ) - SHOWN} more days" if len(differ) > SHOWN else ""
        raise DataError(
            f"two different rows for one day: {'; '.join(text for _, text in differ[:SHOWN])}{more}"
            ". Keep one row a day (intraday bars are not supported)."
        )
    return frames


def _is_empty(frame: pd.DataFrame) -> pd.Series:
    """Rows without any price, and without volume."""
    prices = frame.drop(columns=["date", "factor", *_PLACE])
    if "volume" in prices:
        prices["volume"] = prices["volume"].replace(0.0, np.nan)
    return prices.isna().all(axis=1)


def _differences(symbol: str, frame: pd.DataFrame, files: Sequence[str]) -> list[tuple[float, str]]:
    """Days of a name with several rows: how far apart they are, and where they stand."""
    out = []
    for day, rows in frame[frame.duplicated("date", keep=False)].groupby("date"):
        values = rows.drop(columns=["date", *_PLACE])
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = ((values.max() - values.min()) / values.abs().max()).fillna(0.0)
        field = str(spread.idxmax())
        at = " and ".join(
            f"{rows[field].iloc[i]:.10g} ({files[int(rows['file'].iloc[i])]} line "
            f"{int(rows['line'].iloc[i])})"
            for i in (0, 1)
        )
        out.append((float(spread[field]), f"{symbol} {day:%Y-%m-%d}, {field} {at}"))
    return out


def _refuse_quoted(frames: dict[str, pd.DataFrame], files: Sequence[str]) -> None:
    """Refuse quoted prices beside a ``factor`` column, which promises adjusted ones.

    Where the factor jumps by a quarter or more (a split), an adjusted price hardly moves and a
    quoted one jumps the other way. The majority of such days over all names decides; the largest
    jump is shown.
    """
    quoted = jumps = 0
    largest, where = 0.0, ""
    for name, frame in frames.items():
        rows = frame[(frame["close"] > 0) & (frame["factor"] > 0)]
        price = np.diff(np.log(rows["close"].to_numpy()))
        factor = np.diff(np.log(rows["factor"].to_numpy()))
        jump = np.abs(factor) > np.log(1.25)
        against = jump & (np.abs(price + factor) < np.abs(price))
        jumps += int(jump.sum())
        quoted += int(against.sum())
        size = np.where(against, np.abs(factor), 0.0)
        if len(size) and size.max() > largest:
            i = int(size.argmax())
            largest, row = float(size[i]), rows.iloc[i + 1]
            where = (
                f"{name} {rows.index[i + 1]:%Y-%m-%d} ({files[int(row['file'])]} line "
                f"{int(row['line'])}): factor × {np.exp(factor[i]):.4g}, price × "
                f"{np.exp(price[i]):.4g}"
            )
    if 2 * quoted > jumps:
        raise DataError(
            f"prices look quoted, not adjusted: on {quoted} of {jumps} days on which the factor "
            f"jumps, the price jumps against it, most at {where}. A column `factor` means that "
            "prices are adjusted already (quoted = price / factor); name it `adj_factor` to have "
            "them multiplied by it."
        )
