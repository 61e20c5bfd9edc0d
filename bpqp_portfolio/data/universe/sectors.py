"""Sectors of names by day: the table a user supplies, a CSV file with dates where they change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...errors import DataError
from ...files.bounds import listed
from ...files.csv_text import read_text
from ...files.dates import FORM, iso_day

COLUMNS = {"instrument": "code of a name", "sector": "title of its group"}
DATES = {
    "from": "first day on which that holds, YYYY-MM-DD; empty for the beginning",
    "to": "last day on which that holds, YYYY-MM-DD; empty for the end",
}
"""Columns of a table of sectors; the dates may be left out."""
NONE = -1
"""Code of a name that has no sector on a day."""


@dataclass(frozen=True)
class Sectors:
    """``codes`` (T, N) int16, positions in ``titles`` or :data:`NONE`; ``titles``; ``source``."""

    codes: np.ndarray
    titles: tuple[str, ...]
    source: str

    def of_day(self, day: int) -> np.ndarray:
        """Title of each name on a day, (N,) str; empty where a name has none."""
        return np.array([*self.titles, ""])[self.codes[day]]


def read_sectors(path: Path | str, dates: pd.DatetimeIndex, names: Iterable[str]) -> Sectors:
    """Read a CSV file with the columns ``instrument,sector`` and, where wanted, ``from``, ``to``.

    Dates are YYYY-MM-DD, both included; an empty one is open. Lines of names that are not in
    ``names`` are left out: one table serves every universe.

    Raises
    ------
    DataError
        The file cannot be read, a column is missing or unknown, a cell is empty, a date is no
        date, or two lines of a name overlap; the message names the line.
    """
    path = Path(path).expanduser()
    table = read_text(path, "sectors")
    wrong = [c for c in table if c not in COLUMNS | DATES]
    missing = [c for c in COLUMNS if c not in table]
    if wrong or missing:
        raise DataError(
            f"{path} line 1: expected the columns instrument,sector and, where sectors change, "
            f"from,to; got {listed(table.columns)}."
        )
    names = list(names)
    column = {name.upper(): i for i, name in enumerate(names)}
    titles = tuple(sorted(set(table["sector"].str.strip()) - {""}))
    position = {title: i for i, title in enumerate(titles)}
    codes = np.full((len(dates), len(names)), NONE, dtype=np.int16)
    for line, row in enumerate(table.to_dict("records"), 2):
        name, title = row["instrument"].strip().upper(), row["sector"].strip()
        if not name or not title:
            empty = "sector" if name else "instrument"
            raise DataError(f"{path} line {line}: the {empty} is empty.")
        first = dates.searchsorted(_date(row, "from", path, line, dates[0]), side="left")
        last = dates.searchsorted(_date(row, "to", path, line, dates[-1]), side="right")
        if name in column and last > first:
            part = codes[first:last, column[name]]
            if (part != NONE).any():
                day = dates[first + int(np.flatnonzero(part != NONE)[0])]
                raise DataError(
                    f"{path} line {line}: {name} has another sector on {day:%Y-%m-%d} already; "
                    "end that line before this one begins."
                )
            codes[first:last, column[name]] = position[title]
    return Sectors(codes, titles, f"the table {path.name}")


def _date(
    row: dict[str, str], column: str, path: Path, line: int, default: pd.Timestamp
) -> pd.Timestamp:
    text = row.get(column, "").strip()
    if not text:
        return default
    if (day := iso_day(text)) is None:
        raise DataError(f"{path} line {line}: {column} {text!r} is no date of the form {FORM}.")
    return day
