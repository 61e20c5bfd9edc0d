"""Numbers as people write them: thousands separators, decimal commas and signs of a currency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ...errors import DataError
from .places import Place

MISSING = (
    "", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "-", "--", ".",
)  # fmt: skip

_CURRENCY = r"[$€£¥￥₹₩元]|USD|EUR|GBP|CNY|RMB|HKD|JPY"
_SPACES = r"[\s'’_  ]"
# Cells that tell which of point and comma is the decimal mark; `1,234` and `1.234` tell nothing.
_POINT = (
    r"[-+]?(?:\d{1,3}(?:,\d{3})+\.\d*|\d{1,3}(?:,\d{3}){2,}"
    r"|\d*\.\d+[eE][-+]?\d+|(?!\d{1,3}\.\d{3}$)\d*\.\d+|0\.\d+)"
)
_SWAP = str.maketrans(".,", ",.")
_NUMBER = r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf"


def read_numbers(
    cells: pd.DataFrame, headings: Mapping[int, str], place: Place, separator: str = ","
) -> pd.DataFrame:
    """Numbers, float64, of ``cells`` (rows, columns) of text; NaN where one is missing.

    All cells of a file share one decimal mark: the one that its cells show, of ``5,006.29``,
    ``5.006,29``, ``50,1`` and the like. Where none shows it, a comma is decimal if ``separator``,
    which stands between cells, is a semicolon, or is not a comma and no cell has a point.

    Raises
    ------
    DataError
        A cell is no number, the cells show both decimal marks, or neither of the two that they
        have need be it; file, line, column and value.
    """
    text = cells.apply(_stripped)
    comma, point = _first(text, _POINT, swap=True), _first(text, _POINT)
    if comma is not None and point is not None:
        seen = _both(point, comma, cells, headings, place)
        raise DataError(
            f"{place.name}: decimal point and decimal comma in one file: {seen}; write all numbers "
            "in one way."
        )
    swap = comma is not None
    if comma is None and point is None:
        swap = _is_decimal_comma(text, cells, headings, place, separator)
    return pd.DataFrame(
        {c: _converted(text[c], cells[c], swap, headings[c], place) for c in cells.columns},
        index=cells.index,
    )


def _is_decimal_comma(
    text: pd.DataFrame,
    cells: pd.DataFrame,
    headings: Mapping[int, str],
    place: Place,
    separator: str,
) -> bool:
    """The reading of ``1,234`` and ``1.234`` where no cell tells which mark is decimal."""
    comma, point = (_first(text, rf"[-+]?\d{{1,3}}{mark}\d{{3}}") for mark in (",", r"\."))
    if separator == ";":
        return comma is not None
    if comma is not None and point is not None:
        seen = _both(point, comma, cells, headings, place)
        raise DataError(
            f"{place.name}: {seen}: either mark may be the decimal one, since each has three "
            "digits after it throughout; write numbers without thousands separators."
        )
    return separator != "," and point is None


def _both(
    point: tuple[int, int],
    comma: tuple[int, int],
    cells: pd.DataFrame,
    headings: Mapping[int, str],
    place: Place,
) -> str:
    """The two cells with their places, for a message."""
    return " and ".join(
        f"{cells.iat[i, j]!r} ({place.at(i)}, column {headings[cells.columns[j]]!r})"
        for i, j in (point, comma)
    )


def _stripped(column: pd.Series) -> pd.Series:
    """Cells without spaces, signs of a currency and of percent; missing ones are empty."""
    text = column.astype("string").fillna("").str.replace(_SPACES, "", regex=True)
    text = text.where(~text.isin(MISSING), "")
    text = text.str.replace(rf"^([-+]?)(?:{_CURRENCY})([-+]?)", r"\1\2", regex=True)
    return text.str.replace(rf"(?:{_CURRENCY}|%)$", "", regex=True)


def _first(text: pd.DataFrame, pattern: str, *, swap: bool = False) -> tuple[int, int] | None:
    """Row and column of the first cell that matches, with point and comma swapped on request."""
    for j, name in enumerate(text.columns):
        column = text[name].str.translate(_SWAP) if swap else text[name]
        found = column.str.fullmatch(pattern).to_numpy(dtype=bool)
        if found.any():
            return int(found.argmax()), j
    return None


def _converted(
    text: pd.Series, cells: pd.Series, swap: bool, heading: str, place: Place
) -> np.ndarray:
    text = text.str.translate(_SWAP) if swap else text
    known = (text != "").to_numpy(dtype=bool)
    wrong = known & ~text.str.fullmatch(_NUMBER, case=False).to_numpy(dtype=bool)
    if wrong.any():
        i, count = int(wrong.argmax()), int(wrong.sum())
        more = f" ({count - 1} more such cells in it)" if count > 1 else ""
        raise DataError(
            f"{place.at(i)}, column {heading!r}: {cells.iloc[i]!r} is no number{more}; leave the "
            "cell empty where there is none."
        )
    out = np.full(len(text), np.nan)
    out[known] = [float(cell) for cell in text[known].str.replace(",", "")]
    return out
