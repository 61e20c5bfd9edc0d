"""The strategy in a backtest: decided on what is known, ordered in lots, traded a day later."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from qlib.backtest import backtest
from qlib_markets import connect, from_closes

from bpqp_portfolio.backtest.day_inputs import DayInputs
from bpqp_portfolio.backtest.implementation_shortfall import implementation_shortfall
from bpqp_portfolio.backtest.rebalance import BookRules
from bpqp_portfolio.markets.rules import market_rules
from bpqp_portfolio.portfolio.costs import TradingCosts
from bpqp_portfolio.portfolio.mandate.mandate import Mandate
from bpqp_portfolio.qlib_ext.exchange import BoardExchange
from bpqp_portfolio.qlib_ext.mandate_strategy import MandateStrategy

DAYS = pd.bdate_range("2021-03-01", periods=15)
NAMES = pd.Index(["SH600000", "SH600001", "SH600002", "SH600003", "SH688001"])
RISK = np.random.default_rng(5)
LOADINGS = 1e-2 + 3e-3 * RISK.standard_normal((5, 2))
FORECASTS = 3e-3 * RISK.standard_normal((15, 5))
CONFIG = {"risk_aversion": 5.0, "constraints": {"long_only": True, "max_weights": 0.4}}
COSTS = TradingCosts(0.0005, 0.0015, 5.0)


def closes() -> pd.DataFrame:
    """Prices that move by some 2 % a day."""
    moves = 0.02 * np.random.default_rng(4).standard_normal((15, 5))
    return pd.DataFrame(20 * np.exp(np.cumsum(moves, 0)), index=DAYS, columns=NAMES).round(2)


def run(folder, table, *, lot=100, costs=COSTS, account=1e6, risk_degree=0.95, config=CONFIG):
    """Plans by trading day, Qlib's report and positions, and the exchange."""
    provider = from_closes(folder, table)
    connect(provider.root, "cn")
    start, end = DAYS[0], DAYS[-2]
    exchange = BoardExchange(
        freq="day",
        start_time=start,
        end_time=end,
        codes=list(NAMES),
        deal_price="close",
        open_cost=costs.buy,
        close_cost=costs.sell,
        min_cost=costs.minimum,
        rules=market_rules("cn", {"lot": lot}),
    )
    price = exchange.table("$close", NAMES)
    upper, lower = (exchange.table(f, NAMES) for f in ("limit_buy", "limit_sell"))

    def inputs(date: pd.Timestamp) -> DayInputs | None:
        if date not in price.index:
            return None
        suspended = price.loc[date].isna().to_numpy()
        return DayInputs(
            date=date,
            names=NAMES.to_numpy(str),
            mu=np.where(suspended, np.nan, FORECASTS[DAYS.get_loc(date)]),
            loadings=LOADINGS,
            specific=np.full(5, 2e-4),
            variance=np.full(5, 4e-4),
            price=price.ffill().loc[date].to_numpy(),
            factor=np.ones(5),
            suspended=suspended,
            at_upper=upper.loc[date].to_numpy(bool) & ~suspended,
            at_lower=lower.loc[date].to_numpy(bool) & ~suspended,
            member=np.ones(5, dtype=bool),
            benchmark=np.full(5, 0.2),
            sector=np.array(["x", "x", "y", "y", "y"]),
        )

    plans: dict = {}
    options = {
        "mandate": Mandate.from_config(config),
        "inputs": inputs,
        "rules": BookRules(risk_degree, lot, costs),
        "plans": plans,
    }
    portfolio, _ = backtest(
        start_time=start,
        end_time=end,
        strategy={"class": MandateStrategy, "kwargs": options},
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        account=account,
        benchmark="IDX",
        exchange_kwargs={"exchange": exchange},
    )
    report, positions = portfolio["1day"]
    return plans, report, {pd.Timestamp(d): p for d, p in positions.items()}, exchange


def shares(position) -> dict[str, float]:
    return position.get_stock_amount_dict()


def test_a_decision_is_traded_a_day_later_from_what_is_held(tmp_path):
    plans, _, positions, _ = run(tmp_path / "m", closes())
    assert list(plans) == list(DAYS[1:-1])
    for before, day in itertools.pairwise(DAYS[:-1]):
        plan = plans[day]
        assert plan.date == before
        held = plan.table["held"]
        assert held[held > 0].to_dict() == pytest.approx(shares(positions[before]))
        value = positions[before].calculate_value()
        assert plan.account == pytest.approx(value, rel=1e-9)
        weights = plan.table["held"] * closes().loc[before, plan.table.index] / (0.95 * value)
        np.testing.assert_allclose(plan.table["previous"], weights, rtol=1e-6, atol=1e-12)


