"""Daily returns: gaps, first closes, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.errors import DataError
from bpqp_portfolio.risk import daily_returns

NAN = np.nan


def test_gap_goes_to_the_day_of_resumption():
    close = np.array([[NAN, 10.0], [10.0, 11.0], [NAN, NAN], [NAN, NAN], [12.0, 22.0], [9.0, NAN]])
    expected = np.array([[NAN, NAN], [NAN, 0.1], [NAN, NAN], [NAN, NAN], [0.2, 1.0], [-0.25, NAN]])
    np.testing.assert_allclose(daily_returns(close), expected, rtol=1e-14)


def test_agrees_with_pandas_on_random_gaps():
    rng = np.random.default_rng(0)
    close = np.exp(rng.normal(0, 0.02, (80, 7)).cumsum(axis=0)).astype(np.float32)
    close[rng.random(close.shape) < 0.3] = NAN
    frame = pd.DataFrame(close.astype(float))
    expected = (frame / frame.ffill().shift() - 1).to_numpy()
    np.testing.assert_allclose(daily_returns(close), expected, rtol=1e-13, atol=1e-15)
    assert daily_returns(close).dtype == np.float64


def test_compounds_to_the_whole_move():
    close = np.array([[5.0], [NAN], [6.0], [7.0], [NAN], [4.0]])
    assert np.nanprod(1 + daily_returns(close)) == pytest.approx(0.8, rel=1e-14)


def test_the_future_does_not_matter():
    rng = np.random.default_rng(1)
    close = rng.uniform(1, 2, (30, 4))
    changed = close.copy()
    changed[20:] *= 3
    assert np.array_equal(daily_returns(close)[:20], daily_returns(changed)[:20], equal_nan=True)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf])
def test_impossible_closes_are_refused(bad):
    close = np.ones((4, 3))
    close[2, 1] = bad
    with pytest.raises(DataError, match=r"1 closes .* day 2 for name 1.*bpqp data check"):
        daily_returns(close)


def test_shape_is_checked():
    with pytest.raises(DataError, match=r"\(T, N\)"):
        daily_returns(np.ones(5))
