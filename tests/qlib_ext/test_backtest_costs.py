"""The backtest's costs, where none are given, are those of orders."""

from __future__ import annotations

from bpqp_portfolio.portfolio.costs import TradingCosts
from bpqp_portfolio.qlib_ext.records import BacktestConfig


def test_the_backtest_and_the_orders_have_the_same_costs():
    settings = BacktestConfig(risk_degree=0.99)
    assert TradingCosts(settings.open_cost, settings.close_cost, settings.min_cost) == (
        TradingCosts()
    )
    assert (settings.open_cost, settings.close_cost, settings.min_cost) == (0.0005, 0.0015, 5.0)
