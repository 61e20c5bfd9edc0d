"""The shapes of a table of daily bars: which column of which file is which field of which name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...files.bounds import listed

# Headings, lower case with underscores, by what they mean here.
HEADINGS = {
    "date": ("date", "datetime", "trade_date", "tradedate", "timestamp", "observation_date"),
    "symbol": ("symbol", "instrument", "ticker", "code", "ts_code", "stock_code"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close", "close/last"),
    "volume": ("volume", "vol"),
    "vwap": ("vwap",),
    "change": ("change",),
    "factor": ("factor",),
    "adj_factor": ("adj_factor",),
    "adj_close": ("adj_close", "adjclose", "adjusted_close"),
}
TEXTS = ("date", "symbol", "name")
ADJUSTMENTS = ("factor", "adj_factor", "adj_close")
_MEANING = {heading: name for name, headings in HEADINGS.items() for heading in headings}
_NO_HEADING = ("", "index", "unnamed:_0")
# Words that head a column of one name's prices, and are no name of a wide table.
_NO_SYMBOLS = {
    "price", "last", "settle", "value", "nav", "px_last", "return", "returns", "amount", "turnover",
    "pct_chg", "pctchg", "prev_close", "preclose", "pre_close", "bid", "ask", "mid",
    "adj_open", "adj_high", "adj_low",
}  # fmt: skip
# Words of tables of something else: of a file's name, or of columns beside which none is a name.
_NO_PRICES = {
    "return", "returns", "ret", "rets", "volumes", "market_cap", "marketcap", "mktcap", "mcap",
    "turnover", "turnovers", "amount", "amounts", "weights", "dividend", "dividends",
    "fundamentals", "eps", "pe", "pb", "ps", "roe", "roa", "revenue", "earnings", "yield", "beta",
}  # fmt: skip
_SYMBOL = r"[^\s/\\.][^\s/\\]{0,31}"
# A cell of a bar, and no name of a table with two rows of headings: a date or a number. Six digits
# are a code of China's exchanges.
_OF_A_BAR = r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*|(?!\d{6}$)[-+]?[\d.,]*\d[\d.,]*(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Column:
    """One column of a file: its position, its heading, its field, and the name it belongs to."""

    position: int
    heading: str
    field: str
    symbol: str | None = None


@dataclass(frozen=True)
class Layout:
    """What a file's head says: ``rows`` of it, the columns that are read and those left out.

    ``kind``: ``"long"`` (one bar a row), ``"pairs"`` (two rows of headings, of fields and of names,
    as yfinance writes them) or ``"wide"`` (dates × names of one field).
    """

    kind: str
    rows: int
    columns: tuple[Column, ...]
    ignored: tuple[str, ...]

    def of(self, field: str) -> list[Column]:
        """The columns of ``field``."""
        return [column for column in self.columns if column.field == field]

    @property
    def may_be_lots(self) -> bool:
        """Has it ``vol`` and ``amount`` as Tushare, whose volumes are in lots of 100 shares?"""
        volumes = {_plain(column.heading) for column in self.of("volume")}
        return "vol" in volumes and "amount" in map(_plain, self.ignored)


def meaning(heading: object) -> str | None:
    """The field that a heading stands for, None for one that is not known.

    >>> meaning(" Adj Close"), meaning("<VOL>"), meaning("P/E")
    ('adj_close', 'volume', None)
    """
    return _MEANING.get(_plain(heading))


def _plain(heading: object) -> str:
    return re.sub(r"[\s-]+", "_", str(heading).strip().strip("<>").lower())


def layout_of(head: Sequence[Sequence[object]], path: Path) -> Layout:
    """The layout of the file ``path`` from its first rows, ``head``.

    Raises
    ------
    DataError
        No column for the date or the close, two for one field, or several adjustments.
    """
    if not head or not any(str(cell).strip() for cell in head[0]):
        raise DataError(f"cannot read {path.name}: its first line is empty; begin with headings.")
    return _pairs(head, path) or _long(head[0], path) or _wide(head[0], path)


def _pairs(head: Sequence[Sequence[object]], path: Path) -> Layout | None:
    """Two rows of headings: one of fields, the other of names, in either order."""
    if len(head) < 2 or len(head[0]) != len(head[1]) or len(head[0]) < 2:
        return None
    if re.search(r"\d", f"{head[0][0]}{head[1][0]}"):  # a date: the second row is a bar
        return None
    rows = [[str(cell).strip() for cell in row[1:]] for row in head[:2]]
    means = [[meaning(cell) for cell in row] for row in rows]
    order = next((i for i in (0, 1) if {"close", "adj_close"} & set(means[i])), None)
    if order is None or not all(re.fullmatch(_SYMBOL, cell) for cell in rows[1 - order]):
        return None
    if "date" in means[order] or any(re.fullmatch(_OF_A_BAR, cell) for cell in rows[1]):
        return None  # the second row is a bar, whose first cell is the symbol
    columns, ignored = [Column(0, str(head[0][0]), "date")], []
    for i, (field, symbol) in enumerate(zip(means[order], rows[1 - order], strict=True), start=1):
        heading = f"{rows[0][i - 1]}, {rows[1][i - 1]}"
        if field is None or field in TEXTS:
            ignored.append(rows[order][i - 1])
        else:
            columns.append(Column(i, heading, field, symbol))
    for name in dict.fromkeys(column.symbol for column in columns[1:]):
        fields = [column.field for column in columns if column.symbol == name]
        _check_fields(fields, ("close",), f"{path.name}: {name}", row=[*dict.fromkeys(fields)])
    third = head[2] if len(head) > 2 else []
    named = bool(third) and not any(str(cell).strip() for cell in third[1:])
    return Layout("pairs", 2 + named, tuple(columns), tuple(dict.fromkeys(ignored)))


def _long(row: Sequence[object], path: Path) -> Layout | None:
    """One row of headings, with a date and a close; None where it may be a wide table."""
    means = [meaning(cell) for cell in row]
    if "symbol" not in means:
        # A column "name" holds codes or companies' names, as its cells will tell.
        means = ["name" if _plain(c) == "name" else m for c, m in zip(row, means, strict=True)]
    if "date" not in means and "close" in means and str(row[0]).strip() == "":
        means[0] = "date"
    fields = [field for field in means if field is not None]
    if "close" not in fields and _is_wide(row, means, _field_of(path)):
        return None
    _check_fields(fields, ("date", "close"), path.name, row)
    columns = [
        Column(i, str(cell), field)
        for i, (cell, field) in enumerate(zip(row, means, strict=True))
        if field
    ]
    ignored = [str(c) for c, m in zip(row, means, strict=True) if m is None and str(c).strip()]
    return Layout("long", 1, tuple(columns), tuple(ignored))


def _check_fields(
    fields: Sequence[str], needed: Sequence[str], where: str, row: Sequence[object]
) -> None:
    for field in dict.fromkeys(fields):
        if list(fields).count(field) > 1:
            raise DataError(f"{where} has two columns for {field!r}; remove one.")
    for field in needed:
        if field not in fields:
            raise DataError(
                f"{where} has no column for {field!r} (its columns: {listed(row)}); name one of "
                f"them {HEADINGS[field][0]!r}."
            )
    several = [field for field in fields if field in ADJUSTMENTS]
    if len(several) > 1:
        raise DataError(f"{where} has {' and '.join(several)}; keep one of them.")


def is_named_after_a_field(path: Path) -> bool:
    """Does a file's name say its field (``volume.csv``), or closes in other words?"""
    return _field_of(path) is not None or _stem(path) in ("closes", "price", "prices")


