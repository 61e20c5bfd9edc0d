"""Judging daily moves: which returns from one close to the next cannot be believed, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from .boards import free_sessions, price_limits

LONG_HALT = 20  # sessions; a shorter halt does not lift the limit
TICK = 0.01  # of quoted prices on the Chinese exchanges
LARGE_MOVE = 0.75
ROUNDING = 1e-4  # of float32 prices and factors
LIVELY = 0.002  # smallest move whose ratio to $change tells percent from fraction

# What the return into a day can be found to be.
DISPUTED = "move-disputed"
IMPOSSIBLE = "move-impossible"
UNADJUSTED = "move-unadjusted"
UNLIMITED = "move-unlimited"
LARGE = "move-large"


@dataclass(frozen=True)
class Move:
    """A conspicuous move of ``instrument`` into ``date``: ``verdict`` is one of the above."""

    verdict: str
    instrument: str
    date: pd.Timestamp
    detail: str

    @property
    def place(self) -> str:
        """Name, day and figures on one line."""
        return f"{self.instrument} {self.date:%Y-%m-%d} ({self.detail})"


@dataclass
class MoveJudge:
    """Judges one name after the other, and how far ``$change`` can be trusted over all of them.

    A move is *disputed* where ``$change`` differs from it by more than a tick: one of ``$change``
    and the adjustment factor is wrong. It is *impossible* beyond the board's price limit and a
    tick of rounding. There is no limit in the first sessions after a listing; nor on resuming
    after ``LONG_HALT`` sessions or on a day whose high and low are further apart than a limit
    allows: such a move is *unlimited* and believed, except for a fall on resuming with an unchanged
    factor, which is *unadjusted*: a distribution or share reform that the factor lacks. Where no
    limit is known, a move beyond ``LARGE_MOVE`` is *large*.
    """

    moves: list[Move] = field(default_factory=list)
    in_percent: list[str] = field(default_factory=list)
    _compared: int = 0
    _disputed: int = 0
    _adjustments: int = 0
    _disputed_adjustments: int = 0

    def judge(
        self, calendar: pd.DatetimeIndex, name: str, series: Mapping[str, np.ndarray]
    ) -> None:
        """Judge every move of ``name``; ``series`` are its fields, (T,) each, with ``close``."""
        nothing = np.full(len(calendar), np.nan)
        close, factor = series["close"], series.get("factor", nothing)
        seen = np.flatnonzero(np.isfinite(close) & (close > 0))
        if len(seen) < 2:
            return
        before, day = seen[:-1], seen[1:]
        move = close[day] / close[before] - 1.0
        halt = day - before - 1
        with np.errstate(invalid="ignore", divide="ignore"):
            # The exchange rounds to a tick: the last close in today's terms, and the limit on it.
            reference = close[before] / factor[day]
            slack = np.where(reference > 0, TICK / reference, TICK) + ROUNDING
            adjusted = np.abs(factor[day] / factor[before] - 1.0) > ROUNDING
            height = series.get("high", nothing)[day] / series.get("low", nothing)[day]
        change = self._as_fraction(name, series.get("change", nothing)[day], move)

        disputed = np.abs(change - move) > slack + 10 * ROUNDING
        compared = np.isfinite(change)
        self._compared += int(compared.sum())
        self._disputed += int(disputed.sum())
        self._adjustments += int((adjusted & compared).sum())
        self._disputed_adjustments += int((adjusted & disputed).sum())

        limit = price_limits([name], calendar[day])[:, 0]
        # A name with data from the calendar's first day may have been listed long before.
        free = free_sessions(name, calendar[seen[0]]) if seen[0] > 0 else 0
        beyond = (np.abs(move) > limit + slack) & (np.arange(2, len(seen) + 1) > free)
        unlimited = (halt >= LONG_HALT) | (height > (1 + limit) / (1 - limit) * (1 + slack))
        unadjusted = unlimited & (halt > 0) & (move < 0) & ~adjusted
        verdicts = {
            DISPUTED: disputed,
            IMPOSSIBLE: beyond & ~disputed & ~unlimited,
            UNADJUSTED: beyond & ~disputed & unadjusted,
            UNLIMITED: beyond & ~disputed & unlimited & ~unadjusted,
            LARGE: np.isnan(limit) & (np.abs(move) > LARGE_MOVE) & ~disputed,
        }
        for verdict, hit in verdicts.items():
            for i in np.flatnonzero(hit):
                detail = f"{move[i]:+.1%}"
                if verdict == DISPUTED:
                    detail += f", $change {change[i]:+.1%}"
                elif not np.isnan(limit[i]):
                    detail += f", limit {limit[i]:.0%}"
                if halt[i]:
                    detail += f", after {halt[i]} sessions without trade"
                self.moves.append(Move(verdict, name, calendar[day[i]], detail))

    def drop_disputes(self) -> float:
        """Where ``$change`` must mean something else, drop its disputes; the share disputed, or 0.

        That is so if it disagrees on more than 0.5 % of all days, or on most days on which a
        factor changes: then it is the return of the quoted price.
        """
        often = self._disputed > 0.005 * max(self._compared, 1000)
        if not often and self._disputed_adjustments <= 0.5 * max(self._adjustments, 10):
            return 0.0
        self.moves = [move for move in self.moves if move.verdict != DISPUTED]
        return self._disputed / self._compared

    def _as_fraction(self, name: str, change: np.ndarray, move: np.ndarray) -> np.ndarray:
        """``change`` as a fraction; a name that has it in percent is noted."""
        lively = (np.abs(move) > LIVELY) & np.isfinite(change)
        if lively.any() and np.median(change[lively] / move[lively]) > 50:
            self.in_percent.append(name)
            return change / 100.0
        return change
