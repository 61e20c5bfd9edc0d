"""Exclusions: the daily moves that are invalid, name by name and day by day, as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...errors import DataError
from ...files.atomic import replacing_file
from ...files.csv_text import read_lines
from ...files.dates import FORM, iso_day

COLUMNS = {
    "instrument": "code of a name",
    "date": "day into which the return is unknown, YYYY-MM-DD",
    "reason": "why, for the reader",
}
"""Columns of a file of exclusions, in this order."""


class Exclusion(NamedTuple):
    """On ``date`` the close-to-close return of ``instrument`` is unknown, for ``reason``."""

    instrument: str
    date: pd.Timestamp
    reason: str


@dataclass(frozen=True)
class Exclusions:
    """A set of invalid moves, in order of date and name.

    The prices of the day may be right each on its own; it is the return from the previous close
    to this one that must not be used.
    """

    entries: tuple[Exclusion, ...] = ()

    def __post_init__(self) -> None:
        unique = {(e.date, e.instrument): e for e in reversed(self.entries)}
        object.__setattr__(self, "entries", tuple(unique[key] for key in sorted(unique)))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Exclusion]:
        return iter(self.entries)

    def mask(self, dates: pd.DatetimeIndex, names: Iterable[str]) -> np.ndarray:
        """Boolean (T, n): is the name's return into the day excluded?

        >>> day = pd.Timestamp("2020-03-02")
        >>> Exclusions((Exclusion("AAA", day, "wrong factor"),)).mask([day], ["AAA", "BBB"])
        array([[ True, False]])

        Entries outside ``dates`` and ``names`` are left out: one list serves every universe.
        """
        dates = pd.DatetimeIndex(dates)
        columns = pd.Index([name.upper() for name in names], dtype=object)
        mask = np.zeros((len(dates), len(columns)), dtype=bool)
        row = dates.get_indexer(pd.DatetimeIndex([e.date for e in self.entries]))
        column = columns.get_indexer(pd.Index([e.instrument for e in self.entries], dtype=object))
        inside = (row >= 0) & (column >= 0)
        mask[row[inside], column[inside]] = True
        return mask


def read_exclusions(path: Path) -> Exclusions:
    """Read a CSV file with the columns ``instrument,date,reason``; dates are YYYY-MM-DD.

    Raises
    ------
    DataError
        The file cannot be read, a column is missing or unknown, or a line has no instrument or
        no valid date; the message names the line.
    """
    lines = read_lines(Path(path).expanduser(), "exclusions", list(COLUMNS))
    return Exclusions(tuple(_entry(row, where) for where, row in lines))


def write_exclusions(path: Path, exclusions: Exclusions) -> None:
    """Write ``exclusions`` as :func:`read_exclusions` reads them, in one piece or not at all."""
    with replacing_file(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((e.instrument, f"{e.date:%Y-%m-%d}", e.reason) for e in exclusions)


def _entry(row: list[str], where: str) -> Exclusion:
    instrument, date, reason = (value.strip() for value in row)
    if not instrument:
        raise DataError(f"{where}: the instrument is empty.")
    if not date:
        raise DataError(f"{where}: the date is empty.")
    if (day := iso_day(date)) is None:
        raise DataError(f"{where}: {date!r} is no date of the form {FORM}.")
    return Exclusion(instrument.upper(), day, reason)
