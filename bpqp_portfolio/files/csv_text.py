"""CSV files from outside as text: checked before a parser reads them, with errors by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from ..errors import DataError
from .bounds import check_csv, listed

NOT_UTF8 = "it is no text in UTF-8; save it as CSV UTF-8."


def read_text(path: Path, what: str) -> pd.DataFrame:
    """All cells of a CSV file as text, an empty one as ``""``; its first line names the columns.

    ``what`` the file holds, such as ``sectors``, begins the message of an error.

    Raises
    ------
    DataError
        The file cannot be read, or is out of the bounds of :func:`~.bounds.check_csv`.
    """
    where = f"cannot read the {what} {path}:"
    try:
        check_csv(path, where)
        # A code may be "NA", which pandas would take for a missing value.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{where} {NOT_UTF8}") from error
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{where} {error}") from error
    return table.fillna("")


def read_lines(path: Path, what: str, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The place and the cells of each line that is not empty, below a header of ``columns``.

    A place reads ``holdings.csv line 3``; a line has as many cells as there are columns.

    Raises
    ------
    DataError
        As :func:`read_text`; other columns, or a line of another length.
    """
    try:
        check_csv(path, f"cannot read the {what} {path}:")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [cell.strip() for cell in next(rows, [])]
            if header != list(columns):
                raise DataError(
                    f"{path} line 1: expected the columns {','.join(columns)}, "
                    f"got {listed(header) or 'nothing'}."
                )
            for row in filter(None, rows):
                where = f"{path} line {rows.line_num}"
                if len(row) != len(columns):
                    raise DataError(
                        f"{where}: expected {len(columns)} values, got {len(row)}: {listed(row)}."
                    )
                yield where, row
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read the {what} {path}: {NOT_UTF8}") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read the {what} {path}: {error}") from error
