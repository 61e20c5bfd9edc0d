"""Holdings from a CSV file, and the quoted prices that they are valued at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import check_number, nearest
from ..data.provider.provider import Provider
from ..errors import DataError
from ..files.csv_text import read_lines

COLUMNS = {
    "instrument": "code of a name, as in the provider; once each",
    "shares": "[shares] number held, from 0 on; fractions are taken",
}
"""Columns of a file of holdings, in this order."""


def read_holdings(path: Path, provider: Provider, benchmark: str | None = None) -> dict[str, float]:
    """Shares by instrument from a CSV file with the columns ``instrument,shares``.

    ``benchmark`` is the code of the run's index, None where it has none.

    Raises
    ------
    DataError
        The file cannot be read, its columns are others, or a line names no instrument of the
        provider, the index, one that came before, or a number of shares that is negative or no
        number.
    """
    out: dict[str, float] = {}
    known = {folder.removeprefix("_qlib_").upper() for folder in provider.folders}
    for where, row in read_lines(Path(path).expanduser(), "holdings", list(COLUMNS)):
        name, shares = _holding(row, where, known)
        if name in out:
            raise DataError(f"{where}: {name} comes twice.")
        if benchmark is not None and name == benchmark.upper():
            raise DataError(
                f"{where}: {name} is the index that the run is compared with, which cannot be held "
                "or sold; take the line out, or correct its code."
            )
        out[name] = shares
    return out


def _holding(row: list[str], where: str, known: set[str]) -> tuple[str, float]:
    name = row[0].strip().upper()
    if name not in known:
        few = nearest(name, known) if len(known) < 50 else _close(name, known)
        raise DataError(f"{where}: {row[0].strip()!r} is no instrument of the provider.{few}")
    try:
        if "_" in row[1]:  # digits that Python takes for a number
            raise ValueError
        shares = float(row[1])
    except ValueError as error:
        raise DataError(f"{where}: {row[1]!r} is no number of shares.") from error
    if not (np.isfinite(shares) and shares >= 0):
        raise DataError(f"{where}: {row[1].strip()} shares of {name}; expected a number from 0 on.")
    return name, shares


def _close(name: str, known: set[str]) -> str:
    hint = nearest(name, known)
    return hint if hint.startswith(" Did") else " A code looks like " + min(known) + "."


def check_cash(cash: Any) -> float:
    """``cash`` as a float; ConfigError unless it is a number from 0 on."""
    check_number(cash, "cash", low=0)
    return float(cash)


def quotes(provider: Provider, names: list[str], day: int) -> pd.DataFrame:
    """Quoted price at the last close up to position ``day``, and whether it is of that day.

    Indexed by name: ``price`` (adjusted close over factor, 1 where there is no factor; NaN without
    any close), ``traded``.
    """
    price, traded = np.full(len(names), np.nan), np.zeros(len(names), dtype=bool)
    for i, name in enumerate(names):
        if not provider.has(name, "close"):
            continue
        close = provider.series(name, "close")[: day + 1].astype(np.float64)
        seen = np.flatnonzero(np.isfinite(close))
        if not len(seen):
            continue
        factor = 1.0
        if provider.has(name, "factor"):
            factor = float(provider.series(name, "factor")[seen[-1]])
        factor = factor if np.isfinite(factor) and factor > 0 else 1.0
        price[i], traded[i] = close[seen[-1]] / factor, seen[-1] == day
    return pd.DataFrame({"price": price, "traded": traded}, index=names)
