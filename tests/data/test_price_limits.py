"""Price limits by board and date."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.markets.price_limits import free_sessions, price_limit, price_limits


@pytest.mark.parametrize(
    ("instrument", "date", "limit"),
    [
        ("SH600000", "2015-06-01", 0.10),
        ("sh601318", "2022-12-30", 0.10),
        ("SZ000001", "1996-12-16", 0.10),
        ("SZ000001", "1996-12-13", np.nan),
        ("SZ002466", "2020-09-01", 0.10),
        ("SZ300750", "2020-08-21", 0.10),
        ("SZ300750", "2020-08-24", 0.20),
        ("SH688981", "2020-08-03", 0.20),
        ("SH688001", "2019-07-22", 0.20),
        ("BJ430047", "2022-01-04", 0.30),
        ("SH000300", "2015-06-01", np.nan),
        ("SZ399300", "2015-06-01", np.nan),
        ("SH510300", "2015-06-01", np.nan),
        ("AAPL", "2015-06-01", np.nan),
        ("SIM0001", "2015-06-01", np.nan),
    ],
)
def test_limit(instrument, date, limit):
    np.testing.assert_equal(price_limit(instrument, date), limit)


def test_table_of_limits():
    dates = pd.DatetimeIndex(["2020-08-21", "2020-08-24"])
    limits = price_limits(["SZ300750", "SH600000", "AAPL"], dates)
    np.testing.assert_equal(limits, [[0.1, 0.1, np.nan], [0.2, 0.1, np.nan]])
    assert price_limits([], dates).shape == (2, 0)
    assert price_limits(["SH600000"], []).shape == (0, 1)


@pytest.mark.parametrize(
    ("instrument", "listed", "sessions"),
    [
        ("SH688981", "2020-07-16", 5),
        ("SZ300999", "2020-10-15", 5),
        ("SZ300750", "2018-06-11", 1),
        ("SH601138", "2018-06-08", 1),
        ("SH601061", "2023-04-10", 5),
        ("AAPL", "2018-06-08", 0),
    ],
)
def test_first_sessions_without_a_limit(instrument, listed, sessions):
    assert free_sessions(instrument, listed) == sessions
