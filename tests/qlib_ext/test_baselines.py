"""Baselines through the same data and backtest: random, equal weight, least risk, top-k dropout."""

from __future__ import annotations

import contextlib
import io
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.model.trainer import task_train
from qlib_markets import FEW, SETTINGS, connect, kept, run_task

from bpqp_portfolio.backtest.appraisal import decide
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.kept_tables import kept_targets
from bpqp_portfolio.qlib_ext.topk_dropout import Listening, TopkDropoutConfig
from bpqp_portfolio.runs.results import load_results

OURS = "bpqp_portfolio.qlib_ext"
RULES = {"lot": None}
RECORD = {"class": "BacktestRecord", "module_path": f"{OURS}.records"}
TOPK = {
    "class": "TopkDropoutRecord",
    "module_path": f"{OURS}.topk_dropout",
    "kwargs": {"topk": 5, "n_drop": 2},
}


def scores(kind: str, **kwargs: Any) -> dict:
    return {"class": kind, "module_path": f"{OURS}.baselines", "kwargs": kwargs}


def run(market, folder, name, model, **problem):
    changes = {"handler": FEW, "problem": problem, "market_rules": RULES}
    return run_task(market, folder / "mlflow.db", name, model, RECORD, **changes)


@pytest.fixture(scope="module")
def random(market, folder):
    return run(market, folder, "random", scores("RandomScores", seed=3))


@pytest.fixture(scope="module")
def dropout(market, folder, random):
    """The same random scores, traded by Qlib's strategy."""
    connect(market.root, tracking=folder / "mlflow.db")
    task = random.load_object("task")
    keep = [r for r in task["record"] if r["class"] in ("SignalRecord", "ReportRecord")]
    task = {**task, "record": [keep[0], TOPK, keep[1]]}
    with contextlib.redirect_stdout(io.StringIO()):
        return task_train(task, experiment_name="dropout")


def results(recorder):
    return load_results(recorder.client.download_artifacts(recorder.id, "bpqp/results"))


def test_random_scores_are_drawn_by_their_seed_and_go_through_the_problem(market, folder, random):
    pred = random.load_object("pred.pkl")["score"]
    assert abs(pred.mean()) < 0.1 and pred.std() == pytest.approx(1, abs=0.1)
    connect(market.root, tracking=folder / "mlflow.db")
    data = PortfolioDataset(**{**SETTINGS, "handler": FEW})
    expected, _ = decide(data, pred)
    pd.testing.assert_series_equal(kept_targets(random), expected, check_index_type=False)
    with pytest.raises(ConfigError, match="seed"):
        run(market, folder, "refused", scores("RandomScores", seed=-1))


@pytest.mark.parametrize("name", ["equal_weight", "minimum_variance"])
def test_portfolios_without_a_forecast(market, folder, name):
    recorder = run(market, folder, name, scores("ConstantScores"), decision={"name": name})
    weights, signal = kept_targets(recorder), kept(recorder, "signal")
    np.testing.assert_allclose(weights.groupby("datetime").sum(), 1.0, atol=1e-9)
    assert (signal["regret"].dropna() > 0).all() and signal["ic"].isna().all()
    if name == "equal_weight":
        counts = weights.groupby("datetime").transform("size")
        np.testing.assert_allclose(weights, 1 / counts)
        assert (counts.groupby("datetime").first() == signal["universe"]).all()
    else:
        assert weights.max() <= 0.25 + 1e-12 and signal["kkt_norm"].max() <= 1e-10
    found = results(recorder)
    assert found.daily["turnover"].iloc[2:].mean() < 0.2
    assert found.settings["problem"]["decision"] == {"name": name}


def test_top_k_dropout_holds_the_best_and_replaces_few(dropout, random):
    found = results(dropout)
    assert found.daily["names_held"].iloc[5:].between(3, 7).all()
    held = found.realised.groupby("datetime")["instrument"].agg(set)
    for before, after in itertools.pairwise(held):
        assert len(after - before) <= 2 or len(before) < 5
    whole = results(random).daily["turnover"].iloc[2:].mean()
    assert 0 < found.daily["turnover"].iloc[2:].mean() < 0.8 * whole
    assert (found.daily["cost"].iloc[2:] > 0).mean() > 0.8
    assert (found.daily["blocked"] >= 0).all()
    # At most two names go and two come, but for the first purchase and what was blocked before.
    orders = found.daily["orders"]
    assert (orders >= found.daily["blocked"]).all() and orders.sum() > 0
    assert orders.iloc[2:].median() == 4


def test_what_an_exchange_refuses_is_noted():
    class Exchange:
        name = "small"

        def is_stock_tradable(self, stock_id, **kwargs):
            return stock_id != "SH600001"

    refused: set[str] = set()
    heard = Listening(Exchange(), refused)
    assert heard.name == "small"
    assert [heard.is_stock_tradable(s, start_time=0) for s in ("SH600000", "SH600001")] == [
        True,
        False,
    ]
    assert refused == {"SH600001"}


def test_the_targets_of_top_k_dropout_are_what_it_held(dropout):
    found = results(dropout)
    targets = found.weights.set_index(["datetime", "instrument"])["weight"]
    realised = found.realised.set_index(["datetime", "instrument"])["weight"]
    np.testing.assert_allclose(targets.groupby("datetime").sum(), 1.0)
    days = found.daily.index
    for before, day in itertools.pairwise(days):
        want, have = targets[before], realised[day]
        np.testing.assert_allclose(want, have / have.sum())
    assert (found.signal["regret"].dropna() > -1e-12).all()
    assert "kkt_norm" not in found.signal
    assert "model" not in {a.split("/")[-1] for a in dropout.list_artifacts("bpqp")}


@pytest.mark.parametrize(("settings", "message"), [({"topk": 0}, "topk"), ({"topk": 3}, "n_drop")])
def test_settings_of_top_k_dropout_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        TopkDropoutConfig(**settings)
