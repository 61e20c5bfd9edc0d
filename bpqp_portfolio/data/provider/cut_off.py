"""Whether a CSV file is whole: every row as long as its head, and the last one not cut off."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np

from ...errors import DataError

# By how much the last number of a file without a final line break may fall short of the one above
# it before it counts as cut off.
_SHORT_PRICE, _SHORT_VOLUME = 2.0, 20.0
_REMEDY = "get the file anew, or end its last line with a line break if it is whole"


def check_rows(content: bytes, separator: str, head: int, path: Path) -> None:
    """Every row below the ``head`` has as many cells as the head's last, which is ``separator``-ed.

    Raises
    ------
    DataError
        A row has fewer, as where a download broke off, or more; the message names the line.
    """
    if b'"' in content:
        text = io.StringIO(content.decode("utf-8-sig", errors="replace"), newline="")
        rows = csv.reader(text, delimiter=separator)
        found = [(rows.line_num, len(row), bool("".join(row).strip())) for row in rows]
        line, width, full = (np.array(column) for column in zip(*found, strict=True))
    else:
        data = np.frombuffer(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), dtype=np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        if not len(ends) or ends[-1] != len(data) - 1:
            ends = np.append(ends, len(data))
        marks = np.searchsorted(np.flatnonzero(data == ord(separator)), ends)
        width = np.diff(marks, prepend=0) + 1
        line = np.arange(1, len(ends) + 1)
        full = np.diff(ends, prepend=-1) > 1
    wanted = width[0]
    wrong = np.flatnonzero((width != wanted) & full)
    wrong = wrong[wrong >= min(head, 1)]
    if len(wrong):
        row = wrong[0]
        last = " and is the last: the file is cut off" if row == np.flatnonzero(full)[-1] else ""
        raise DataError(
            f"{path.name} line {line[row]}: {width[row]} cells, where the head has {wanted}{last}. "
            "Get the file anew, or mend the line."
        )


def check_last(content: bytes, separator: str, field: str, path: Path) -> None:
    """The last cell of a file that ends without a line break is not cut off within a number.

    Compared with the cell above it, of the same ``field``: a code of which only the beginning is
    there, a price of less than half, a volume of less than a twentieth.

    Raises
    ------
    DataError
        It seems to be cut off; file, line and value.
    """
    if content.endswith((b"\n", b"\r")):
        return
    lines = content[-65536:].decode("utf-8", errors="replace").splitlines()[-2:]
    if len(lines) < 2:
        return
    above, last = (line.rpartition(separator)[2].strip().strip('"') for line in lines)
    if field in ("symbol", "name"):
        cut = above != last and above.startswith(last)
    else:
        most = _SHORT_VOLUME if field == "volume" else _SHORT_PRICE
        before, value = _number(above), _number(last)
        cut = len(last) < len(above) and value is not None and before is not None
        cut = cut and abs(value or 0.0) * most < abs(before or 0.0)
    if cut:
        count = content.count(b"\n") + 1
        raise DataError(
            f"{path.name} line {count}: the file ends without a line break in {last!r}, below "
            f"{above!r}, as if it were cut off; {_REMEDY}."
        )


def _number(text: str) -> float | None:
    digits = re.sub(r"[^0-9.eE+-]", "", text)
    try:
        return float(digits)
    except ValueError:
        return None
