"""Judging daily moves: which returns from one close to the next are invalid, and why.

A move m = close_t / close_s − 1 from the last close s is compared with two witnesses: the field
``$change``, which should equal m, and the price limit of the name's board and date, which bounds
|m|. Both are compared within a tick of the quoted price, tick · factor_t / close_s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ...markets.price_limits import free_sessions, price_limits

LONG_HALT = 20  # sessions; a shorter halt does not lift the limit
TICK = 0.01  # of quoted prices on the Chinese exchanges
LARGE_MOVE = 0.75
ROUNDING = 1e-4  # of float32 prices and factors
LIVELY = 0.002  # smallest move whose ratio to $change distinguishes percent from fraction

# What the return into a day can be found to be.
DISPUTED = "move-disputed"
IMPOSSIBLE = "move-impossible"
UNADJUSTED = "move-unadjusted"
UNLIMITED = "move-unlimited"
LARGE = "move-large"


@dataclass(frozen=True)
class Move:
    """A conspicuous move of ``instrument`` into ``date``: ``verdict`` is one of the above.

    ``size`` is that of the move or, where it is disputed, of the difference; as a fraction.
    """

    verdict: str
    instrument: str
    date: pd.Timestamp
    detail: str
    size: float

    @property
    def place(self) -> str:
        """Name, day and figures on one line."""
        return f"{self.instrument} {self.date:%Y-%m-%d} ({self.detail})"


@dataclass
class MoveJudge:
    """Judges the moves of one name after the other, each from what is known at its day's close.

    A move is *disputed* where ``$change`` differs from it by more than a tick: one of ``$change``
    and the adjustment factor is wrong. It is *impossible* beyond the board's price limit and a
    tick of rounding. There is no limit in the first sessions after a listing; nor on resuming
    after ``LONG_HALT`` sessions or on a day whose high and low are further apart than a limit
    allows: such a move is *unlimited* and valid, except for a fall on resuming with an unchanged
    factor, which is *unadjusted*: a distribution or share reform that the factor lacks. Where no
    limit is known, a move beyond ``LARGE_MOVE`` is *large*.

    Whether ``$change`` can be trusted, and whether a name has it in percent, is counted from the
    first day up to the day of the move, so that later data never change an earlier verdict.
    ``calendar`` (T,) are the days of every series.
    """

    calendar: pd.DatetimeIndex
    in_percent: list[str] = field(default_factory=list)
    _found: list[tuple[int, Move | None, Move | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # By day, over all names: days compared, disputed, adjusted, and both of the last two.
        self._counts = np.zeros((4, len(self.calendar)), dtype=np.int64)

    def judge(self, name: str, series: Mapping[str, np.ndarray], *, moves: bool = True) -> None:
        """Judge every move of ``name``; ``series`` are its fields, (T,) each, with ``close``.

        Without ``moves`` the name only counts towards the trust in ``$change``.
        """
        nothing = np.full(len(self.calendar), np.nan)
        close, factor = series["close"], series.get("factor", nothing)
        seen = np.flatnonzero(np.isfinite(close) & (close > 0))
        if len(seen) < 2:
            return
        before, day = seen[:-1], seen[1:]
        move = close[day] / close[before] - 1.0
        with np.errstate(invalid="ignore", divide="ignore"):
            # The exchange rounds to a tick: the last close in today's terms, and the limit on it.
            reference = close[before] / factor[day]
            slack = np.where(reference > 0, TICK / reference, TICK) + ROUNDING
            adjusted = np.abs(factor[day] / factor[before] - 1.0) > ROUNDING
        change = self._as_fraction(name, series.get("change", nothing)[day], move)

        # First witness: $change, counted for the trust in it.
        disputed = np.abs(change - move) > slack + 10 * ROUNDING
        compared = np.isfinite(change)
        for count, of in zip(
            self._counts,
            (compared, disputed, adjusted & compared, adjusted & disputed),
            strict=True,
        ):
            count[day] += of
        if not moves:
            return

        # Second witness: the price limit, where the day had one.
        halt = day - before - 1
        limit = price_limits([name], self.calendar[day])[:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            height = series.get("high", nothing)[day] / series.get("low", nothing)[day]
        # A name with data from the calendar's first day may have been listed long before.
        free = free_sessions(name, self.calendar[seen[0]]) if seen[0] > 0 else 0
        beyond = (np.abs(move) > limit + slack) & (np.arange(2, len(seen) + 1) > free)
        unlimited = (halt >= LONG_HALT) | (height > (1 + limit) / (1 - limit) * (1 + slack))
        unadjusted = unlimited & (halt > 0) & (move < 0) & ~adjusted
        verdict = np.select(
            [
                beyond & ~unlimited,
                beyond & unadjusted,
                beyond,
                np.isnan(limit) & (np.abs(move) > LARGE_MOVE),
            ],
            [IMPOSSIBLE, UNADJUSTED, UNLIMITED, LARGE],
            default="",
        )
        # Both verdicts are kept: which one counts depends on the trust in $change (see `moves`).
        for i in np.flatnonzero(disputed | (verdict != "")):
            after = f", after {halt[i]} sessions without trade" if halt[i] else ""
            known = "" if np.isnan(limit[i]) else f", limit {limit[i]:.0%}"
            date = self.calendar[day[i]]
            doubt = otherwise = None
            if disputed[i]:
                figures = f"{move[i]:+.1%}, $change {change[i]:+.1%}{after}"
                doubt = Move(DISPUTED, name, date, figures, abs(change[i] - move[i]))
            if verdict[i]:
                figures = f"{move[i]:+.1%}{known}{after}"
                otherwise = Move(str(verdict[i]), name, date, figures, abs(move[i]))
            self._found.append((int(day[i]), doubt, otherwise))

    @property
    def moves(self) -> list[Move]:
        """What was found, by name and day.

        On a day on which ``$change`` is not trusted, nothing is disputed.
        """
        trusted = self.trusted()
        chosen = (
            doubt if doubt is not None and trusted[day] else otherwise
            for day, doubt, otherwise in self._found
        )
        return [move for move in chosen if move is not None]

    def trusted(self) -> np.ndarray:
        """Boolean (T,): does ``$change`` mean the return of the adjusted close, up to the day?

        It does not if it disagrees on more than 0.5 % of all days so far, or on most days so far on
        which a factor changed: then it is the return of the quoted price.
        """
        compared, disputed, adjustments, both = self._counts.cumsum(axis=1)
        often = disputed > 0.005 * np.maximum(compared, 1000)
        return ~often & (both <= 0.5 * np.maximum(adjustments, 10))

    def share_disputed(self) -> float:
        """Share of the days on which ``$change`` disagrees, where it ever lost trust; or 0."""
        if self.trusted().all():
            return 0.0
        compared, disputed = self._counts[:2].sum(axis=1)
        return float(disputed / compared)

    def _as_fraction(self, name: str, change: np.ndarray, move: np.ndarray) -> np.ndarray:
        """``change`` as a fraction; a name that has it in percent is noted.

        Percent where most lively moves up to the day agree with it; before the first, the nearer.
        """
        lively = (np.abs(move) > LIVELY) & np.isfinite(change)
        ratio = np.divide(change, move, out=np.zeros(len(move)), where=lively)
        count, percents = np.cumsum(lively), np.cumsum(ratio > 50)
        nearer = np.abs(change / 100.0 - move) < np.abs(change - move)
        percent = np.where(count > 0, 2 * percents > count, nearer)
        if count[-1] and percent[-1]:
            self.in_percent.append(name)
        return np.where(percent, change / 100.0, change)
