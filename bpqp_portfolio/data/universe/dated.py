"""Tables of numbers by day and name from CSV files, whose last on or before a day counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import DataError
from ...files.bounds import listed
from ...files.csv_text import read_text
from ...files.dates import FORM, iso_days

KEYS = {
    "date": "day from which the line counts, until the table's next date, YYYY-MM-DD",
    "instrument": "code of a name; once a date",
}
"""Columns of every table by day and name, before those of its numbers."""


@dataclass(frozen=True)
class DatedTable:
    """``values`` (D, N, f) on the table's own ``dates`` (D,), NaN where it has no line of a name;
    ``columns`` f titles."""

    dates: pd.DatetimeIndex
    columns: tuple[str, ...]
    values: np.ndarray

    def at(self, days: pd.DatetimeIndex) -> np.ndarray:
        """Position (T,) of the last date on or before each day, -1 before the first."""
        return np.asarray(self.dates.searchsorted(days, side="right")) - 1


def read_dated(
    path: Path | str,
    what: str,
    names: Iterable[str],
    columns: Sequence[str] | None = None,
    *,
    weights: bool = False,
) -> DatedTable:
    """Read a CSV file with the columns ``date,instrument`` and ``columns``, or any others.

    Dates are YYYY-MM-DD. An empty cell is no value, and where the numbers are
    ``weights`` an error, as a negative one is. Lines of names that are not in ``names`` are
    checked and left out: one table serves every universe.

    Raises
    ------
    DataError
        The file cannot be read, a column is missing or unknown, a date or a number is none, a
        number is infinite, or a name occurs twice on a day; the message names the line.
    """
    path = Path(path).expanduser()
    where = f"cannot read the {what} {path}:"
    table = read_text(path, what)
    titles = list(columns or [c for c in table if c not in KEYS])
    if sorted(table.columns) != sorted([*KEYS, *titles]) or not titles:
        wanted = ",".join([*KEYS, *(columns or ["one column or more of numbers"])])
        raise DataError(f"{path}: expected the columns {wanted}, got {listed(table.columns)}.")
    if table.empty:
        raise DataError(f"{where} it has no line but the first.")
    table = table.apply(lambda column: column.str.strip())
    dates = iso_days(table["date"])
    _refuse(where, table, "date", dates.isna(), f"is no date of the form {FORM}")
    _refuse(where, table, "instrument", table["instrument"] == "", "is no name")
    numbers = np.empty((len(table), len(titles)))
    for j, title in enumerate(titles):
        text = table[title].replace("", "nan")
        found = pd.to_numeric(text, errors="coerce")
        bad = (found.isna() & (text.str.lower() != "nan")) | np.isinf(found)
        _refuse(where, table, title, bad, "is no finite number")
        if weights:
            _refuse(where, table, title, ~(found >= 0), "is negative or not finite")
        numbers[:, j] = found
    codes = table["instrument"].str.upper()
    twice = pd.DataFrame({"date": dates, "instrument": codes}).duplicated().to_numpy()
    if twice.any():
        line = int(np.flatnonzero(twice)[0])
        raise DataError(
            f"{path} line {line + 2}: {codes[line]} occurs twice on {dates[line]:%Y-%m-%d}."
        )
    universe = pd.Index(list(names))
    days, row = np.unique(dates.to_numpy(), return_inverse=True)
    column = universe.get_indexer(codes)
    values = np.full((len(days), len(universe), len(titles)), np.nan)
    keep = column >= 0
    values[row[keep], column[keep]] = numbers[keep]
    return DatedTable(pd.DatetimeIndex(days), tuple(titles), values)


def _refuse(where: str, table: pd.DataFrame, column: str, bad: pd.Series, why: str) -> None:
    if bad.any():
        line = int(np.flatnonzero(bad)[0])
        raise DataError(f"{where} line {line + 2}: {column} {table[column][line]!r} {why}.")
