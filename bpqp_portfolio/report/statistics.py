"""Is a difference of returns more than chance: a paired block bootstrap over days and seeds.

The estimate is d̂ = mean over days and seeds of r¹ − r². Its error is that of the days, drawn in
circular blocks with the same days for both methods (Politis and Romano 1992), plus that of the
seeds of either method, drawn one by one; and its spread is itself uncertain, as in Student's t
(Welch 1947; Satterthwaite 1946). p-values of several comparisons are corrected by Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..config import check_number
from ..errors import DataError

BLOCK = 20
"""Days of a block, about a month: longer than the memory of daily excess returns."""


@dataclass(frozen=True)
class Difference:
    """Annual return of one method less that of another, on the same days.

    ``annual`` the mean daily difference times the trading days of a year, as a fraction; ``low``
    and ``high`` its interval at ``level``; ``p_value`` two-sided, of no difference; ``days``
    compared; ``seeds`` of the first and the second method. With a single seed of either, that
    method's spread over seeds is unknown and the interval is that of this seed's run.
    """

    annual: float
    low: float
    high: float
    p_value: float
    level: float
    days: int
    seeds: tuple[int, int]

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below zero, 0 where it holds zero."""
        return int(self.low > 0) - int(self.high < 0)


def mean_difference(
    returns: pd.Series, benchmark: pd.Series | float = 0.0, *, days_per_year: float
) -> Difference:
    """Annual return of one run over its benchmark, with the interval of :func:`paired_difference`.

    Parameters
    ----------
    returns, benchmark : daily returns (T,) as fractions; days on which either is missing are left
        out. A benchmark of 0 leaves the returns themselves.
    days_per_year : trading days that annual figures count.

    Raises
    ------
    DataError
        Fewer than two days.

    Notes
    -----
    Blocks are of :data:`BLOCK` days, or of √T where these are fewer, so that a short test has as
    many blocks as days in one.

    >>> days = pd.bdate_range("2020-01-01", periods=100)
    >>> gain = mean_difference(pd.Series([0.01, -0.008] * 50, days), days_per_year=252)
    >>> round(float(gain.annual), 3), gain.sign
    (0.252, 1)
    """
    excess = (returns - benchmark).dropna().to_frame()
    return paired_difference(
        excess,
        0.0 * excess,
        days_per_year=days_per_year,
        block=min(BLOCK, max(1, math.isqrt(len(excess)))),
    )


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    days_per_year: float,
    block: int = BLOCK,
    draws: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean difference of daily returns with days and seeds both resampled.

    Parameters
    ----------
    first, second : daily returns as fractions, one row a day and one column a seed.
    days_per_year : trading days that annual figures count.
    block : length in days of the blocks of days that are drawn together; the same days for both
        methods and all seeds.
    draws : number of bootstrap samples.
    level : of the interval.
    seed : of the drawing; the same seed gives the same figures.

    Raises
    ------
    ConfigError
        A setting outside its range.
    DataError
        The methods do not have the same days, a return is not finite, or there are fewer than two
        blocks of days.

    Notes
    -----
    Circular blocks of days (Politis and Romano, 1992) and independent draws of seeds. A sample of S
    seeds has too small a spread by √((S−1)/S), and one of K blocks by √((K−1)/K): deviations are
    enlarged by these factors. Noise of single runs counts among days and among seeds, so the
    interval is rather too wide than too narrow.

    The spread itself is known from S − 1 and K − 1 degrees of freedom only, which a bootstrap of
    three seeds ignores: each deviation is divided by √(χ²_ν/ν), as in Student's t, with ν of
    Welch (1947) and Satterthwaite (1946) for the sum of the variances of days and of seeds.
    """
    check_number(block, "block", low=1, integer=True)
    check_number(draws, "draws", low=100, integer=True)
    check_number(level, "level", low=0, high=1, open_low=True)
    _check_pair(first, second, block)
    days = len(first)
    blocks = math.ceil(days / block)
    # Errors of the mean by days and by seeds, from samples of both methods on the same days.
    random = np.random.default_rng(seed)
    starts = random.integers(days, size=(draws, blocks))
    days_one, seeds_one = _resampled(first, starts, block, random)
    days_two, seeds_two = _resampled(second, starts, block, random)
    sample = days_one - days_two + seeds_one - seeds_two
    # The spread of the errors is known from few blocks and seeds only.
    parts = [(np.var(days_one - days_two), blocks), (np.var(seeds_one), first.shape[1])]
    sample /= _uncertain_spread([*parts, (np.var(seeds_two), second.shape[1])], draws, random)
    observed = first.to_numpy(float).mean() - second.to_numpy(float).mean()
    tail = (1 - level) / 2
    # The basic interval: the error of the estimate is distributed as that of a sample's.
    high, low = observed - np.quantile(sample, [tail, 1 - tail])
    return Difference(
        annual=observed * days_per_year,
        low=low * days_per_year,
        high=high * days_per_year,
        p_value=float((1 + (np.abs(sample) >= abs(observed)).sum()) / (1 + draws)),
        level=level,
        days=days,
        seeds=(first.shape[1], second.shape[1]),
    )


def _check_pair(first: pd.DataFrame, second: pd.DataFrame, block: int) -> None:
    if not first.index.equals(second.index):
        odd = first.index.symmetric_difference(second.index)
        raise DataError(
            "paired comparison: the methods do not have the same days"
            + (f", the first difference is {odd[0]}." if len(odd) else " in the same order.")
        )
    for frame in (first, second):
        wrong = ~np.isfinite(frame.to_numpy(float)).all(axis=1)
        if wrong.any():
            raise DataError(f"paired comparison: the return on {frame.index[wrong][0]} is missing.")
    if len(first) <= block:
        raise DataError(
            f"paired comparison: {len(first)} days are fewer than two blocks of {block}; lower "
            "`block`."
        )


def _resampled(
    frame: pd.DataFrame, starts: np.ndarray, block: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Errors (draws,) of the mean return in samples of days and of seeds."""
    values = frame.to_numpy(float)
    days, seeds = values.shape
    draws, blocks = starts.shape
    means = values.mean(axis=0)
    # The sum of a circular block is a difference of running totals over the days, taken twice.
    totals = np.concatenate([np.zeros((1, seeds)), np.cumsum(np.vstack([values] * 2), axis=0)])
    lengths = np.full(blocks, block)
    lengths[-1] = days - block * (blocks - 1)
    sums = (totals[starts + lengths] - totals[starts]).sum(axis=1)
    # Deviations of samples of days and of seeds, enlarged since a sample's spread is too small.
    by_day = (sums / days - means) * math.sqrt(blocks / (blocks - 1))
    by_seed = (means - means.mean()) * (math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0)
    drawn = random.integers(seeds, size=(draws, seeds))
    return np.take_along_axis(by_day, drawn, axis=1).mean(axis=1), by_seed[drawn].mean(axis=1)


def _uncertain_spread(
    parts: list[tuple[float, int]], draws: int, random: np.random.Generator
) -> np.ndarray:
    """Draws of √(χ²_ν/ν), (draws,), for a sum of ``parts``: variance, and from how many values."""
    known = [(variance, count - 1) for variance, count in parts if variance > 0 and count > 1]
    if not known:
        return np.ones(draws)
    total = sum(variance for variance, _ in known)
    freedom = 1 / sum((variance / total) ** 2 / count for variance, count in known)
    return np.sqrt(random.chisquare(freedom, draws) / freedom)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several comparisons, corrected for their number (Holm, 1979).

    Each is at most 1, and the order of the comparisons is kept.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected, largest = {}, 0.0
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}
