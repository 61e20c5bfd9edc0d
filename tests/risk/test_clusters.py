"""Statistical sectors: true groups are found, keep their numbers, and do not see the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.risk.clusters import ClusterConfig, cluster_returns

DATES = pd.bdate_range("2015-01-01", periods=780)
TRUTH = np.arange(30) % 3
SETTINGS = ClusterConfig(count=3, window=240, min_history=60, months=6)


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    """Three groups of ten names that share a market; one name is listed late."""
    rng = np.random.default_rng(1)
    market, group = rng.normal(0, 0.01, (780, 1)), rng.normal(0, 0.01, (780, 3))
    table = market + group[:, TRUTH] + rng.normal(0, 0.01, (780, 30))
    table[:300, 29] = np.nan
    return table


@pytest.fixture(scope="module")
def labels(returns) -> np.ndarray:
    return cluster_returns(returns, DATES, SETTINGS)


def test_true_groups_are_found_and_keep_their_numbers(labels):
    first = np.flatnonzero((labels[:, :29] >= 0).all(1))[0]
    assert DATES[first] == pd.Timestamp("2015-07-01")
    number = labels[first, :3]
    assert sorted(number) == [0, 1, 2]
    assert (labels[first:, :29] == number[TRUTH[:29]]).all()
    assert (labels[:first] == -1).all()


def test_a_new_name_has_a_group_from_the_next_period_on(labels):
    """It has 60 returns on the day before 2016-07-01."""
    since = DATES.get_loc(pd.Timestamp("2016-07-01"))
    assert (labels[:since, 29] == -1).all()
    assert (labels[since:, 29] == labels[since, 2]).all()


@pytest.mark.parametrize(
    ("back", "inside"),
    [(0, False), (1, True), (60, True), (61, False)],
)
def test_a_window_is_of_the_last_days_before_the_period(returns, back, inside):
    """Of 60 returns, all needed: one that is missing 1 to 60 days before leaves a name without a
    group; one before them, or on the first day itself, does not."""
    first = DATES.get_loc(pd.Timestamp("2016-07-01"))
    table = returns.copy()
    table[first - back, 0] = np.nan
    settings = ClusterConfig(count=3, window=60, min_history=60, months=6)
    found = cluster_returns(table, DATES, settings)[first]
    assert (found[0] == -1) == inside
    assert (found[1:29] >= 0).all()


def test_the_future_changes_nothing(returns, labels):
    changed = returns.copy()
    cut = DATES.get_loc(pd.Timestamp("2016-07-01"))
    changed[cut:] = np.random.default_rng(2).normal(0, 0.05, changed[cut:].shape)
    again = cluster_returns(changed, DATES, SETTINGS)
    later = DATES.get_loc(pd.Timestamp("2017-01-02"))
    np.testing.assert_array_equal(again[:later], labels[:later])
    assert (again[later:] != labels[later:]).any()


def test_the_order_of_names_does_not_matter(returns, labels):
    order = np.random.default_rng(3).permutation(30)
    again = cluster_returns(returns[:, order], DATES, SETTINGS)
    day = 500
    same = labels[day][:, None] == labels[day]
    np.testing.assert_array_equal(again[day][:, None] == again[day], same[np.ix_(order, order)])


def test_more_groups_than_names_leaves_all_without_one(returns):
    few = cluster_returns(returns[:, :3], DATES, SETTINGS)
    assert (few == -1).all()


@pytest.mark.parametrize("wrong", [{"count": 1}, {"months": 13}, {"min_history": 500}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ClusterConfig(**wrong)


def test_groups_go_on_from_those_of_a_day(returns, labels):
    """From within a period and from its end, without a look at the groups before."""
    for since in (400, int(np.flatnonzero(DATES >= "2016-07-01")[0])):
        again = cluster_returns(returns, DATES, SETTINGS, since=since, before=labels[since - 1])
        assert (again[since:] == labels[since:]).all() and (again[:since] == -1).all()


def test_an_infinite_return_is_refused():
    dates = pd.bdate_range("2020-01-01", periods=30)
    returns = np.zeros((30, 4))
    returns[7, 3] = -np.inf
    with pytest.raises(DataError, match="the return of day 7, name 3 is infinite"):
        cluster_returns(returns, dates, ClusterConfig())
