"""A risk model for every day of a changing universe, from the days before it and nothing else.

For day t, with the window X (L, n) of the last L returns up to t of the day's members:

1. names with fewer than ``min_history`` returns in the window are left out;
2. each name's returns are clipped to fences around its quartiles (Tukey 1977);
3. the risk model estimates Σ_t = B_t B_tᵀ + diag(d_t) on them;
4. signs of the factors are fixed, and d_t is raised to a floor, since solvers divide by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, cpu_count, delayed
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ..config import check_number
from ..errors import DataError
from .config import RiskConfig
from .registry import build_risk_model

CHUNK = 64  # days that a worker process takes at once
DAYS_PER_JOB = 256  # below this, starting one more process costs more than it saves


@dataclass(frozen=True)
class RiskPanel:
    """Σ = B Bᵀ + diag(d) for D days of a universe; R rows, one for each member name on each day.

    Rows ``offsets[i]:offsets[i + 1]`` belong to ``days[i]``, names ascending. Rows of names that
    are not modelled that day hold NaN.

    Attributes
    ----------
    days : (D,) day indices, as requested.
    offsets : (D + 1,) first row of each day.
    names : (R,) column of the name in the returns.
    loadings : (R, k) B, float64, per day. The sign of each column makes its largest entry
        positive. Sign, order and rotation of factors do not carry over from one day to the next;
        only Σ does.
    specific : (R,) d > 0, float64, per day².
    modelled : (R,) bool: had the name enough history?
    floored : (D,) the number of the day's names whose specific variance was raised to the floor.
    """

    days: np.ndarray
    offsets: np.ndarray
    names: np.ndarray
    loadings: np.ndarray
    specific: np.ndarray
    modelled: np.ndarray
    floored: np.ndarray

    def rows(self, i: int) -> slice:
        """Rows of the i-th requested day."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def covariance(self, i: int) -> np.ndarray:
        """Dense Σ of the modelled names of the i-th requested day, per day²."""
        keep = self.modelled[self.rows(i)]
        loadings = self.loadings[self.rows(i)][keep]
        return loadings @ loadings.T + np.diag(self.specific[self.rows(i)][keep])


