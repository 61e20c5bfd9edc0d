"""Daily returns from closing prices, with suspended days and the gaps they leave."""

from __future__ import annotations

import numpy as np

from ..errors import DataError


def daily_returns(close: np.ndarray) -> np.ndarray:
    """Simple return of each name on each day, over its last two observed closes.

    A day without a close (suspended, not listed) has no return. The first close after such days
    carries the whole return since the last one, attributed to the day of resumption: that is when
    a holder sees it. A name's first close has no return.

    Parameters
    ----------
    close : (T, N) adjusted closing prices, NaN where there is none.

    Returns
    -------
    (T, N) float64, fractions per day, NaN where there is none.

    Raises
    ------
    DataError
        A close is infinite, zero or negative.

    >>> daily_returns(np.array([[10.0], [np.nan], [11.0]])).round(6).ravel().tolist()
    [nan, nan, 0.1]
    """
    close = np.asarray(close, dtype=np.float64)
    if close.ndim != 2:
        raise DataError(f"closes must be a (T, N) array, got shape {close.shape}.")
    observed = ~np.isnan(close)
    wrong = observed & ~((close > 0) & np.isfinite(close))
    if wrong.any():
        day, name = np.argwhere(wrong)[0]
        raise DataError(
            f"{wrong.sum()} closes are not positive finite prices, the first on day {day} for name "
            f"{name}: {close[day, name]}. Set them to NaN; `bpqp data check` lists them."
        )
    day = np.where(observed, np.arange(len(close))[:, None], -1)
    last = np.full_like(day, -1)
    np.maximum.accumulate(day[:-1], axis=0, out=last[1:])
    previous = np.take_along_axis(close, np.maximum(last, 0), axis=0)
    return np.where(last >= 0, close / previous - 1, np.nan)