def _stem(path: Path) -> str:
    return re.sub(r"\..*$", "", path.name).lower()


def _field_of(path: Path) -> str | None:
    """The field that a file's name says, as ``volume.csv`` does."""
    field = meaning(re.sub(r"\..*$", "", path.name))
    return None if field in TEXTS else field


def _is_wide(row: Sequence[object], means: Sequence[str | None], stated: str | None) -> bool:
    """Dates, then names: no heading of a field but those that are names in capitals (LOW, OPEN).

    Such a name needs the company of others, or a file that is named after its field, ``stated``.
    """
    if means[0] != "date" and _plain(row[0]) not in _NO_HEADING:
        return False
    rest = [str(cell).strip() for cell in row[1:] if str(cell).strip()]
    known = [str(c).strip() for c, m in zip(row[1:], means[1:], strict=True) if m is not None]
    if not rest or any(_plain(cell) in _NO_SYMBOLS for cell in rest):
        return False
    measures = [cell for cell in rest if _plain(cell) in _NO_PRICES]
    lower = any(cell != cell.upper() for cell in measures)
    if stated is None and (lower or len(measures) == len(rest)):
        return False
    alone = [cell for cell in rest if cell not in known]
    capitals = all(cell == cell.upper() for cell in rest)
    return not known or (capitals and (stated is not None or (len(alone) >= 5 and len(known) <= 2)))


def _wide(row: Sequence[object], path: Path) -> Layout:
    """Dates × names of closes, or of the field that the file's name says (``volume.csv``)."""
    field = _field_of(path) or "close"
    stem = _stem(path)
    if field == "close" and (stem in _NO_PRICES or re.search("volume|market_?cap", stem)):
        raise DataError(
            f"{path.name}: by its name this table of dates × names holds no closes; "
            "take it out of the source, or name it close.csv if it does."
        )
    columns = [Column(0, str(row[0]), "date")]
    names: dict[str, int] = {}
    for i, cell in enumerate(row[1:], start=1):
        symbol = str(cell).strip()
        if symbol in names:
            raise DataError(f"{path.name} has two columns for {symbol!r}; remove one.")
        if symbol:
            names[symbol] = i
            columns.append(Column(i, symbol, field, symbol))
    return Layout("wide", 1, tuple(columns), ())
