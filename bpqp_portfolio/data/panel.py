"""Daily cross-sections as contiguous tensors: one row a name and day, days as slices of rows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class DayBatch:
    """T days padded to n names; R rows are the names that are really there, in row-major order.

    ``features`` (R, L, F) float32 of L days of history; ``mask`` (T, n) bool; ``label`` (T, n)
    training label in units of its day's cross-sectional standard deviation, ``known`` (T, n) where
    it is known; ``returns`` (T, n) realised return from the close of t+1 to that of t+2, as a
    fraction, zero where unknown; ``loadings`` (T, n, k) and ``specific`` (T, n) of the day's
    covariance, per day²; ``optimal`` (T,) decision value of the hindsight portfolio, NaN until
    computed; ``days`` (T,) positions in the panel.
    """

    features: Tensor
    mask: Tensor
    label: Tensor
    known: Tensor
    returns: Tensor
    loadings: Tensor
    specific: Tensor
    optimal: Tensor
    days: Tensor

    def pad(self, rows: Tensor) -> Tensor:
        """(R,) values of rows as a (T, n) table, zero where padded."""
        table = rows.new_zeros(self.mask.shape)
        return table.masked_scatter(self.mask, rows)

    def to(self, device: torch.device | str) -> DayBatch:
        """The same batch on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class DailyPanel:
    """All days of a study; row r belongs to the day whose ``offsets`` enclose it.

    ``dates`` (T,) datetime64[D]; ``names`` (N,) codes; ``offsets`` (T+1,); ``name_index`` (R,)
    increasing within a day; ``features`` (R, F); ``label``, ``returns`` (R,) with NaN where
    unknown; ``loadings`` (R, k); ``specific`` (R,); ``history`` (R, L) rows of the name's last L
    days in the panel, the row itself last, the oldest repeated where there are fewer.
    """

    dates: np.ndarray
    names: np.ndarray
    offsets: Tensor
    name_index: Tensor
    features: Tensor
    label: Tensor
    returns: Tensor
    loadings: Tensor
    specific: Tensor
    history: Tensor
    optimal: Tensor

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def counts(self) -> Tensor:
        """Names of each day, (T,)."""
        return self.offsets[1:] - self.offsets[:-1]

    def between(self, start: str, end: str) -> Tensor:
        """Positions of the days from ``start`` to ``end``, both included."""
        first = np.searchsorted(self.dates, np.datetime64(start, "D"), side="left")
        last = np.searchsorted(self.dates, np.datetime64(end, "D"), side="right")
        return torch.arange(int(first), max(int(first), int(last)))

    def rows(self, days: Tensor) -> Tensor:
        """Rows of ``days`` in order, (R',)."""
        table, mask = self._table(days)
        return table[mask]

    def _table(self, days: Tensor) -> tuple[Tensor, Tensor]:
        start, count = self.offsets[days], self.counts[days]
        column = torch.arange(int(count.max()) if len(days) else 0)
        mask = column < count.unsqueeze(1)
        return (start.unsqueeze(1) + column) * mask, mask

    def batch(self, days: Tensor, features: bool = True) -> DayBatch:
        """The days at positions ``days``, padded to the largest of them.

        ``features=False`` leaves the features out, for work that needs none.
        """
        table, mask = self._table(days)
        label, returns = self.label[table], self.returns[table]
        known = mask & torch.isfinite(label)
        history = self.history[table[mask]] if features else self.history[:0]
        return DayBatch(
            features=self.features[history],
            mask=mask,
            label=torch.where(known, label, 0.0),
            known=known,
            returns=torch.where(mask & torch.isfinite(returns), returns, 0.0),
            loadings=torch.where(mask.unsqueeze(-1), self.loadings[table], 0.0),
            specific=torch.where(mask, self.specific[table], 1.0),
            optimal=self.optimal[days],
            days=days,
        )


def history_rows(offsets: np.ndarray, name_index: np.ndarray, window: int) -> np.ndarray:
    """For each row, the rows of its name's last ``window`` days in the panel, (R, window).

    The row itself is last; where a name has fewer days, its oldest is repeated.
    """
    rows = np.arange(len(name_index))
    out = np.empty((len(rows), window), dtype=np.int64)
    out[:, -1] = rows
    if window == 1:
        return out
    order = np.argsort(name_index, kind="stable")
    same = np.zeros(len(rows), dtype=bool)
    same[1:] = name_index[order][1:] == name_index[order][:-1]
    previous = rows.copy()
    previous[order[1:][same[1:]]] = order[:-1][same[1:]]
    for lag in range(window - 2, -1, -1):
        out[:, lag] = previous[out[:, lag + 1]]
    return out
