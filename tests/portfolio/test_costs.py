"""What orders cost: rates, the least fee, and that none has a default."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.portfolio.costs import TradingCosts
from bpqp_portfolio.portfolio.problem import ProblemConfig


def test_an_order_costs_its_rate_and_5_at_least():
    """5 of 10,000 to buy and 15 to sell; the least fee is that of 10,000 bought or 3,333 sold."""
    fees = TradingCosts(0.0005, 0.0015, 5.0).of_orders(
        np.array([1_000, 10_000, 20_000, -1_000, -20_000, 0.0])
    )
    np.testing.assert_allclose(fees, [5, 5, 10, 5, 30, 0])


def test_without_a_least_fee_the_rate_is_all():
    fees = TradingCosts(0.001, 0.002, 0.0).of_orders(np.array([10.0, -10.0]))
    np.testing.assert_allclose(fees, [0.01, 0.02])


def test_a_rate_in_per_cent_is_refused():
    TradingCosts(0.1, 0.1, 0.0)
    for rates in ((0.15, 0.0), (0.0, 0.15), (-0.001, 0.0), (0.0, -0.001)):
        with pytest.raises(ConfigError, match=r"buy|sell"):
            TradingCosts(*rates, 0.0)
    with pytest.raises(ConfigError, match="minimum"):
        TradingCosts(0.0, 0.0, -1.0)


def test_no_cost_is_assumed():
    for given in ({}, {"buy": 0.01}, {"buy": 0.01, "sell": 0.01}):
        with pytest.raises(TypeError, match="minimum"):
            TradingCosts(**given)


def test_a_problem_pays_the_mean_of_both_rates_or_nothing():
    costs = {"buy": 0.0005, "sell": 0.0015, "minimum": 5}
    assert ProblemConfig(costs=costs, trading_costs=True).turnover_cost == 0.001
    assert ProblemConfig(costs=costs).turnover_cost == 0.0
    with pytest.raises(ConfigError, match=r"State what a trade costs, zero too"):
        ProblemConfig(trading_costs=True)