def rolling_risk(
    returns: np.ndarray,
    member: np.ndarray,
    days: Sequence[int] | np.ndarray,
    config: RiskConfig | None = None,
    *,
    jobs: int | None = None,
    progress: bool = True,
    labels: Sequence | None = None,
) -> RiskPanel:
    """Estimate the risk model of each requested day on the window that ends with it.

    Day t uses the returns of days t − window + 1 to t of the names that are members on day t,
    and nothing else; the result for a day depends neither on the other days nor on ``jobs``.

    Parameters
    ----------
    returns : (T, N) fractions per day, NaN where unobserved or excluded.
    member : (T, N) bool, the universe on each day.
    days : indices into T.
    config : defaults to ``RiskConfig()``.
    jobs : processes; None takes one for each core, and fewer for few days.
    progress : show a bar where the output is a terminal.
    labels : (T,) what to call the days in errors, dates for example.

    Raises
    ------
    DataError
        Shapes do not match, a return is infinite, a day is outside T, has no more modelled names
        than factors, or its returns leave nothing specific to estimate.
    """
    config = RiskConfig() if config is None else config
    returns, member, days = _checked(returns, member, days)
    if jobs is None:
        jobs = min(cpu_count(), 1 + len(days) // DAYS_PER_JOB)
    check_number(jobs, "jobs", low=1, integer=True)

    # Step 1: names with enough returns in the window of the day.
    modelled = member[days] & (_history(returns, days, config.window) >= config.min_history)
    for day, count in zip(days, modelled.sum(axis=1), strict=True):
        if count <= config.factors:
            raise DataError(
                f"day {_label(day, labels)}: {count} of {member[day].sum()} names have at least "
                f"{config.min_history} returns in the {config.window} days up to it, and "
                f"{config.factors} factors need more than {config.factors}. Start later, lower "
                "`min_history` or `factors`, or check the universe and the exclusions."
            )

    # One row for each member on each day; rows of names that are not modelled stay NaN.
    member_days = member[days]
    offsets = np.concatenate([[0], member_days.sum(axis=1).cumsum()])
    names = np.nonzero(member_days)[1]
    row_modelled = modelled[member_days]
    loadings = np.full((len(names), config.factors), np.nan)
    specific = np.full(len(names), np.nan)
    floored = np.zeros(len(days), dtype=np.int64)

    # Steps 2 to 4 of each day, in chunks of days that processes take.
    series = np.ascontiguousarray(returns.T)  # a name's window is contiguous
    chunks = [range(i, min(i + CHUNK, len(days))) for i in range(0, len(days), CHUNK)]
    results = Parallel(n_jobs=int(jobs), return_as="generator")(
        delayed(_estimate_days)(
            series,
            [(int(days[i]), np.flatnonzero(modelled[i]), _label(days[i], labels)) for i in chunk],
            config,
        )
        for chunk in chunks
    )
    bar = tqdm(total=len(days), desc="risk", unit="day", disable=None if progress else True)
    with bar:
        for chunk, result in zip(chunks, results, strict=True):
            for i, (day_loadings, day_specific, day_floored) in zip(chunk, result, strict=True):
                rows = np.arange(offsets[i], offsets[i + 1])
                rows = rows[row_modelled[rows]]
                loadings[rows], specific[rows], floored[i] = day_loadings, day_specific, day_floored
            bar.update(len(chunk))
    return RiskPanel(days, offsets, names, loadings, specific, row_modelled, floored)


def _checked(
    returns: np.ndarray, member: np.ndarray, days: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    returns, member = np.asarray(returns, dtype=np.float64), np.asarray(member)
    if returns.ndim != 2 or member.shape != returns.shape or member.dtype != bool:
        raise DataError(
            "returns and member must be (T, N) arrays of one shape, member boolean; got "
            f"{returns.shape} and {member.shape} of {member.dtype}."
        )
    if np.isinf(returns).any():
        day, name = np.argwhere(np.isinf(returns))[0]
        raise DataError(f"the return of day {day}, name {name} is infinite; make it NaN.")
    days = np.asarray(days)
    if days.ndim != 1 or (len(days) and not np.issubdtype(days.dtype, np.integer)):
        raise DataError(f"days must be a list of indices, got {days.dtype} of shape {days.shape}.")
    outside = (days < 0) | (days >= len(returns))
    if outside.any():
        raise DataError(f"day {days[outside][0]} is outside the {len(returns)} days of returns.")
    return returns, member, days.astype(np.int64)


def _history(returns: np.ndarray, days: np.ndarray, window: int) -> np.ndarray:
    """(D, N) observed returns of each name in each day's window."""
    total = np.zeros((len(returns) + 1, returns.shape[1]), dtype=np.int32)
    np.cumsum(~np.isnan(returns), axis=0, out=total[1:])
    return total[days + 1] - total[np.maximum(days + 1 - window, 0)]


def _label(day: int, labels: Sequence | None) -> str:
    return str(day) if labels is None else f"{labels[day]} (index {day})"


def _estimate_days(
    series: np.ndarray, tasks: list[tuple[int, np.ndarray, str]], config: RiskConfig
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(loadings, specific, floored) for each (day, names, label)."""
    model = build_risk_model(config.model, config.factors)
    results = []
    # One thread of linear algebra: its sums depend on the number of threads in the last bit.
    with threadpool_limits(limits=1, user_api="blas"):
        for day, names, label in tasks:
            window = series[names, max(day + 1 - config.window, 0) : day + 1]
            if config.winsorise is not None:
                window = winsorise(window, config.winsorise)
            try:
                loadings, specific = model.estimate(window.T)
                _refuse_infinite(loadings, specific)
                results.append((_canonical(loadings), *_floor(loadings, specific, config.floor)))
            except DataError as error:
                raise DataError(f"day {label}: {error}") from error
    return results


def winsorise(window: np.ndarray, fence: float) -> np.ndarray:
    """Clip each row of (n, L) to its quartiles ± ``fence`` interquartile ranges; NaN stay.

    Quartiles interpolate linearly between observed values. A row whose range is zero takes the
    median of the positive ranges; where there is none, nothing is clipped.

    >>> winsorise(np.array([[0.0, 1.0, 2.0, 3.0, 100.0]]), 3.0).tolist()
    [[0.0, 1.0, 2.0, 3.0, 9.0]]
    """
    ordered = np.sort(window, axis=1)  # NaN last
    count = np.isfinite(window).sum(axis=1)
    low, high = _quantile(ordered, count, 0.25), _quantile(ordered, count, 0.75)
    spread = high - low
    if not (spread > 0).any():
        return window
    spread = np.where(spread > 0, spread, np.median(spread[spread > 0]))
    return np.clip(window, (low - fence * spread)[:, None], (high + fence * spread)[:, None])


def _quantile(ordered: np.ndarray, count: np.ndarray, q: float) -> np.ndarray:
    position = q * (count - 1)
    below = position.astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    row = np.arange(len(ordered))
    lower = ordered[row, below]
    return lower + (position - below) * (ordered[row, above] - lower)


def _canonical(loadings: np.ndarray) -> np.ndarray:
    """The same factors, each with its sign chosen so that its largest loading is positive."""
    largest = np.abs(loadings).argmax(axis=0)
    return loadings * np.where(loadings[largest, np.arange(loadings.shape[1])] < 0, -1.0, 1.0)


def _refuse_infinite(loadings: np.ndarray, specific: np.ndarray) -> None:
    wrong = ~(np.isfinite(loadings).all(axis=1) & np.isfinite(specific))
    if wrong.any():
        raise DataError(
            f"the estimate for name {wrong.argmax()} of the window ({wrong.sum()} such names) is "
            "not finite: look for returns that are constant or beyond all measure."
        )


def _floor(loadings: np.ndarray, specific: np.ndarray, fraction: float) -> tuple[np.ndarray, int]:
    """Specific variances of at least ``fraction`` of their median, and how many were raised."""
    median = np.median(specific)
    total = np.median(np.square(loadings).sum(axis=1) + specific)
    if not median > 1e-12 * total:
        raise DataError(
            f"the factors explain all the variance of half of the {len(specific)} names, which "
            "leaves no specific variance: lower `factors`, or look for constant or equal returns."
        )
    low = specific < fraction * median
    return np.where(low, fraction * median, specific), int(low.sum())
