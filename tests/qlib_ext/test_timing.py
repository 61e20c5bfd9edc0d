"""Who earns what, when: the label of day t, the trade at the close of t+1, and the return after."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from qlib_markets import FEW, build, from_closes, trade

from bpqp_portfolio.backtest.appraisal import decide
from bpqp_portfolio.qlib_ext.model import PortfolioModel

NAMES = ["AAA", "BBB", "CCC"]


def test_the_label_is_the_return_from_the_close_of_the_next_day_to_that_after(market, dataset):
    panel = dataset.panel()
    close = market.frame("close", panel.names).to_numpy(dtype=float)
    day = market.calendar.get_indexer(panel.dates).repeat(panel.counts)
    name = panel.name_index.numpy()
    expected = close[day + 2, name] / close[day + 1, name] - 1
    # A suspended neighbour leaves it open, and such days are among them.
    assert np.isnan(expected).any()
    np.testing.assert_allclose(panel.returns, expected, rtol=1e-5, atol=1e-7)


def test_training_labels_are_standardised_returns_of_the_day(dataset):
    """Over the names of the universe; those of unknown return have none."""
    panel = dataset.panel()
    returns = pd.Series(panel.returns.numpy())
    days = returns.groupby(np.arange(len(panel)).repeat(panel.counts))
    expected = (returns - days.transform("mean")) / days.transform("std")
    np.testing.assert_allclose(panel.label, expected, rtol=1e-4, atol=1e-5)


def test_the_score_scale_is_the_spread_of_training_returns_alone(dataset):
    panel = dataset.panel()
    batch = panel.batch(dataset.days("train"), features=False)
    spread = [
        float(row[known].std(correction=0))
        for row, known in zip(batch.returns, batch.known, strict=True)
    ]
    assert dataset.problem.scale == pytest.approx(np.mean(spread), rel=1e-9)


def test_segments_cover_their_days(dataset):
    days = [dataset.days(name) for name in ("train", "valid", "test")]
    assert [len(d) for d in days] == [108, 63, 97]
    last = dataset.panel().dates[torch.cat(days)[-1]]
    assert last == np.datetime64("2016-03-15")


def test_history_is_the_names_own_past_rows(market):
    """And a predictor that looks at it goes the same way as one that does not."""
    data = build(market.root, handler=FEW)
    model = PortfolioModel(
        predictor={"name": "gru", "hidden": 4}, trainer={"epochs": 1, "batch_days": 50}
    )
    model.fit(data)
    panel = data.panel(20)
    day = torch.arange(len(panel)).repeat_interleave(panel.counts)
    history = panel.history(torch.arange(len(day)))
    assert history.shape[1] == 20
    assert (panel.name_index[history] == panel.name_index.unsqueeze(1)).all()
    assert (day[history].diff(dim=1) >= 0).all()
    assert torch.equal(history[:, -1], torch.arange(len(day)))
    settled = day >= 100
    assert (day[history[settled]].diff(dim=1) > 0).float().mean() > 0.95
    scores = model.predict(data)
    weights, _ = decide(data, scores)
    assert scores.index.equals(panel.index(data.days("test")))
    np.testing.assert_allclose(weights.groupby("datetime").sum(), 1.0, atol=1e-9)


@pytest.fixture
def tiny(tmp_path):
    """Ten days of three names, weights that change every day, and one day more for Qlib."""
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2020-01-06", periods=11)
    closes = 20 * np.exp(np.cumsum(0.02 * rng.standard_normal((11, 3)), axis=0))
    closes = pd.DataFrame(closes.astype(np.float32).astype(float), index=days, columns=NAMES)
    weights = pd.DataFrame(rng.dirichlet(np.ones(3), size=10), index=days[:10], columns=NAMES)
    return from_closes(tmp_path / "tiny", closes), closes.iloc[:10], weights


def test_weights_of_day_t_are_held_from_the_close_of_the_next_day(tiny):
    provider, _, weights = tiny
    weights[:] = np.eye(3)[np.arange(10) % 3]
    report, shares, _ = trade(provider, weights)
    held = [list(shares[day]) for day in report.index]
    assert held == [[], *([NAMES[t % 3]] for t in range(9))]


def test_the_backtest_returns_what_a_hand_computation_does(tiny):
    """Shares of day t+1 come from the value and the closes of day t, as Qlib orders them."""
    provider, closes, weights = tiny
    report, shares, blocked = trade(provider, weights)
    price, w = closes.to_numpy(), weights.to_numpy()
    value, held = 1e6, np.zeros(3)
    for t in range(len(price)):
        earned = held @ (price[t] - price[t - 1]) if t else 0.0
        assert report["return"].iloc[t] == pytest.approx(earned / value, abs=1e-8)
        if t:
            held = 0.9 * value * w[t - 1] / price[t - 1]
            got = [shares[closes.index[t]][name] for name in NAMES]
            np.testing.assert_allclose(got, held, rtol=1e-6)
        value += earned
    assert report["account"].iloc[-1] == pytest.approx(value, rel=1e-7)
    assert (report["cost"] == 0).all() and set(blocked.values()) == {0}
    bench = closes.pct_change().mean(axis=1).fillna(0.0)
    np.testing.assert_allclose(report["bench"], bench, atol=1e-6)


def test_costs_are_taken_of_what_is_bought_and_sold(tiny):
    provider, closes, weights = tiny
    weights[:] = [1.0, 0.0, 0.0]
    weights.iloc[5:] = [0.0, 1.0, 0.0]
    fees = {"open_cost": 0.001, "close_cost": 0.002, "min_cost": 0.0}
    report, _, _ = trade(provider, weights, exchange=fees)
    first, sixth = report.index[1], report.index[6]
    bought = 0.9e6 / closes["AAA"].iloc[0] * closes["AAA"].iloc[1]
    assert report.loc[first, "cost"] * 1e6 == pytest.approx(0.001 * bought, rel=1e-6)
    # All of one is sold and the other bought for the same part of the account, within a move.
    assert report.loc[sixth, "cost"] == pytest.approx(0.9 * 0.003, rel=0.1)
    assert (report["cost"].iloc[[1, 6]] > 0).all()


def test_a_day_without_a_signal_holds(tiny):
    provider, _, weights = tiny
    weights.iloc[4] = 0.0
    report, shares, _ = trade(provider, weights)
    assert shares[report.index[5]] == shares[report.index[4]] != shares[report.index[6]]
