"""The decision of a day: who is in the problem, who is pinned or sold, and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.backtest.day_inputs import DayInputs
from bpqp_portfolio.backtest.problem_policy import ProblemPolicy
from bpqp_portfolio.backtest.rebalance import (
    AT_LOWER_LIMIT,
    AT_UPPER_LIMIT,
    LEFT_UNIVERSE,
    NO_FORECAST,
    NO_RISK_MODEL,
    SUSPENDED,
    BookRules,
    rebalance,
)
from bpqp_portfolio.errors import ConfigError, DataError, ProblemError
from bpqp_portfolio.portfolio import PortfolioProblem, TradingCosts
from bpqp_portfolio.portfolio.mandate.mandate import Mandate

NAMES = np.array(["AAA", "BBB", "CCC", "DDD", "EEE", "FFF"])
RULES = BookRules(risk_degree=0.9, lot=None, costs=TradingCosts(0.0005, 0.0015, 5.0))


def inputs(**changes) -> DayInputs:
    """Six members that are alike but for their forecasts, at a price of 10."""
    rng = np.random.default_rng(0)
    no = np.zeros(6, dtype=bool)
    day = DayInputs(
        date=pd.Timestamp("2020-01-06"),
        names=NAMES,
        mu=np.array([3e-3, 2e-3, 1e-3, 0.0, -1e-3, -2e-3]),
        loadings=1e-2 + 2e-3 * rng.standard_normal((6, 2)),
        specific=np.full(6, 2e-4),
        variance=np.full(6, 4e-4),
        price=np.full(6, 10.0),
        factor=np.ones(6),
        suspended=no,
        at_upper=no,
        at_lower=no,
        member=~no,
        benchmark=np.full(6, 1 / 6),
        sector=np.array(["x", "x", "x", "y", "y", ""]),
    )
    for key, value in changes.items():
        array = getattr(day, key).copy()
        for name, item in value.items():
            array[list(NAMES).index(name)] = item
        day = replace(day, **{key: array})
    return day


@pytest.fixture(scope="module")
def mandate() -> Mandate:
    """Long only, half in a name at most, no costs."""
    return Mandate.from_config(CONFIG)


CONFIG = {
    "risk_aversion": 5.0,
    "constraints": {"long_only": True, "max_weights": 0.5},
}


def test_everything_is_invested_in_the_first_purchase(mandate):
    plan = rebalance(mandate, inputs(), {}, 1000.0, RULES)
    assert plan.status == "solved" and not plan.events
    table = plan.table
    assert table["target"].sum() == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(table["trade"] * 10, 900 * table["target"], atol=1e-6)
    assert (table["previous"] == 0).all() and plan.left_out == {}
    w = table["target"].to_numpy()
    covariance = inputs().loadings @ inputs().loadings.T + np.diag(inputs().specific)
    assert plan.risk == pytest.approx(np.sqrt(w @ covariance @ w))
    assert plan.expected_return == pytest.approx(inputs().mu @ w)


def test_a_trade_is_a_share_of_what_is_traded_of_the_name():
    mandate = Mandate.from_config({**CONFIG, "max_participation": 0.1})
    traded = np.array([1000.0, 500.0, 200.0, 0.0, 300.0, 4000.0])
    day = replace(inputs(), traded_value=traded)
    holdings = {str(name): 15.0 for name in NAMES}
    plan = rebalance(mandate, day, holdings, 100.0, RULES)
    money = (plan.table["trade"] * 10).abs().to_numpy()
    assert plan.status == "solved" and (money <= 0.1 * traded + 1e-6).all()
    assert money[0] == pytest.approx(100.0) and money[3] == 0.0
    with pytest.raises(ProblemError, match="max_participation: the market has no traded_value"):
        rebalance(mandate, inputs(), holdings, 100.0, RULES)


def test_previous_weights_are_of_what_is_held_now(mandate):
    plan = rebalance(mandate, inputs(), {"AAA": 30.0, "FFF": 20.0}, 500.0, RULES)
    assert plan.account == 1000.0
    assert plan.table.loc["AAA", "previous"] == pytest.approx(300 / 900)
    np.testing.assert_allclose(plan.market.previous[0][[0, 5]], [300 / 900, 200 / 900])
    sold = plan.table.loc["FFF"]
    assert sold["target"] == 0 and sold["trade"] == -20.0


def test_a_suspended_name_is_pinned_where_held_and_left_out_where_not(mandate):
    day = inputs(suspended={"FFF": True, "AAA": True}, mu={"FFF": np.nan, "AAA": np.nan})
    plan = rebalance(mandate, day, {"FFF": 20.0}, 800.0, RULES)
    row = plan.table.loc["FFF"]
    assert row["target"] == pytest.approx(200 / 900, abs=1e-12)
    assert row["trade"] == 0 and row["reason"] == SUSPENDED
    assert plan.left_out == {"AAA": SUSPENDED}
    assert plan.table["target"].sum() == pytest.approx(1.0, abs=1e-9)


def test_a_name_that_left_the_universe_is_sold_and_is_no_part_of_the_problem(mandate):
    day = inputs(member={"AAA": False})
    plan = rebalance(mandate, day, {"AAA": 20.0}, 800.0, RULES)
    row = plan.table.loc["AAA"]
    assert row["trade"] == -20.0 and row["target"] == 0 and row["reason"] == LEFT_UNIVERSE
    assert "AAA" not in plan.market.names and len(plan.market.names) == 5
    # Suspended besides, it has to be kept, without a part in the index.
    day = inputs(member={"AAA": False}, suspended={"AAA": True}, specific={"AAA": np.nan})
    plan = rebalance(mandate, day, {"AAA": 20.0}, 800.0, RULES)
    assert plan.table.loc["AAA", "trade"] == 0
    assert plan.table.loc["AAA", "target"] == pytest.approx(200 / 900)
    at = plan.market.names.index("AAA")
    assert float(plan.market.benchmark[0, at]) == 0 and float(plan.market.specific[0, at]) == 4e-4
    assert float(plan.market.loadings[0, at].abs().sum()) == 0


def test_limits_forbid_one_direction(mandate):
    """The best name cannot be bought at its upper limit, the worst not sold at its lower one."""
    day = inputs(at_upper={"AAA": True, "FFF": True}, at_lower={"EEE": True, "BBB": True})
    holdings = {"AAA": 10.0, "EEE": 10.0, "FFF": 10.0}
    plan = rebalance(mandate, day, holdings, 700.0, RULES)
    trade = plan.table["trade"]
    assert trade["AAA"] == 0 and trade["EEE"] == 0
    assert trade["FFF"] == -10.0 and trade["BBB"] > 0
    assert plan.table.loc["AAA", "reason"] == AT_UPPER_LIMIT
    assert plan.table.loc["EEE", "reason"] == AT_LOWER_LIMIT
    free = rebalance(mandate, day, holdings, 700.0, replace(RULES, pin_limits=False))
    assert free.table["trade"]["AAA"] > 0 and free.table["trade"]["EEE"] < 0


def test_reasons_for_what_is_left_out(mandate):
    day = inputs(specific={"CCC": np.nan}, mu={"DDD": np.nan})
    plan = rebalance(mandate, day, {}, 1000.0, RULES)
    assert plan.left_out == {"CCC": NO_RISK_MODEL, "DDD": NO_FORECAST}


def test_the_order_of_names_does_not_matter(mandate):
    order = np.random.default_rng(1).permutation(6)
    day = inputs()
    fields = {k: v[order] for k, v in vars(day).items() if isinstance(v, np.ndarray)}
    held = {"AAA": 10.0, "FFF": 30.0}
    first = rebalance(mandate, day, held, 600.0, RULES).table
    second = rebalance(mandate, replace(day, **fields), held, 600.0, RULES).table
    np.testing.assert_allclose(second.loc[first.index, "target"], first["target"], atol=1e-9)


@pytest.mark.parametrize(
    ("holdings", "changes", "message"),
    [
        ({"ZZZ": 1.0}, {}, "'ZZZ' is no name of this universe"),
        ({"AAA": -1.0}, {}, "-1.0 of AAA"),
        ({"AAA": 1.0}, {"price": {"AAA": np.nan}}, "no price of AAA up to 2020-01-06"),
    ],
)
def test_holdings_that_cannot_be_are_refused(mandate, holdings, changes, message):
    with pytest.raises(DataError, match=message):
        rebalance(mandate, inputs(**changes), holdings, 1.0, RULES)


def test_an_account_worth_nothing_is_refused(mandate):
    with pytest.raises(DataError, match="worth 0"):
        rebalance(mandate, inputs(), {}, 0.0, RULES)


@pytest.mark.parametrize("wrong", [{"risk_degree": 1.5}, {"risk_degree": 0.9, "lot": 0.5}])
def test_rules_are_checked(wrong):
    with pytest.raises(ConfigError, match=r"risk_degree|lot"):
        BookRules(**{**vars(RULES), **wrong})


def test_a_day_without_index_weights_is_no_day_of_a_zero_index(mandate):
    """Limits relative to nothing would be limits of another kind."""
    empty = dict.fromkeys(NAMES, 0.0)
    assert len(rebalance(mandate, inputs(benchmark=empty), {}, 1e6, RULES).table)
    for config in ({"max_tracking_error": 0.1}, {"groups": {"limit": 0.1, "relative": True}}):
        relative = Mandate.from_config(config)
        assert relative.benchmarked and not mandate.benchmarked
        with pytest.raises(DataError, match=r"no weight of a name .* 2020-01-06"):
            rebalance(relative, inputs(benchmark=empty), {}, 1e6, RULES)


# Decisions that are blind to what is held -------------------------------------------------------

COSTS = TradingCosts(0.001, 0.002, 5.0)
BLIND = BookRules(0.9, None, COSTS, pin_limits=False, from_holdings=False)


def problem(cap: float = 0.5) -> ProblemPolicy:
    settings = {"risk_aversion": 5.0, "max_weight": cap, "score_scale": 1e-3}
    return ProblemPolicy(PortfolioProblem(settings))


def test_the_problem_decides_what_a_mandate_of_its_limits_does(mandate):
    """Without holdings: the same weights, and the same shadow prices."""
    ours, theirs = (rebalance(p, inputs(), {}, 1e6, RULES) for p in (problem(), mandate))
    np.testing.assert_allclose(ours.table["target"], theirs.table["target"], atol=1e-9)
    assert ours.status == "solved" and ours.expected_return == pytest.approx(theirs.expected_return)
    budget, cap = ours.constraints
    found = {row.label: row for row in theirs.constraints}
    for row in (budget, cap):
        assert row[1:] == pytest.approx(found[row.label][1:], abs=1e-8)
    assert ours.binding == [budget, cap]


def test_blind_targets_do_not_know_what_is_held_and_are_sized_by_what_trades():
    """A suspended holding is kept beside them, and its value is not spent again."""
    day = inputs(suspended={"FFF": True})
    empty = rebalance(problem(), day, {}, 1000.0, BLIND)
    plan = rebalance(problem(), day, {"FFF": 20.0, "AAA": 30.0}, 500.0, BLIND)
    kept = plan.table.loc["FFF"]
    assert kept["trade"] == 0 and kept["target"] == 0 and kept["reason"] == SUSPENDED
    others = plan.table.drop("FFF")
    np.testing.assert_array_equal(others["target"], empty.table["target"])
    worth = (300 + 500 - 0.1 * 1000) / 1.002
    np.testing.assert_allclose(others["wanted"] * 10, worth * others["target"], rtol=1e-12)


def test_orders_never_overdraw_the_account():
    rng = np.random.default_rng(1)
    for lot in (None, 1, 100):
        rules = replace(BLIND, risk_degree=1.0, lot=lot)
        for _ in range(20):
            day = replace(
                inputs(),
                mu=4e-3 * rng.standard_normal(6),
                price=rng.uniform(3, 300, 6),
                suspended=rng.random(6) > 0.8,
            )
            shares = rng.integers(0, 5000, 6) * (rng.random(6) > 0.5)
            cash = float(rng.uniform(1, 1e6))
            plan = rebalance(problem(1.0), day, dict(zip(NAMES, shares, strict=True)), cash, rules)
            table, account = plan.table, plan.account_after(COSTS)
            stuck = pd.Series(day.suspended, NAMES).reindex(table.index).to_numpy()
            assert account["cash"] >= 0 and (table["trade"][stuck] == 0).all()
            gone = (table["target"] == 0) & ~stuck
            assert (table["held"] + table["trade"])[gone].abs().max() == 0 or not gone.any()
            spent = (table["trade"] * table["price"]).sum() + account["cost"]
            assert account["cash"] == pytest.approx(cash - spent, abs=1e-6)
            if lot:
                assert (table["trade"][table["trade"] > 0] % lot == 0).all()
