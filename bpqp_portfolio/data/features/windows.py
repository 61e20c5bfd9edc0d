"""Statistics of the last d days of many series, for several lengths d in one pass over the lags.

A window's sums are Σ f(x_{t−l}, x_t) over the lags l = 0 … d − 1. They are added up lag by lag, for
all days and names at once, and copied where a length is reached: each day starts afresh and adds in
one order, so its value is the same bit for bit however many days are computed with it. Moments are
taken around today's value x_t, which keeps variances and slopes from cancelling (Chan, Golub and
LeVeque 1983, "Algorithms for computing the sample variance").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, ...]
# Series (T, n), the window lengths, and (n,) the first stored day of each name; statistics (T, n).
Family = Callable[[Sequence[np.ndarray], Sequence[int], np.ndarray], dict[int, Arrays]]
Statistics = Callable[..., Arrays]

# Qlib takes a standard deviation below this for zero, at any scale of the series.
FLAT = 2e-5


def shift(values: np.ndarray, lag: int) -> np.ndarray:
    """``values`` of ``lag`` days ago (ahead, where negative), NaN where there are none.

    >>> shift(np.array([1.0, 2.0, 3.0]), 1)
    array([nan,  1.,  2.])
    """
    out = np.full_like(values, np.nan)
    if lag >= 0:
        out[lag:] = values[: len(values) - lag if lag < len(values) else 0]
    else:
        out[:lag] = values[-lag:]
    return out


def _lags(days: int, sizes: Sequence[int]) -> Sequence[int]:
    return range(min(max(sizes), days))


def _snapshots(
    days: int, sizes: Sequence[int], sums: Arrays, step: Callable[[int, slice, slice], None]
) -> dict[int, Arrays]:
    """Copies of ``sums`` after the lags of each window; ``step`` adds one lag to them.

    ``step(lag, today, past)``: rows ``past`` are those of ``lag`` days before rows ``today``.
    """
    out = {}
    lags = _lags(days, sizes)
    for lag in lags:
        step(lag, slice(lag, None), slice(0, days - lag))
        if lag + 1 in sizes:
            out[lag + 1] = tuple(s.copy() for s in sums)
    for size in sizes:
        out.setdefault(size, sums)
    return out


def _finite(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values as float64 with zero where there is none, and where there is one as 0 or 1."""
    seen = np.isfinite(x)
    return np.where(seen, x, 0.0).astype(np.float64), seen.astype(np.float64)


def _total(series: Sequence[np.ndarray], sizes: Sequence[int], _: np.ndarray) -> dict[int, Arrays]:
    """Count and sum of the values."""
    x, seen = _finite(series[0])
    count, total = np.zeros_like(x), np.zeros_like(x)

    def step(_: int, today: slice, past: slice) -> None:
        count[today] += seen[past]
        total[today] += x[past]

    return _snapshots(len(x), sizes, (count, total), step)


def _spread(series: Sequence[np.ndarray], sizes: Sequence[int], _: np.ndarray) -> dict[int, Arrays]:
    """Count, and sums of the differences from the last value and of their squares."""
    x, seen = _finite(series[0])
    count, total, square = (np.zeros_like(x) for _ in range(3))

    def step(_: int, today: slice, past: slice) -> None:
        difference = (x[past] - x[today]) * seen[past]
        count[today] += seen[past]
        total[today] += difference
        square[today] += difference * difference

    return _snapshots(len(x), sizes, (count, total, square), step)


def _line(series: Sequence[np.ndarray], sizes: Sequence[int], _: np.ndarray) -> dict[int, Arrays]:
    """Sums of a regression on time, with today's time and value as the origin.

    Count; Σi, Σi², Σy, Σiy, Σy² for i = −lag; and whether today has a value.
    """
    x, seen = _finite(series[0])
    sums = tuple(np.zeros_like(x) for _ in range(6))

    def step(lag: int, today: slice, past: slice) -> None:
        y = (x[past] - x[today]) * seen[past]
        terms = (1, -lag, lag * lag)
        for total, factor in zip(sums[:3], terms, strict=True):
            total[today] += factor * seen[past]
        sums[3][today] += y
        sums[4][today] -= lag * y
        sums[5][today] += y * y

    out = _snapshots(len(x), sizes, sums, step)
    return {size: (*arrays, seen) for size, arrays in out.items()}


def _pair(series: Sequence[np.ndarray], sizes: Sequence[int], _: np.ndarray) -> dict[int, Arrays]:
    """Count, and first and second moments around today's values, of days that have both."""
    both = np.isfinite(series[0]) & np.isfinite(series[1])
    x, y = (np.where(both, s, 0.0).astype(np.float64) for s in series)
    seen = both.astype(np.float64)
    sums = tuple(np.zeros_like(x) for _ in range(6))

    def step(_: int, today: slice, past: slice) -> None:
        u, v = (x[past] - x[today]) * seen[past], (y[past] - y[today]) * seen[past]
        terms = (seen[past], u, v, u * u, v * v, u * v)
        for total, term in zip(sums, terms, strict=True):
            total[today] += term

    return _snapshots(len(x), sizes, sums, step)


