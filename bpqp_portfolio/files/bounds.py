"""How large a file from outside may be: its lines, its columns, its growth when unpacked."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ..errors import DataError

MAX_LINE = 2**20  # bytes; a day's bar takes a hundred
MAX_COLUMNS = 10_000
# Daily series packed by gzip or xz grow 2 to 20 times.
MAX_GROWTH = 200
# What may be unpacked of the smallest file.
FREE_BYTES = 32 * 2**20

_SHOWN, _WIDTH = 8, 40


def most_bytes(packed: int) -> int:
    """Bytes that a file of ``packed`` bytes may grow to."""
    return max(FREE_BYTES, MAX_GROWTH * packed)


def listed(names: Iterable[object]) -> str:
    """The first few names, each cut to a readable length.

    >>> listed(range(11))
    '0, 1, 2, 3, 4, 5, 6, 7 and 3 more'
    """
    texts = [str(name) for name in names]
    shown = [text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…" for text in texts[:_SHOWN]]
    more = f" and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return ", ".join(shown) + more


def check_csv(path: Path, where: str) -> None:
    """Read a CSV file, plain or gzip, once, in little memory, before a parser does.

    ``where`` begins the message of an error, such as ``cannot read the sectors s.csv:``.

    Raises
    ------
    DataError
        A line is too long, there are too many columns, the file holds a NUL, is damaged, or grows
        out of proportion when it is unpacked.
    OSError
        There is no such file.
    """
    most = most_bytes(path.stat().st_size)
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                _scan(file, where, most)
        else:
            with path.open("rb") as file:
                _scan(file, where, None)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{where} {error}") from error


def _scan(file: IO[bytes] | gzip.GzipFile, where: str, most: int | None) -> None:
    total = carried = commas = 0
    line, first = 1, True
    while chunk := file.read(MAX_LINE):
        if b"\0" in chunk:
            row = line + chunk.count(b"\n", 0, chunk.index(b"\0"))
            raise DataError(
                f"{where} line {row} holds a NUL character, as no table in UTF-8 does; save it as "
                "UTF-8, or remove it."
            )
        total += len(chunk)
        if most is not None and total > most:
            raise DataError(
                f"{where} it grows past {most:,} bytes when it is unpacked; unpack it by hand if "
                "you trust it."
            )
        end = min((i for i in (chunk.find(b"\n"), chunk.find(b"\r")) if i >= 0), default=-1)
        if carried + (end if end >= 0 else len(chunk)) > MAX_LINE:
            raise DataError(
                f"{where} line {line} is longer than {MAX_LINE:,} bytes; a table has a short line "
                "for each day and name."
            )
        if first:
            commas += chunk.count(b",", 0, end if end >= 0 else len(chunk))
            if commas >= MAX_COLUMNS:
                raise DataError(f"{where} it has more than {MAX_COLUMNS:,} columns.")
            first = end < 0
        last = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
        carried = carried + len(chunk) if last < 0 else len(chunk) - 1 - last
        line += chunk.count(b"\n")


def check_parquet(path: Path) -> None:
    """Refuse a Parquet file whose rows, by its own account, grow out of proportion.

    Raises
    ------
    DataError
        Its values would take more than :func:`most_bytes`, or it has too many columns.
    OSError, ValueError
        It is no Parquet file.
    """
    import pyarrow.parquet as pq

    meta = pq.read_metadata(path)
    if meta.num_columns > MAX_COLUMNS:
        raise DataError(f"{path.name}: has more than {MAX_COLUMNS:,} columns.")
    size, most = 8 * meta.num_rows * meta.num_columns, 8 * most_bytes(path.stat().st_size)
    if size > most:
        raise DataError(
            f"{path.name}: its {meta.num_rows:,} rows of {meta.num_columns} columns take "
            f"{size:,} bytes in memory, more than {most:,}, out of proportion to its size; write "
            "it anew from a source that you trust."
        )
