"""Daily price limits, first sessions without one and least orders of China's exchanges, by board.

Sources: trading rules of the Shanghai, Shenzhen and Beijing exchanges. A stock under special
treatment (ST) has 5 % on the main board; a provider does not record which stocks were, so the
board's limit is given for them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Board:
    """A board: which codes trade on it, its limits, and its first sessions without a limit.

    ``limits`` and ``free`` are steps ``(first day, value)`` in order of date; ``free`` goes by the
    day of listing. ``least`` is the smallest order to buy, in shares.
    """

    codes: re.Pattern[str]
    limits: tuple[tuple[str, float], ...]
    free: tuple[tuple[str, int], ...]
    least: int = 100


BOARDS = {
    "STAR": Board(
        re.compile(r"SH68[89]\d{3}"),
        limits=(("2019-07-22", 0.20),),
        free=(("2019-07-22", 5),),
        least=200,
    ),
    "ChiNext": Board(
        re.compile(r"SZ30\d{4}"),
        limits=(("2009-10-30", 0.10), ("2020-08-24", 0.20)),
        free=(("2009-10-30", 1), ("2020-08-24", 5)),
    ),
    "Beijing": Board(
        re.compile(r"BJ\d{6}"), limits=(("2021-11-15", 0.30),), free=(("2021-11-15", 1),)
    ),
    "main": Board(
        re.compile(r"SH(60|90)\d{4}|SZ(00|20)\d{4}"),
        limits=(("1996-12-16", 0.10),),
        free=(("1996-12-16", 1), ("2023-04-10", 5)),
    ),
}


def board_of(instrument: str) -> Board | None:
    """The board of a code such as ``SH600000``; None for an index, a fund or a foreign code."""
    code = instrument.upper()
    return next((board for board in BOARDS.values() if board.codes.fullmatch(code)), None)


def price_limits(names: Iterable[str], dates: Any) -> np.ndarray:
    """Largest daily move of each name on each day, as a fraction: (T, n), NaN where none.

    The limit applies to the close against the previous close in today's adjusted terms; it is
    rounded to the tick of 0.01, so a move may exceed the fraction by half a tick.
    """
    dates = pd.DatetimeIndex(dates)
    columns = [
        _step(board.limits, dates) if (board := board_of(name)) else np.full(len(dates), np.nan)
        for name in names
    ]
    return np.column_stack(columns) if columns else np.empty((len(dates), 0))


def price_limit(instrument: str, date: Any) -> float:
    """Largest move of ``instrument`` on ``date``, as a fraction; NaN where there is no limit.

    >>> price_limit("SZ300001", "2020-08-21"), price_limit("SZ300001", "2020-08-24")
    (0.1, 0.2)
    """
    return float(price_limits([instrument], [pd.Timestamp(date)])[0, 0])


def free_sessions(instrument: str, listed: Any) -> int:
    """How many first sessions, that of the listing included, have no such limit."""
    board = board_of(instrument)
    count = _step(board.free, pd.DatetimeIndex([listed]))[0] if board else np.nan
    return 0 if np.isnan(count) else int(count)


def least_order(instrument: str) -> int:
    """Smallest order to buy ``instrument``, in shares; 1 where no board of ours trades it."""
    board = board_of(instrument)
    return board.least if board else 1


def _step(steps: tuple[tuple[str, float], ...], dates: pd.DatetimeIndex) -> np.ndarray:
    """Value of a step function on each date, NaN before its first day."""
    starts = pd.DatetimeIndex([day for day, _ in steps])
    values = np.array([np.nan, *(value for _, value in steps)])
    return values[starts.searchsorted(dates, side="right")]