def _extreme(which: np.ufunc, better: np.ufunc) -> Family:
    """Largest or smallest value of the window, and how many days ago; a tie is the oldest.

    As numpy's argmax on a window with gaps, the oldest stored day without a value comes first.
    """

    def family(
        series: Sequence[np.ndarray], sizes: Sequence[int], first: np.ndarray
    ) -> dict[int, Arrays]:
        x = series[0].astype(np.float64)
        x[np.isinf(x)] = np.nan
        gap = np.isnan(x) & (np.arange(len(x))[:, None] >= first)
        value, ago = np.full_like(x, np.nan), np.zeros_like(x)
        missing = np.zeros(x.shape, dtype=bool)

        def step(lag: int, today: slice, past: slice) -> None:
            beats = better(x[past], value[today]) | (np.isnan(value[today]) & ~np.isnan(x[past]))
            ago[today] = np.where(gap[past] | (beats & ~missing[today]), lag, ago[today])
            missing[today] |= gap[past]
            value[today] = which(value[today], x[past])

        out = _snapshots(len(x), sizes, (value, ago), step)
        age = np.arange(len(x))[:, None] - first + 1
        return {
            size: (best, np.where(np.isnan(best), np.nan, np.minimum(size, age) - days))
            for size, (best, days) in out.items()
        }

    return family


def _order(series: Sequence[np.ndarray], sizes: Sequence[int], _: np.ndarray) -> dict[int, Arrays]:
    """Count, and how many values are below and how many equal to today's."""
    x = series[0]
    seen = np.isfinite(x).astype(np.float64)
    sums = tuple(np.zeros(x.shape) for _ in range(3))

    def step(_: int, today: slice, past: slice) -> None:
        sums[0][today] += seen[past]
        sums[1][today] += x[past] < x[today]
        sums[2][today] += x[past] == x[today]

    out = _snapshots(len(x), sizes, sums, step)
    return {size: (*arrays, seen) for size, arrays in out.items()}


def _sorted(series: Sequence[np.ndarray], sizes: Sequence[int], _: np.ndarray) -> dict[int, Arrays]:
    """The values of the window in order (T, n, d), NaN last, and their count."""
    x = np.where(np.isinf(series[0]), np.nan, series[0])
    longest = max(sizes)
    padded = np.concatenate([np.full((longest - 1, x.shape[1]), np.nan, dtype=x.dtype), x])
    out: dict[int, Arrays] = {}
    for size in sizes:
        view = np.lib.stride_tricks.sliding_window_view(padded[longest - size :], size, axis=0)
        ordered = np.sort(view, axis=-1)
        out[size] = (ordered, np.isfinite(ordered).sum(-1))
    return out


FAMILIES: dict[str, Family] = {
    "total": _total,
    "spread": _spread,
    "line": _line,
    "pair": _pair,
    "largest": _extreme(np.fmax, np.greater_equal),
    "smallest": _extreme(np.fmin, np.less_equal),
    "order": _order,
    "sorted": _sorted,
}


def _mean(statistics: Statistics) -> np.ndarray:
    count, total = statistics("total")
    return np.where(count > 0, total / count, np.nan)


def _sum(statistics: Statistics) -> np.ndarray:
    count, total = statistics("total")
    return np.where(count > 0, total, np.nan)


def _deviation(statistics: Statistics, *which: int) -> np.ndarray:
    count, total, square = statistics("spread", *which)
    variance = np.maximum(square - total * total / count, 0.0) / (count - 1)
    return np.where(count > 1, np.sqrt(variance), np.nan)


def _covariation(n: Any, sx: Any, sy: Any, sxy: Any) -> np.ndarray:
    return n * sxy - sx * sy


def _slope(statistics: Statistics) -> np.ndarray:
    n, i, ii, y, iy, _, _ = statistics("line")
    return _covariation(n, i, y, iy) / _covariation(n, i, i, ii)


def _residual(statistics: Statistics) -> np.ndarray:
    n, i, _, y, _, _, seen = statistics("line")
    return np.where(seen > 0, _slope(statistics) * (i / n) - y / n, np.nan)


def _r_square(statistics: Statistics) -> np.ndarray:
    n, i, ii, y, iy, yy, _ = statistics("line")
    square = _covariation(n, i, y, iy) ** 2
    result = square / (_covariation(n, i, i, ii) * _covariation(n, y, y, yy))
    return np.where(_deviation(statistics) <= FLAT, np.nan, result)


def _correlation(statistics: Statistics) -> np.ndarray:
    n, x, y, xx, yy, xy = statistics("pair")
    spread = _covariation(n, x, x, xx) * _covariation(n, y, y, yy)
    flat = (_deviation(statistics, 0) <= FLAT) | (_deviation(statistics, 1) <= FLAT)
    return np.where(flat | (n < 2), np.nan, _covariation(n, x, y, xy) / np.sqrt(spread))


def _rank(statistics: Statistics) -> np.ndarray:
    count, below, equal, seen = statistics("order")
    return np.where(seen > 0, (below + (equal + 1) / 2) / count, np.nan)


def _quantile(statistics: Statistics, q: float) -> np.ndarray:
    ordered, count = statistics("sorted")
    position = q * np.maximum(count - 1, 0)
    below = position.astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low, high = (
        np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0].astype(np.float64)
        for at in (below, above)
    )
    return np.where(position == below, low, low + (high - low) * (position - below))


class Operator(NamedTuple):
    """A rolling operator: how many series it takes, and its value from their statistics."""

    inputs: int
    result: Callable[..., np.ndarray]


ROLLING: dict[str, Operator] = {
    "Mean": Operator(1, _mean),
    "Sum": Operator(1, _sum),
    "Std": Operator(1, _deviation),
    "Slope": Operator(1, _slope),
    "Resi": Operator(1, _residual),
    "Rsquare": Operator(1, _r_square),
    "Corr": Operator(2, _correlation),
    "Max": Operator(1, lambda statistics: statistics("largest")[0]),
    "Min": Operator(1, lambda statistics: statistics("smallest")[0]),
    "IdxMax": Operator(1, lambda statistics: statistics("largest")[1]),
    "IdxMin": Operator(1, lambda statistics: statistics("smallest")[1]),
    "Rank": Operator(1, _rank),
    "Quantile": Operator(1, _quantile),
}
