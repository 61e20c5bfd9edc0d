"""One CSV or Parquet file as bars: a row a day and name, with the line that each came from."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import DataError
from ...files.bounds import check_csv, check_parquet
from ...markets.codes import qlib_code
from . import dates
from .cut_off import check_last, check_rows
from .numbers import MISSING, read_numbers
from .places import Place
from .provider import CODE
from .shapes import TEXTS, Column, Layout, layout_of

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".pq")
_SEPARATORS = ",;\t|"
# From pandas 3.1 every number is read to the nearest double, and asking for it is deprecated.
_EXACT = (
    {"float_precision": "round_trip"}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    else {}
)


@dataclass(frozen=True)
class Reading:
    """How tables are read where they do not say it themselves.

    ``timezone`` of the exchange, for stamps with an offset from UTC; ``date_format`` as of
    ``strftime``, for dates that are not ISO; ``keep_codes`` leaves codes of China's exchanges as
    they are written, in place of :func:`~bpqp_portfolio.markets.codes.qlib_code`.

    Raises
    ------
    ConfigError
        No such time zone.
    """

    timezone: str | None = None
    date_format: str | None = None
    keep_codes: bool = False

    def __post_init__(self) -> None:
        dates.check_zone(self.timezone)


AS_WRITTEN = Reading()


@dataclass(frozen=True)
class Bars:
    """The bars of one file: columns ``date``, ``symbol``, fields as the file has them, ``line``.

    ``layout`` is its shape, ``codes`` maps those that were rewritten, ``offsets`` says whether its
    stamps have one, and ``ended`` whether its last line has a line break.
    """

    frame: pd.DataFrame
    layout: Layout
    ignored: tuple[str, ...]
    codes: dict[str, str]
    offsets: bool
    ended: bool


def is_table(path: Path) -> bool:
    """Is the file, by its name, a table that :func:`read_file` reads?"""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def read_file(path: Path, reading: Reading) -> Bars:
    """The bars of one file, whatever its shape (see :mod:`.shapes`), prices as they are in it.

    Raises
    ------
    DataError
        The file is unreadable or cut off, lacks a column, has a bad date, number or code.
    """
    try:
        if path.name.lower().endswith((".parquet", ".pq")):
            cells, layout, place = _parquet(path)
            ended = True
        else:
            cells, layout, place, ended = _csv(path)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path.name}: {error}; save it as UTF-8.") from error
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parser errors are ValueErrors
        raise DataError(f"cannot read {path.name}: {error}") from error
    (day,) = layout.of("date")
    kept = ~_blank_lines(cells, day.position)
    cells, place = cells[kept].reset_index(drop=True), Place(path, place.lines[kept], place.unit)
    days = dates.read_days(
        cells[day.position], place, zone=reading.timezone, date_format=reading.date_format
    )
    offsets = reading.timezone is not None and dates.has_offsets(
        cells[day.position], reading.date_format
    )
    if layout.kind == "long":
        frame, ignored = _long(cells, layout, place), layout.ignored
        frame["date"] = days
        if "name" in frame:
            named = frame.pop("name")
            if all(re.fullmatch(r"[A-Za-z0-9^.=_-]{1,32}", str(one)) for one in named.unique()):
                frame["symbol"] = named
            else:  # companies' names
                ignored = (*ignored, layout.of("name")[0].heading)
    else:
        frame, ignored = _melted(cells, layout, days, place), layout.ignored
    frame["line"] = frame["line"].astype(np.int32)
    at = Place(path, frame["line"].to_numpy(), place.unit)
    frame["symbol"], codes = _symbols(frame, at, reading)
    return Bars(frame, layout, ignored, codes, offsets, ended)


def _blank_lines(cells: pd.DataFrame, day: int) -> np.ndarray:
    """Boolean (rows,): lines without anything, such as the last of many files."""
    undated = np.array(cells[day].isna(), dtype=bool)
    if cells[day].dtype.kind not in "Mm":
        text = cells[day].astype("string").fillna("").str.strip()
        undated |= np.array(text == "", dtype=bool)
    rows = np.flatnonzero(undated)
    some = cells.iloc[rows].map(lambda cell: not (pd.isna(cell) or str(cell).strip() == ""))
    undated[rows[some.to_numpy(dtype=bool).any(axis=1)]] = False
    return undated


def _csv(path: Path) -> tuple[pd.DataFrame, Layout, Place, bool]:
    """Cells by position, numbers read; the layout, the place, and whether the file is ended."""
    check_csv(path, f"cannot read {path.name}:")
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.decompress(content)
    content = content.removeprefix(b"\xef\xbb\xbf")
    lines = content[: 2**22].decode("utf-8", errors="replace").splitlines()[:3]
    if not lines:
        raise DataError(f"cannot read {path.name}: it is empty.")
    separator = max(_SEPARATORS, key=lines[0].count)
    head = list(csv.reader(lines, delimiter=separator))
    layout = layout_of(head, path)
    check_rows(content, separator, layout.rows, path)
    wide = max(layout.columns, key=lambda column: column.position)
    if wide.position == len(head[0]) - 1 and wide.field != "date":
        check_last(content, separator, wide.field, path)
    texts = {column.position for column in layout.columns if column.field in TEXTS}
    options = {
        "header": None,
        "skiprows": layout.rows,
        "names": range(len(head[0])),
        "usecols": [column.position for column in layout.columns],
        "sep": separator,
        "keep_default_na": False,
        "skip_blank_lines": False,
        "encoding": "utf-8-sig",
        "compression": "infer",
    }
    cells = pd.read_csv(
        path,
        dtype=dict.fromkeys(texts, str),
        # A symbol may be "NA" or "NULL".
        na_values={c.position: list(MISSING) for c in layout.columns if c.position not in texts},
        low_memory=False,
        **_EXACT,
        **options,
    )
    place = Place(path, np.arange(len(cells)) + layout.rows + 1)
    numbers = [column for column in layout.columns if column.position not in texts]
    if not all(_is_numeric(cells[column.position]) for column in numbers):
        written = pd.read_csv(path, dtype=str, na_filter=False, **options)
        cells = cells.astype(object)
        cells[[c.position for c in numbers]] = _numbers(written, numbers, place, separator)
    return cells, layout, place, content.endswith((b"\n", b"\r"))


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _numbers(
    cells: pd.DataFrame, columns: Sequence[Column], place: Place, separator: str
) -> pd.DataFrame:
    headings = {column.position: column.heading for column in columns}
    return read_numbers(cells[list(headings)].fillna(""), headings, place, separator)


def _parquet(path: Path) -> tuple[pd.DataFrame, Layout, Place]:
    check_parquet(path)
    cells = pd.read_parquet(path)
    if isinstance(cells.index, pd.DatetimeIndex):
        cells = cells.rename_axis("date")
    if any(name is not None for name in cells.index.names):
        cells = cells.reset_index()
    if cells.columns.nlevels == 2:
        head = [list(cells.columns.get_level_values(i)) for i in (0, 1)]
        head = [["" if j == 0 else cell for j, cell in enumerate(row)] for row in head]
    else:
        head = [list(cells.columns)]
    layout = layout_of(head, path)
    cells.columns = range(cells.shape[1])
    place = Place(path, np.arange(1, len(cells) + 1), "row")
    for column in layout.columns:
        values = cells[column.position]
        if column.field in ("symbol", "name"):
            _refuse_lost_zeros(values, column, place)
        elif column.field != "date" and not _is_numeric(values):
            cells[column.position] = _numbers(cells, [column], place, ",")[column.position]
    return cells[[column.position for column in layout.columns]], layout, place


def _refuse_lost_zeros(values: pd.Series, column: Column, place: Place) -> None:
    if pd.api.types.is_numeric_dtype(values) and values.astype(str).str.len().nunique() > 1:
        raise DataError(
            f"{place.name}, column {column.heading!r}: the codes are numbers of different lengths "
            f"({values.min()} and {values.max()}), so that leading zeros are lost; store them as "
            "text, such as '000001'."
        )


def _long(cells: pd.DataFrame, layout: Layout, place: Place) -> pd.DataFrame:
    frame = cells[[column.position for column in layout.columns]]
    frame.columns = [column.field for column in layout.columns]
    frame = frame.copy()
    for column in layout.columns:
        if column.field not in TEXTS:
            frame[column.field] = frame[column.field].astype(np.float64)
    frame["line"] = place.lines
    return frame


def _melted(cells: pd.DataFrame, layout: Layout, days: pd.Series, place: Place) -> pd.DataFrame:
    """Rows by day and name of a table with columns by name; those without a value are left out."""
    by_symbol: dict[str, dict[str, int]] = {}
    for column in layout.columns:
        if column.symbol is not None:
            by_symbol.setdefault(column.symbol, {})[column.field] = column.position
    parts = []
    for symbol, positions in by_symbol.items():
        part = cells[list(positions.values())].astype(np.float64)
        part.columns = list(positions)
        part["line"] = place.lines
        part.insert(0, "date", days)
        part.insert(1, "symbol", symbol)
        parts.append(part[part[list(positions)].notna().any(axis=1)])
    return pd.concat(parts, ignore_index=True)


def _symbols(frame: pd.DataFrame, at: Place, reading: Reading) -> tuple[pd.Series, dict[str, str]]:
    """Upper-case codes, China's as Qlib writes them; and those that were rewritten."""
    if "symbol" in frame:
        given = frame["symbol"]
    else:
        stem = re.sub(r"\.(csv|csv\.gz|parquet|pq)$", "", at.name, flags=re.IGNORECASE)
        given = pd.Series(stem, index=frame.index)
    codes: dict[str, str] = {}
    for cell in given.unique():
        code = "" if pd.isna(cell) else str(cell).strip()
        if not re.fullmatch(CODE, code):
            i = int(
                (given.isna() if pd.isna(cell) else given == cell).to_numpy(dtype=bool).argmax()
            )
            raise DataError(
                f"{at.at(i)}: {code[:40]!r} is no symbol; use letters, digits and "
                "- _ ^ . (not first), without spaces, slashes or control characters."
            )
        codes[cell] = code.upper() if reading.keep_codes else qlib_code(code.upper())
    changed = {str(code): to for code, to in codes.items() if str(code).strip().upper() != to}
    return given.map(codes).astype(object), changed
