"""What to hold tomorrow: the backtest's own weights, from one day's data, and clear refusals."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from qlib.model.trainer import task_train
from qlib_markets import MODEL, SEGMENTS, SETTINGS, connect, rewrite
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider import Provider, write_provider
from bpqp_portfolio.errors import ConfigError, DataError, ProviderError
from bpqp_portfolio.qlib_ext.saved import load_run
from bpqp_portfolio.qlib_ext.single_day import single_day
from bpqp_portfolio.qlib_ext.tomorrow import decide_single, target_weights, tracked_model

OURS = "bpqp_portfolio.qlib_ext"
BACKTEST = {"risk_degree": 0.95, "account": 1e7, "board_limits": False, "trade_unit": 100}
GRU = {**MODEL, "predictor": {"name": "gru", "hidden": 4}, "trainer": {"epochs": 1}}
LIGHTGBM = {
    "class": "LGBModel",
    "module_path": "qlib.contrib.model.gbdt",
    "kwargs": {"loss": "mse", "num_boost_round": 5, "num_leaves": 4, "verbosity": -1},
}


@dataclass(frozen=True)
class Tracked:
    """A finished run, where it is tracked, and what its records decided."""

    id: str
    uri: str
    name: str
    folder: Path
    weights: pd.Series
    scores: pd.Series

    def day(self, date: pd.Timestamp) -> pd.Series:
        """The backtest's target weights of a day, by name."""
        return self.weights.xs(date, level="datetime")


def train(market: Provider, folder: Path, name: str, model: dict, **changes) -> Tracked:
    connect(market.root, tracking=folder / "mlflow.db")
    records = [
        {"class": "SignalRecord", "kwargs": {"model": "<MODEL>", "dataset": "<DATASET>"}},
        {"class": "WeightRecord", "module_path": f"{OURS}.records"},
        {"class": "BacktestRecord", "module_path": f"{OURS}.records", "kwargs": BACKTEST},
        {"class": "ReportRecord", "module_path": f"{OURS}.records"},
    ]
    dataset = {
        "class": "PortfolioDataset",
        "module_path": f"{OURS}.dataset",
        "kwargs": {**SETTINGS, "exclusions": "check", **changes},
    }
    task = {"model": model, "dataset": dataset, "record": records}
    with contextlib.redirect_stdout(io.StringIO()):
        recorder = task_train(task, experiment_name=name)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    weights = recorder.load_object("bpqp/weights.pkl")
    scores = recorder.load_object("pred.pkl").iloc[:, 0]
    return Tracked(recorder.id, uri, name, folder, weights, scores)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of its own, in which the runs of this file are tracked."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BPQP_CACHE", str(folder / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("BPQP_PROVIDER_URI", raising=False)
        yield folder


def ours(config: dict) -> dict:
    return {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": config}


@pytest.fixture(scope="module")
def mlp(market, folder):
    return train(market, folder, "end_to_end", ours(MODEL))


@pytest.fixture(scope="module")
def gru(market, folder):
    return train(market, folder, "sequence", ours(GRU))


@pytest.fixture(scope="module")
def forest(market, folder):
    return train(market, folder, "forest", LIGHTGBM)


@pytest.fixture(params=["mlp", "gru", "forest"])
def run(request):
    return request.getfixturevalue(request.param)


def decided(target) -> pd.Series:
    table = target.table[target.table["weight"] > 0]
    return table.set_index("instrument")["weight"]


# The backtest's weights --------------------------------------------------------------------------


def test_it_gives_the_weights_that_the_backtest_traded(run):
    dates = run.weights.index.get_level_values("datetime").unique()
    for date in dates[[0, 1, len(dates) // 2, -2, -1]]:
        target = target_weights(run.id, f"{date:%Y-%m-%d}", tracking_uri=run.uri)
        expected = run.day(date)
        got = decided(target)
        assert set(got.index) == set(expected.index)
        assert np.abs(got - expected[got.index]).max() < 1e-9
        scores = run.scores.xs(date, level="datetime")
        scored = target.table.dropna(subset="score").set_index("instrument")["score"]
        assert np.abs(scored - scores[scored.index]).max() < 1e-9
