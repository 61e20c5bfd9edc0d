"""Statistical sectors: names grouped by how their returns move together, point in time.

Spectral clustering (Ng, Jordan and Weiss 2001, "On spectral clustering"): the correlations of a
window of returns, less their first eigenvector (the market), are reduced to ``count`` eigenvectors;
rows are scaled to length one and grouped by k-means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..config import check_number
from ..errors import DataError
from .base import complete_returns, top_eigenpairs


@dataclass(frozen=True)
class ClusterConfig:
    """How names are grouped by their past returns, point in time.

    Parameters
    ----------
    count : [groups] number of groups.
    window : [days] returns that are used, up to the last day before a period.
    min_history : [days] returns that a name needs in the window to be in a group.
    months : [months] length of a period of the calendar, after which the groups are found anew.
    seed : [no unit] seed of the start of k-means.

    Raises
    ------
    ConfigError
        A number outside its range.
    """

    count: int = 10
    window: int = 480
    min_history: int = 120
    months: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.count, "count", low=2, integer=True)
        check_number(self.window, "window", low=20, integer=True)
        check_number(self.min_history, "min_history", low=10, high=self.window, integer=True)
        check_number(self.months, "months", low=1, high=12, integer=True)
        check_number(self.seed, "seed", low=0, integer=True)


def cluster_returns(
    returns: np.ndarray,
    dates: pd.DatetimeIndex,
    config: ClusterConfig,
    *,
    since: int = 0,
    before: np.ndarray | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Group of each name on each day, (T, N) int16, −1 where it has too short a history.

    The groups of a day were found at the last day before its period of ``months`` months, on
    returns up to that day. Periods follow the calendar, so that the groups of a day depend neither
    on the days that are asked for nor on any return after it. The search starts from the groups of
    the period before, so that they change little and keep their numbers.

    Parameters
    ----------
    returns : (T, N) fractions per day, NaN where unobserved.
    dates : (T,) trading days.
    since, before : find the groups from day ``since`` on, where those of the day before it are
        ``before`` (N,); the days before are −1.

    Raises
    ------
    DataError
        A return is infinite.
    """
    if np.isinf(returns).any():
        day, name = np.argwhere(np.isinf(returns))[0]
        raise DataError(f"the return of day {day}, name {name} is infinite; make it NaN.")
    T, N = returns.shape
    labels = np.full((T, N), -1, dtype=np.int16)
    period = (dates.year * 12 + dates.month - 1) // config.months
    starts = np.flatnonzero(np.diff(period, prepend=period[0] - 1))
    bounds = [*starts[1:], T]
    before = np.full(N, -1) if before is None else before
    work = [(first, last) for first, last in zip(starts, bounds, strict=True) if last > since]
    for first, last in tqdm(work, "sectors", disable=None if progress else True):
        if first < since:
            labels[since:last] = before
            continue
        window = returns[max(0, first - config.window) : first]
        enough = np.flatnonzero(np.isfinite(window).sum(0) >= config.min_history)
        if len(enough) <= config.count:
            continue
        found = np.full(N, -1)
        found[enough] = _group(window[:, enough], before[enough], config)
        labels[first:last] = found
        before = found
    return labels


def _group(window: np.ndarray, before: np.ndarray, config: ClusterConfig) -> np.ndarray:
    from sklearn.cluster import KMeans  # a second to import, which most runs do not need

    """Group (n,) of each column of ``window`` (L, n), numbered as those ``before`` (n,)."""
    spread, middle = np.nanstd(window, axis=0), np.nanmean(window, axis=0)
    # Wrong prices and returns over long suspensions must not make a group of their own.
    clipped = np.clip(window, middle - 3 * spread, middle + 3 * spread)
    # Correlations, as products of columns of length one.
    filled = complete_returns(clipped, 1)
    length = np.linalg.norm(filled, axis=0)
    filled = filled / np.where(length > 0, length, 1.0)
    # The leading eigenvectors but the first, rows of length one.
    _, vectors = top_eigenpairs(filled.T @ filled, config.count + 1)
    embedded = vectors[:, 1:]
    size = np.linalg.norm(embedded, axis=1, keepdims=True)
    embedded = embedded / np.where(size > 0, size, 1.0)
    # k-means, from the centres of the groups before where each of them still has names.
    kept = [embedded[before == group] for group in range(config.count)]
    if all(len(rows) for rows in kept):
        start = np.stack([rows.mean(0) for rows in kept])
        return KMeans(config.count, init=start, n_init=1).fit_predict(embedded)
    groups = KMeans(config.count, n_init=10, random_state=config.seed).fit_predict(embedded)
    order = np.argsort(-np.bincount(groups, minlength=config.count), kind="stable")
    return np.argsort(order)[groups]  # the largest group is the first
