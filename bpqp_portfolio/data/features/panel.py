"""Daily cross-sections as contiguous tensors: one row a name and day, days as slices of rows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor


@dataclass(frozen=True)
class DayBatch:
    """T days padded to n names; R rows are the names that are really there, in row-major order.

    ``features`` (R, L, F) float32 of L days of history; ``mask`` (T, n) bool; ``label`` (T, n)
    training label in units of its day's cross-sectional standard deviation, ``known`` (T, n) where
    it is known; ``returns`` (T, n) realised return from the close of t+1 to that of t+2, as a
    fraction, zero where unknown, ``earned`` (T, n) where it is known, at any horizon of the label;
    ``loadings`` (T, n, k) and ``specific`` (T, n) of the day's covariance, per day²;
    ``oracle_value`` (T,) decision value of the portfolio of perfect foresight, NaN until computed;
    ``days`` (T,) positions in the panel; ``names`` (T, n) positions of the names among the
    panel's, -1 where padded.

    ``log_specific`` (T, n) and ``log_factors`` (T, k), where a network predicts them, are what the
    decision adds to the log of specific variances and of factor scales; see
    :meth:`with_learned_risk`.
    """

    features: Tensor
    mask: Tensor
    label: Tensor
    known: Tensor
    returns: Tensor
    earned: Tensor
    loadings: Tensor
    specific: Tensor
    oracle_value: Tensor
    days: Tensor
    names: Tensor
    log_specific: Tensor | None = None
    log_factors: Tensor | None = None

    @classmethod
    def unlabelled(
        cls,
        loadings: Tensor,
        specific: Tensor,
        mask: Tensor,
        names: Tensor | None = None,
        features: Tensor | None = None,
        log_specific: Tensor | None = None,
        log_factors: Tensor | None = None,
    ) -> DayBatch:
        """Days of which no return is known yet, with Σ and names as in the class's docstring."""
        T, shape = len(mask), mask.shape
        no, zero = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.float64)
        return cls(
            features=torch.empty(0, 1, 0) if features is None else features,
            mask=mask,
            label=zero.float(),
            known=no,
            returns=zero,
            earned=no,
            loadings=loadings,
            specific=specific,
            oracle_value=torch.full((T,), torch.nan, dtype=torch.float64),
            days=torch.arange(T),
            names=torch.where(mask, torch.arange(shape[-1]), -1) if names is None else names,
            log_specific=log_specific,
            log_factors=log_factors,
        )

    def with_learned_risk(self) -> DayBatch:
        """The days as the decision sees them: Σ' = B diag(s)² Bᵀ + diag(d eᵃ) in place of Σ.

        What a decision was worth is judged by Σ itself.
        """
        if self.log_specific is None and self.log_factors is None:
            return self
        loadings, specific = self.loadings, self.specific
        if self.log_factors is not None:
            loadings = loadings * self.log_factors.to(loadings).exp().unsqueeze(-2)
        if self.log_specific is not None:
            specific = specific * self.log_specific.to(specific).exp()
        return replace(
            self, loadings=loadings, specific=specific, log_specific=None, log_factors=None
        )

    def pad(self, rows: Tensor) -> Tensor:
        """(R,) values of rows as a (T, n) table, zero where padded."""
        table = rows.new_zeros(self.mask.shape)
        return table.masked_scatter(self.mask, rows)

    def day(self, i: int) -> DayBatch:
        """Day ``i`` alone, padded as it is here, without features."""
        own = {name: value[i : i + 1] for name, value in self._given().items()}
        return replace(self, **{**own, "features": self.features[:0]})

    def to(self, device: torch.device | str) -> DayBatch:
        """The same batch on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._given().items()})

    def _given(self) -> dict[str, Tensor]:
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class DailyPanel:
    """All days of a study; row r belongs to the day whose ``offsets`` enclose it.

    ``dates`` (T,) datetime64[D]; ``names`` (N,) codes; ``offsets`` (T+1,); ``name_index`` (R,)
    increasing within a day; ``features`` (R, F); ``label``, ``returns`` (R,) with NaN where
    unknown; ``loadings`` (R, k); ``specific`` (R,); ``previous`` (R,) row of the name's last day
    in the panel, the row itself where there is none; ``oracle_value`` (T,) as in
    :class:`DayBatch`; ``window`` days of history L that batches hold. Memory-mapped tensors stay on
    disk until read.
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
    previous: Tensor
    oracle_value: Tensor
    window: int = 1

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.features.device

    @property
    def nbytes(self) -> int:
        """Size of its tensors."""
        return sum(t.nbytes for t in vars(self).values() if isinstance(t, Tensor))

    @property
    def counts(self) -> Tensor:
        """Names of each day, (T,)."""
        return self.offsets[1:] - self.offsets[:-1]

    def to(self, device: torch.device | str) -> DailyPanel:
        """The same panel on another device, wholly in its memory."""
        tensors: Any = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def between(self, start: str, end: str) -> Tensor:
        """Positions (D,) of the days from ``start`` to ``end``, ISO dates, both included."""
        first = np.searchsorted(self.dates, np.datetime64(start, "D"), side="left")
        last = np.searchsorted(self.dates, np.datetime64(end, "D"), side="right")
        return torch.arange(int(first), max(int(first), int(last)))

    def rows(self, days: Tensor) -> Tensor:
        """Rows of ``days`` in order, (R',)."""
        table, mask = self._table(days)
        return table[mask]

    def index(self, days: Tensor) -> pd.MultiIndex:
        """(datetime, instrument) of the rows of ``days``."""
        dates = pd.DatetimeIndex(self.dates[days.numpy()]).repeat(self.counts[days].numpy())
        names = self.names[self.name_index[self.rows(days)].numpy()]
        return pd.MultiIndex.from_arrays([dates, names], names=["datetime", "instrument"])

    def chunks(self, days: Tensor, rows: int = 40_000) -> list[Tensor]:
        """``days`` in order, in parts of at most ``rows`` padded rows, or one day."""
        if not len(days):
            return []
        widest = int(self.counts[days.to(self.device)].max())
        return list(days.split(max(1, rows // max(1, widest))))

    def history(self, rows: Tensor) -> Tensor:
        """Rows (R', L) of the last L days of the names of ``rows``, the row itself last.

        Where a name has fewer days, its oldest is repeated.
        """
        found = [rows]
        for _ in range(self.window - 1):
            found.append(self.previous[found[-1]])
        return torch.stack(found[::-1], dim=1)

    def _table(self, days: Tensor) -> tuple[Tensor, Tensor]:
        days = days.to(self.device)
        start, count = self.offsets[days], self.counts[days]
        column = torch.arange(int(count.max()) if len(days) else 0, device=self.device)
        mask = column < count.unsqueeze(1)
        return (start.unsqueeze(1) + column) * mask, mask

    def _features(self, days: Tensor, table: Tensor, mask: Tensor) -> Tensor:
        """Features (R', L, F); of consecutive days without history a view, which copies nothing."""
        if self.window == 1 and len(days) and bool((days.diff() == 1).all()):
            rows = slice(int(self.offsets[days[0]]), int(self.offsets[days[-1] + 1]))
            return self.features[rows].unsqueeze(1)
        return self.features[self.history(table[mask])]

    def batch(self, days: Tensor, features: bool = True) -> DayBatch:
        """The days at positions ``days``, padded to the largest of them.

        ``features=False`` leaves the features out, for work that needs none.
        """
        table, mask = self._table(days)
        label, returns = self.label[table], self.returns[table]
        known, earned = mask & torch.isfinite(label), mask & torch.isfinite(returns)
        nothing = self.features.new_empty(0, self.window, self.features.shape[1])
        return DayBatch(
            features=self._features(days, table, mask) if features else nothing,
            mask=mask,
            label=torch.where(known, label, 0.0),
            known=known,
            returns=torch.where(earned, returns, 0.0),
            earned=earned,
            loadings=torch.where(mask.unsqueeze(-1), self.loadings[table], 0.0),
            specific=torch.where(mask, self.specific[table], 1.0),
            oracle_value=self.oracle_value[days.to(self.device)],
            days=days,
            names=torch.where(mask, self.name_index[table], -1),
        )


def previous_rows(name_index: np.ndarray) -> np.ndarray:
    """For each row, that of its name's last day before in the panel, (R,); itself for the first.

    >>> previous_rows(np.array([0, 1, 1, 0, 2])).tolist()
    [0, 1, 1, 0, 4]
    """
    order = np.argsort(name_index, kind="stable")
    same = name_index[order][1:] == name_index[order][:-1]
    previous = np.arange(len(name_index))
    previous[order[1:][same]] = order[:-1][same]
    return previous
