"""Holdings from a CSV file, and the quoted prices that they are valued at."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import check_number, nearest
from ..data.provider.provider import Provider
from ..errors import DataError
from ..files.bounds import check_csv, listed

COLUMNS = ("instrument", "shares")


def read_holdings(path: Path, provider: Provider) -> dict[str, float]:
    """Shares by instrument from a CSV file with the columns ``instrument,shares``.

    Raises
    ------
    DataError
        The file cannot be read, its columns are others, or a line names no instrument of the
        provider, one that came before, or a number of shares that is negative or no number.
    """
    path = Path(path).expanduser()
    out: dict[str, float] = {}
    known = {folder.removeprefix("_qlib_").upper() for folder in provider.folders}
    try:
        check_csv(path, f"cannot read the holdings {path}:")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = tuple(cell.strip() for cell in next(rows, []))
            if header != COLUMNS:
                raise DataError(
                    f"{path} line 1: expected the columns {','.join(COLUMNS)}, "
                    f"got {listed(header) or 'nothing'}."
                )
            for row in rows:
                if row:
                    name, shares = _holding(row, f"{path} line {rows.line_num}", known)
                    if name in out:
                        raise DataError(f"{path} line {rows.line_num}: {name} comes twice.")
                    out[name] = shares
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the holdings {path}: {error}") from error
    return out


def _holding(row: list[str], where: str, known: set[str]) -> tuple[str, float]:
    if len(row) != len(COLUMNS):
        raise DataError(f"{where}: expected {len(COLUMNS)} values, got {len(row)}: {listed(row)}.")
    name = row[0].strip().upper()
    if name not in known:
        few = nearest(name, known) if len(known) < 50 else _close(name, known)
        raise DataError(f"{where}: {row[0].strip()!r} is no instrument of the provider.{few}")
    try:
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
