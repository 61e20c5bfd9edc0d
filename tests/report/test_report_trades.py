"""Trades of a run from its weights and returns: by hand, and against the backtest's own counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.report.trades import (
    AT_LOWER,
    AT_UPPER,
    OTHER,
    SUSPENDED,
    blocked_orders,
    trade_table,
)

DAYS = pd.bdate_range("2021-03-01", periods=4)
NAMES = ["A", "B", "C"]


def long(table: dict[str, list[float]], days: pd.DatetimeIndex) -> pd.DataFrame:
    wide = pd.DataFrame(table, days).rename_axis(index="datetime", columns="instrument")
    return wide.stack().rename("weight").reset_index()


@pytest.fixture
def small(changed):
    """An account that buys A and B, moves from A to C, and then sells nothing that it wants to."""
    returns = pd.DataFrame(0.0, DAYS, NAMES)
    returns.loc[DAYS[2]] = [0.10, -0.20, 0.05]
    # Day 1: half in each. Day 2: grown to .55 and .40 of the last account, cost .01, A into C.
    account = 0.95 - 0.01
    realised = long(
        {
            "A": [0.0, 0.5, 0.0, 0.0],
            "B": [0.0, 0.5, 0.40 / account, 0.40 / account],
            "C": [0.0, 0.0, 0.54 / account, 0.54 / account],
        },
        DAYS,
    )
    targets = long({"A": [0.5, 0.0, 0.0], "B": [0.5, 0.4, 1.0], "C": [0.0, 0.6, 0.0]}, DAYS[:3])
    daily = pd.DataFrame({"return": [0, 0, -0.05, 0], "cost": [0, 0, 0.01, 0]}, DAYS, dtype=float)
    tables = dict.fromkeys(("activity", "events", "implementation_shortfall"), pd.DataFrame())
    weights, kept = (table[table["weight"] > 0] for table in (targets, realised))
    return changed(daily=daily, weights=weights, realised=kept, **tables), returns


def test_trades_by_hand(small):
    results, returns = small
    table = trade_table(results, returns, 1.0)
    first, second, third = (table.xs(day, level=0) for day in DAYS[1:])
    np.testing.assert_allclose(first["traded"], [0.5, 0.5])
    np.testing.assert_allclose(second["traded"], [-0.55, 0.0, 0.54], atol=1e-12)
    np.testing.assert_allclose(second["held"], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(second["wanted"], [-0.5, -0.1, 0.6])
    assert (third["traded"] == 0).all()
    np.testing.assert_allclose(third["wanted"].sum(), 1 - 0.94 / 0.94, atol=1e-12)


def test_a_smaller_invested_part_wants_less(small):
    results, returns = small
    whole, part = (trade_table(results, returns, degree) for degree in (1.0, 0.9))
    change = (whole["wanted"] - part["wanted"]).xs(DAYS[1], level=0)
    np.testing.assert_allclose(change, [0.05, 0.05])


def test_each_order_that_did_nothing_has_its_reason(small):
    results, returns = small
    trades = trade_table(results, returns, 1.0)
    never = pd.DataFrame(False, DAYS, NAMES)
    least = pd.DataFrame(0.01, DAYS, NAMES)

    def reasons(suspended=never, upper=never, lower=never, smallest=least):
        table = blocked_orders(trades, smallest, suspended, upper, lower)
        return {(row.datetime, row.instrument): row.reason for row in table.itertuples()}

    def on(name):
        return never.assign(**{name: True})

    sale = (DAYS[2], "B")  # of a tenth, while nothing of B was traded
    buy, exit_ = (DAYS[3], "B"), (DAYS[3], "C")
    assert reasons() == dict.fromkeys((sale, buy, exit_), OTHER)
    assert reasons(suspended=on("B")) == {sale: SUSPENDED, buy: SUSPENDED, exit_: OTHER}
    # A limit stops the order in its direction alone.
    assert reasons(upper=on("B")) == {sale: OTHER, buy: AT_UPPER, exit_: OTHER}
    assert reasons(lower=on("B")) == {sale: AT_LOWER, buy: OTHER, exit_: OTHER}
    # What is wanted below the smallest order is none, and a name without a smallest order has none.
    assert set(reasons(smallest=least.assign(B=0.2))) == {buy, exit_}
    assert set(reasons(smallest=least[["A", "C"]])) == {exit_}
