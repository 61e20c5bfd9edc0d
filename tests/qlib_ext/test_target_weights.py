"""The strategy holds the target weights it is given, and refuses what it could not hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qlib_markets import from_closes, trade

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.qlib_ext.strategy import TargetWeightStrategy

DAYS = pd.bdate_range("2020-01-06", periods=8)
NAMES = ["AAA", "BBB", "CCC"]


@pytest.fixture
def flat(tmp_path):
    """Prices that never move, so that weights are shares; BBB is suspended on two days."""
    closes = pd.DataFrame(10.0, index=DAYS, columns=NAMES)
    closes.loc[DAYS[3:5], "BBB"] = np.nan
    return from_closes(tmp_path / "flat", closes)


def constant(*weights: float) -> pd.DataFrame:
    """The same weights on every day but the last."""
    return pd.DataFrame([weights] * 7, index=DAYS[:-1], columns=NAMES)


def test_the_invested_fraction_is_the_risk_degree(flat):
    _, shares, _ = trade(flat, constant(0.5, 0.3, 0.2), risk_degree=0.8)
    held = [1e-6 * 10 * shares[DAYS[2]][name] for name in NAMES]
    np.testing.assert_allclose(held, [0.4, 0.24, 0.16], rtol=1e-6)


def test_suspended_names_keep_their_shares_and_are_counted(flat):
    weights = constant(0.5, 0.5, 0.0)
    weights.iloc[2:] = [0.0, 0.0, 1.0]
    _, shares, blocked = trade(flat, weights)
    assert [set(shares[day]) for day in DAYS[2:6]] == [
        {"AAA", "BBB"},
        {"BBB", "CCC"},
        {"BBB", "CCC"},
        {"CCC"},
    ]
    assert [blocked[day] for day in DAYS[1:6]] == [0, 0, 1, 1, 0]


def test_a_suspended_name_is_not_bought(flat):
    weights = constant(1.0, 0.0, 0.0)
    weights.iloc[2] = [0.0, 1.0, 0.0]
    _, shares, blocked = trade(flat, weights)
    assert shares[DAYS[3]] == {} and blocked[DAYS[3]] == 1


@pytest.mark.parametrize("risk_degree", [0.0, -0.1, 1.01, float("nan"), "0.9"])
def test_the_risk_degree_must_be_a_fraction(risk_degree):
    with pytest.raises(ConfigError, match="risk_degree"):
        TargetWeightStrategy(signal=pd.Series([1.0]), risk_degree=risk_degree)


def test_the_risk_degree_has_no_default():
    with pytest.raises(TypeError, match="risk_degree"):
        TargetWeightStrategy(signal=pd.Series([1.0]))


@pytest.mark.parametrize("wrong", [-0.2, np.nan, np.inf])
def test_weights_that_cannot_be_held_are_refused_by_name_and_day(wrong):
    index = pd.MultiIndex.from_product([DAYS[:2], NAMES], names=["datetime", "instrument"])
    weights = pd.Series([0.5, 0.5, 0.0, 1.2, wrong, 0.0], index=index)
    with pytest.raises(DataError, match=r"1 are negative or .* the first \(.*2020-01-07.*'BBB'\)"):
        TargetWeightStrategy(signal=weights, risk_degree=0.9)
