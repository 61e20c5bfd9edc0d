"""Order and target lists: whole shares, sales first, and orders that lead to the targets."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpqp_portfolio.backtest.holdings import read_holdings
from bpqp_portfolio.backtest.lots import account_after, lot_trades, settled
from bpqp_portfolio.backtest.rebalance import AT_UPPER_LIMIT, LEFT_UNIVERSE
from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.live.decision import in_shares
from bpqp_portfolio.live.formats.registry import FORMATS, check_format, listed
from bpqp_portfolio.live.formats.request import Request
from bpqp_portfolio.live.target import Target, as_shares, quoted
from bpqp_portfolio.portfolio.costs import TradingCosts

SUMMARY = {
    "date": "2020-01-03",
    "trade_on": "2020-01-06",
    "currency": "CNY",
    "lot": 100,
    "provider": "here",
    "left_out": {},
}
COSTS = TradingCosts(0.001, 0.002, 5.0)


def decision(held, wanted, price, cash=1e9, lot=100, reasons=None, **summary) -> Target:
    """A decision with its orders sized as the backtest sizes them."""
    names = np.array([f"SH60{i:04d}" for i in range(len(held))])
    arrays = (np.asarray(column, dtype=float) for column in (wanted, held, price))
    wanted, held, price = arrays
    trade = lot_trades(
        names, wanted, held, np.ones(len(held)), price, cash,
        lot=lot, costs=COSTS, whole_shares=True,
    )  # fmt: skip
    table = in_shares(pd.DataFrame({"held": held, "trade": trade}), lot)
    held, trade = table["held"].to_numpy(), table["trade"].to_numpy()
    columns = {
        "instrument": names,
        "weight": wanted * price / max(float(wanted @ price), 1e-9),
        "reason": reasons or [""] * len(names),
        "price": price,
        "shares": as_shares(held),
        "trade": as_shares(trade),
        "target_shares": as_shares(settled(held + trade)),
        "value": (held + trade) * price,
    }
    return Target(pd.DataFrame(columns), {**SUMMARY, "lot": lot, **summary})


def applied(target: Target) -> dict[str, float]:
    """What is held after the order list is traded."""
    held = dict(zip(target.table["instrument"], target.table["shares"], strict=True))
    for order in listed(target, "orders").rows.itertuples(index=False):
        held[order.code] += order.quantity if order.side == "BUY" else -order.quantity
    return {name: shares for name, shares in held.items() if abs(shares) > 1e-9}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 5000), st.floats(0, 5000)),
            st.one_of(st.just(0.0), st.floats(0, 5000)),
            st.floats(0.5, 500),
        ),
        min_size=1,
        max_size=7,
    ),
    st.floats(0, 1e6),
    st.sampled_from([None, 1, 100]),
)
@example([(1.5, 1e-9, 1.0)], 0.0, None).via("what is left is rounding")
def test_orders_lead_from_holdings_to_targets(rows, cash, lot):
    target = decision(*zip(*rows, strict=True), cash=cash, lot=lot)
    targets = listed(target, "targets").rows.set_index("code")["shares"]
    assert applied(target) == pytest.approx(targets[targets != 0].to_dict(), abs=2e-6)
    orders = listed(target, "orders").rows
    assert (orders["quantity"] > 0).all()
    sides = list(orders["side"])
    assert sides == sorted(sides, reverse=True)  # sales first
    if lot is not None:
        assert all(isinstance(q, int) for q in orders["quantity"].tolist())
        assert (orders.loc[orders["side"] == "BUY", "quantity"] % lot == 0).all()
    held = target.table.set_index("instrument")["shares"]
    sold = orders[orders["side"] == "SELL"].set_index("code")["quantity"]
    assert (sold <= held[sold.index]).all()
    # Purchases are paid by what is really sold; a sale may cost more than it brings.
    frame = target.table[["shares", "trade", "price"]].astype(float)
    after = account_after(*frame.to_numpy().T, cash, COSTS)["cash"]
    assert after >= -1e-6 or "BUY" not in sides


def test_purchases_are_paid_by_the_whole_shares_that_are_sold():
    held = [0.99] * 40 + [100.99, 0.0]
    target = decision(held, [0.0] * 41 + [500.0], [50.0] * 41 + [10.0], cash=50.0, lot=1)
    frame = target.table[["shares", "trade", "price"]].astype(float)
    assert account_after(*frame.to_numpy().T, 50.0, COSTS)["cash"] == pytest.approx(35.0)
    assert frame["trade"].tolist() == [0.0] * 40 + [-100.0, 500.0]


def test_an_odd_lot_is_sold_with_its_name_and_bought_never():
    target = decision([1250, 333, 0], [1000, 0, 260], [10.0, 20.0, 5.0])
    orders = listed(target, "orders", Request("A-17")).rows
    assert orders.to_csv(index=False, lineterminator="\n") == (
        "date,side,quantity,code,reference_price,currency,account\n"
        "2020-01-06,SELL,200,SH600000,10.0,CNY,A-17\n"
        "2020-01-06,SELL,333,SH600001,20.0,CNY,A-17\n"
        "2020-01-06,BUY,200,SH600002,5.0,CNY,A-17\n"
    )
    targets = listed(target, "targets").rows
    assert targets["shares"].tolist() == [1050, 0, 200]  # the last is given up, and says so
    assert targets["date"].unique() == ["2020-01-03"]
    rows = json.loads(target.to_json())["table"]
    assert '"trade": -333,' in target.to_json()
    assert [type(row[c]) for row in rows for c in ("shares", "trade")] == [int] * 6


def test_a_market_without_lots_trades_fractions():
    orders = listed(decision([0.0, 2.5], [1.25, 0], [10.0, 8.0], lot=None), "orders").rows
    assert orders["quantity"].tolist() == [2.5, 1.25]


def test_a_fraction_of_a_share_stays_where_the_market_has_whole_ones():
    target = decision([10.5, 0.25], [0.0, 0.0], [10.0, 8.0], lot=1)
    listing = listed(target, "orders")
    assert listing.rows["quantity"].tolist() == [10]
    assert listing.notes == (
        "not sold: 0.5 of a share of SH600000, since the market trades whole shares",
        "not sold: 0.25 of a share of SH600001, since the market trades whole shares",
    )
    assert target.table["target_shares"].tolist() == [0.5, 0.25]
    assert applied(target) == {"SH600000": 0.5, "SH600001": 0.25}


def test_a_fraction_that_stays_is_said_of_partial_sales_and_purchases_too():
    held, wanted = [100.5, 3.25, 2.75, 6.5], [50.0, 150.0, 2.75, 6.5]
    reasons = ["", "", "", AT_UPPER_LIMIT]
    listing = listed(decision(held, wanted, [10.0] * 4, lot=1, reasons=reasons), "orders")
    assert listing.rows["quantity"].tolist() == [50, 146]
    assert listing.notes == (
        f"no order: SH600003 ({AT_UPPER_LIMIT}, 6.5 shares are kept)",
        "not sold: 0.5 of a share of SH600000, since the market trades whole shares",
        "not sold: 0.25 of a share of SH600001, since the market trades whole shares",
        "not sold: 0.75 of a share of SH600002, since the market trades whole shares",
    )
    assert not listed(decision([2.5], [1.5], [10.0], lot=None), "orders").notes


@pytest.mark.parametrize("name", ["orders", "targets"])
def test_an_empty_currency_is_said(name):
    listing = listed(decision([0], [100], [10.0], currency=None), name)
    assert listing.rows["currency"].isna().all()
    assert len(listing.notes) == 1 and "currency: the column is empty, since" in listing.notes[0]
    assert not listed(decision([0], [100], [10.0]), name).notes


@pytest.mark.parametrize("saturday", ["2020-01-04", "2020-01-11"])
def test_orders_are_not_dated_on_a_weekend(saturday):
    target = decision([0], [100], [10.0], trade_on=None)
    monday = pd.Timestamp(saturday) + pd.Timedelta(days=2)
    for day, name in ((saturday, "Saturday"), (f"{monday - pd.Timedelta(days=1):%F}", "Sunday")):
        with pytest.raises(ConfigError, match=f"{day} is a {name}.* Monday is {monday:%F}"):
            listed(target, "orders", Request(trade_date=day))
    known = decision([0], [100], [10.0], trade_on=saturday)  # a session of the calendar
    assert set(listed(known, "orders", Request(trade_date=saturday)).rows["date"]) == {saturday}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("idx,5", "line 2: IDX is the index that the run is compared with"),
        ("AAA,1_000", "line 2: '1_000' is no number of shares"),
    ],
)
def test_holdings_of_an_index_and_digits_with_underscores_are_refused(tmp_path, line, message):
    for code in ("aaa", "idx"):
        (tmp_path / "features" / code).mkdir(parents=True)
    file = tmp_path / "holdings.csv"
    file.write_text(f"instrument,shares\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_holdings(file, Provider(tmp_path), "IDX")
    file.write_text("instrument,shares\nIDX,5\n")
    assert read_holdings(file, Provider(tmp_path)) == {"IDX": 5.0}


@pytest.mark.parametrize("price", [0.285826, 1.23456, 99.99, 10.14, 78.729])
def test_prices_are_written_with_the_digits_they_have(price):
    assert quoted(pd.Series([float(np.float32(price))]))[0] == price


def test_a_name_that_cannot_trade_has_no_order_and_a_reason():
    reasons = ["suspended: last close on 2020-01-02", AT_UPPER_LIMIT, LEFT_UNIVERSE]
    target = decision([700, 0, 30], [700, 0, 0], [10.0, 20.0, 5.0], reasons=reasons)
    listing = listed(target, "orders")
    assert listing.rows["code"].tolist() == ["SH600002"]
    assert listing.notes == (
        "no order: SH600000 (suspended: last close on 2020-01-02, 700 shares are kept)",
        f"no order: SH600001 ({AT_UPPER_LIMIT})",
    )
    assert listing.title == "1 order: 1 sale of 150.00 CNY, 0 purchases of 0.00 CNY"


def test_the_day_of_the_orders_is_known_or_has_to_be_said():
    known = decision([0], [100], [10.0])
    unknown = decision([0], [100], [10.0], trade_on=None)
    assert listed(known, "orders").rows["date"].tolist() == ["2020-01-06"]
    said = listed(unknown, "orders", Request(trade_date="2020-01-07"))
    assert said.rows["date"].tolist() == ["2020-01-07"]
    with pytest.raises(ConfigError, match=r"here ends on 2020-01-03.*--trade-date.*day_future"):
        listed(unknown, "orders")
    with pytest.raises(ConfigError, match="trading day after 2020-01-03 is 2020-01-06"):
        listed(known, "orders", Request(trade_date="2020-01-07"))
    with pytest.raises(ConfigError, match="2020-01-03 is not after 2020-01-03"):
        listed(unknown, "orders", Request(trade_date="2020-01-03"))
    for wrong in ("06.01.2020", "20200106", "soon"):
        with pytest.raises(ConfigError, match=f"'{wrong}' is no date of the form YYYY-MM-DD"):
            Request(trade_date=wrong)


def test_without_an_account_there_are_targets_and_no_orders():
    table = decision([0, 5], [100, 0], [10.0, 2.0]).table[["instrument", "weight", "reason"]]
    target = Target(table, SUMMARY)
    rows = listed(target, "targets").rows
    assert rows["code"].tolist() == ["SH600000"] and rows["shares"].isna().all()
    with pytest.raises(ConfigError, match=r"give --cash, and --holdings .* --format targets"):
        listed(target, "orders")
    with pytest.raises(ConfigError, match=r"unknown format 'order'\. Did you mean 'orders'"):
        check_format("order", has_account=True)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_and_read_back(name, tmp_path):
    target = decision([300, 0], [0, 500], [10.0, 7.77])
    listing = listed(target, name, Request("NA"))
    listing.write(tmp_path / "deep" / "file.csv")
    read = pd.read_csv(tmp_path / "deep" / "file.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(read, listing.rows, check_dtype=False)
    assert listing.title


@given(st.integers(1, 10**7), st.floats(0.01, 50))
def test_quoted_prices_are_those_of_the_exchange(cents, factor):
    """Stored in single precision as the adjusted close and its factor."""
    price = cents / 100
    stored = np.float32(price * factor) / float(np.float32(factor))
    shown = quoted(pd.Series([float(stored)]))[0]
    assert shown == pytest.approx(price, rel=3e-7)
    if price < 1000:
        assert shown == pytest.approx(price, abs=2e-4)