def test_orders_are_lots_that_the_cash_can_pay(tmp_path):
    plans, report, positions, _ = run(tmp_path / "m", closes(), risk_degree=1.0)
    assert (report["cash"] >= 0).all()
    for plan in plans.values():
        trade, price = plan.table["trade"], plan.table["price"]
        assert (plan.cash - (trade * price).sum() - COSTS.of_orders(trade * price).sum()) >= 0
    for position in positions.values():
        lots = np.array(list(shares(position).values())) / 100
        np.testing.assert_allclose(lots, lots.round(), atol=1e-6)
        assert shares(position).get("SH688001", 200) >= 100


def test_the_account_pays_the_mandates_costs(tmp_path):
    plans, report, _, _ = run(tmp_path / "m", closes())
    day = DAYS[1]
    trade = plans[day].table["trade"]
    paid = COSTS.of_orders(trade * closes().loc[day, trade.index])
    assert report.loc[day, "cost"] * 1e6 == pytest.approx(paid.sum(), rel=1e-5)


def test_nothing_before_a_change_of_the_future_moves(tmp_path):
    plans, *_ = run(tmp_path / "m", closes())
    later = closes()
    later.iloc[8:] *= np.random.default_rng(9).uniform(0.95, 1.05, (7, 5))
    changed, *_ = run(tmp_path / "n", later.round(2))
    for day in DAYS[1:9]:
        pd.testing.assert_frame_equal(plans[day].table, changed[day].table, check_exact=True)
    assert not plans[DAYS[9]].table["previous"].equals(changed[DAYS[9]].table["previous"])


def test_a_name_is_sold_at_its_upper_limit_and_bought_at_its_lower(tmp_path):
    """What is not known at the decision binds at the trade, in the order's direction alone."""
    plans, *_ = run(tmp_path / "m", closes())
    day = DAYS[6]
    trade = plans[day].table["trade"]
    for name in NAMES:
        for move in (0.2, -0.2) if name == "SH688001" else (0.1, -0.1):
            if trade.get(name, 0) == 0:
                continue
            table = closes()
            table.loc[day:, name] = table.loc[DAYS[5], name] * (1 + move)
            again, _, held, _ = run(tmp_path / f"{name}{move}", table)
            assert again[day].table["trade"][name] == trade[name]
            before, after = (shares(held[d]).get(name, 0.0) for d in (DAYS[5], day))
            blocked = np.sign(trade[name]) == np.sign(move)
            assert after - before == pytest.approx(0.0 if blocked else trade[name])
    assert (trade != 0).sum() >= 2


def test_a_suspended_name_keeps_its_shares_and_its_weight_in_the_problem(tmp_path):
    table = closes()
    _, _, positions, _ = run(tmp_path / "m", table)
    name = max(shares(positions[DAYS[5]]), key=shares(positions[DAYS[5]]).get)
    table.loc[DAYS[6:9], name] = np.nan
    plans, _, held, exchange = run(tmp_path / "n", table)
    amount = shares(held[DAYS[5]])[name]
    assert [shares(held[day])[name] for day in DAYS[5:9]] == pytest.approx([amount] * 4)
    # Known from the close of the sixth day on, before which an order may fail.
    for day in DAYS[7:9]:
        row = plans[day].table.loc[name]
        assert row["target"] == pytest.approx(row["previous"], abs=1e-12) and row["trade"] == 0
    gaps = implementation_shortfall(plans, held, exchange.table("$close", NAMES).ffill(), 0.95)
    wanted = plans[DAYS[6]].table.loc[name, "trade"]
    assert gaps.loc[DAYS[6], "unfilled"] == (wanted != 0)


def test_without_lots_costs_or_moves_the_target_is_had(tmp_path):
    flat = closes()
    flat[:] = 20.0
    free = TradingCosts(0.0, 0.0, 0.0)
    plans, _, held, exchange = run(tmp_path / "m", flat, lot=None, costs=free)
    gaps = implementation_shortfall(plans, held, exchange.table("$close", NAMES).ffill(), 0.95)
    assert gaps["gap"].max() < 1e-6


def test_realised_differs_from_target_by_its_parts(tmp_path):
    plans, _, held, exchange = run(tmp_path / "m", closes())
    prices = exchange.table("$close", NAMES).ffill()
    gaps = implementation_shortfall(plans, held, prices, 0.95)
    for day, plan in plans.items():
        got = pd.Series(shares(held[day])).reindex(plan.table.index).fillna(0.0)
        weight = got * prices.loc[day, got.index] / held[day].calculate_value()
        gap = (weight - 0.95 * plan.table["target"]).abs().sum()
        assert gaps.loc[day, "gap"] == pytest.approx(gap, rel=1e-9)
    returns = gaps[[c for c in gaps if c.startswith("gap_return_")]].sum(axis=1, skipna=False)
    np.testing.assert_allclose(returns, gaps["gap_return"], atol=1e-12)
