"""Orders from wanted holdings: lots, odd shares, least orders and the cash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpqp_portfolio.backtest.lots import lot_trades
from bpqp_portfolio.portfolio.costs import TradingCosts

FREE = TradingCosts(0.0, 0.0, 0.0)
MAIN, STAR = "SH600000", "SH688001"


def trades(wanted, held, *, names=None, factor=None, price=None, cash=1e9, lot=100, costs=FREE):
    n = len(wanted)
    return lot_trades(
        np.array(names or [MAIN] * n),
        np.array(wanted, dtype=float),
        np.array(held, dtype=float),
        np.array(factor or [1.0] * n),
        np.array(price or [10.0] * n),
        cash,
        lot=lot,
        costs=costs,
    )


def test_lots_are_rounded_towards_no_trade_and_odd_shares_leave_with_the_name():
    got = trades([250, 950, 0, 333, 100], [0, 1200, 333, 333, 50])
    assert got.tolist() == [200, -200, -333, 0, 0]


def test_without_lots_everything_is_had():
    assert trades([250.5, 0.0], [0.0, 3.25], lot=None).tolist() == [250.5, -3.25]


def test_a_lot_is_of_the_exchanges_shares():
    """With 4 shares in a unit of the holding, 25 units are a lot."""
    assert trades([60.0, 24.0], [0, 0], factor=[4.0, 4.0]).tolist() == [50.0, 0.0]


def test_boards_have_their_least_order():
    assert trades([150, 150, 250], [0, 0, 0], names=[MAIN, STAR, STAR]).tolist() == [100, 0, 200]


def test_short_cash_cuts_purchases_in_proportion():
    got = trades([10_000, 30_000], [0, 0], cash=200_000)
    assert got.tolist() == [5_000, 15_000]


def test_a_sale_pays_for_a_purchase_less_its_costs():
    costs = TradingCosts(0.001, 0.01, 5.0)
    got = trades([0, 10_000], [10_000, 0], cash=0.0, costs=costs)
    # 99,000 are left of the sale; 9,900 shares would need 99,099.
    assert got.tolist() == [-10_000, 9_800]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.5, 500), st.floats(0.2, 30)),
        min_size=1,
        max_size=8,
    ),
    st.floats(0, 1e6),
    st.sampled_from([None, 1, 100]),
)
@example([(1.0, 0.0, 1.0, 1.0)], 1.0, None).via("the least fee is more than the cash")
def test_the_cash_is_never_overdrawn(rows, cash, lot):
    wanted, held, price, factor = (np.array(column) for column in zip(*rows, strict=True))
    costs = TradingCosts(0.0005, 0.0015, 5.0)
    got = trades(wanted, held, factor=list(factor), price=list(price), cash=cash, lot=lot,
                 costs=costs)  # fmt: skip
    value = got * price
    sold, fees = -value[value < 0].sum(), costs.of_orders(value)
    if sold >= fees[value < 0].sum():
        assert cash - value.sum() - fees.sum() >= -1e-6 * (1 + abs(cash) + sold)
    assert (held + got >= -1e-9).all()
    assert (np.abs(got) <= np.abs(wanted - held) * (1 + 1e-9) + 1e-9).all()


def test_fees_have_a_minimum_for_each_order():
    fees = TradingCosts(0.001, 0.002, 5.0).of_orders(np.array([100.0, -100.0, 1e6, -1e6, 0.0]))
    assert fees.tolist() == [5.0, 5.0, 1000.0, 2000.0, pytest.approx(0.0)]
