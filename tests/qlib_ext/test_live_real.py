"""What to hold tomorrow on real prices: the backtest's own weights, with and without a mandate."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.model.trainer import task_train
from qlib_markets import FEW, connect

from bpqp_portfolio.backtest.holdings import quotes
from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.live.decision import decide
from bpqp_portfolio.live.snapshot import snapshot
from bpqp_portfolio.live.target_weights import target_weights
from bpqp_portfolio.qlib_ext.kept_tables import kept_table, kept_targets
from bpqp_portfolio.runs.artifact import load_run

pytestmark = pytest.mark.real_data

OURS = "bpqp_portfolio.qlib_ext"
FACTS = {
    "risk_aversion": 100.0,
    "costs": {"buy": 0.0005, "sell": 0.0015, "minimum": 5},
    "account": {"value": 1e8, "risk_degree": 0.99},
}
TASK = {
    "model": {
        "class": "PortfolioModel",
        "module_path": f"{OURS}.model",
        "kwargs": {
            "predictor": {"name": "mlp", "hidden": [16]},
            "trainer": {"epochs": 1, "batch_days": 20},
        },
    },
    "dataset": {
        "class": "PortfolioDataset",
        "module_path": f"{OURS}.dataset",
        "kwargs": {
            "market": "csi300",
            "benchmark": "SH000300",
            "segments": {
                "train": ["2021-01-04", "2021-06-30"],
                "valid": ["2021-07-01", "2021-09-30"],
                "test": ["2021-10-08", "2021-12-31"],
            },
            "handler": FEW,
            "mandate": {**FACTS, "constraints": {"max_weights": 0.05}},
            "exclusions": "check",
        },
    },
    "record": [
        {"class": "SignalRecord", "kwargs": {"model": "<MODEL>", "dataset": "<DATASET>"}},
        {
            "class": "BacktestRecord",
            "module_path": f"{OURS}.records",
        },
        {"class": "ReportRecord", "module_path": f"{OURS}.records"},
    ],
}


def test_the_weights_are_those_of_the_backtest(real_provider, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    connect(real_provider, region="cn", tracking=tmp_path / "mlflow.db")
    with contextlib.redirect_stdout(io.StringIO()):
        # Qlib fills the placeholders of a task in place.
        recorder = task_train(copy.deepcopy(TASK), experiment_name="real")
    weights = kept_targets(recorder)
    folder = recorder.client.download_artifacts(recorder.id, "bpqp/model")
    saved, provider = load_run(Path(folder), recorder.id), Provider(real_provider)
    dates = weights.index.get_level_values("datetime").unique()
    assert len(dates) > 50
    for date in dates[[0, 1, len(dates) // 2, -2, -1]]:
        day = snapshot(saved, provider, f"{date:%Y-%m-%d}")
        plan = decide(saved, provider, day).plan
        got = plan.table["target"].reindex(day.names)
        expected = weights.xs(date, level="datetime").reindex(got.index, fill_value=0.0)
        assert np.abs(got - expected).max() < 1e-9 and plan.status == "solved"
    later = target_weights(
        "real", "2022-12-30", cash=1e7, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"
    )
    held = later.table[later.table["weight"] > 0]
    assert held["weight"].sum() == pytest.approx(1.0) and (held["trade"] % 100 == 0).all()
    assert 0 < later.summary["account"]["cash"] < 5e5
    assert pd.Timestamp(later.summary["date"]) > dates[-1]


MANDATE = {
    **FACTS,
    "constraints": {
        "max_weights": 0.05,
        "groups": {"limit": 0.30},
        "max_turnover": 0.10,
        "max_tracking_error": 0.06,
    },
    "on_failure": [{"relax": ["max_turnover", "max_tracking_error", "groups"]}, "hold"],
    "sectors": {"count": 10},
    "index_weights": "traded_value",
}


def test_the_targets_of_a_mandate_are_those_of_the_backtest(real_provider, tmp_path, monkeypatch):
    """From what it held in July 2015, when half of the market was suspended or at a limit."""
    monkeypatch.chdir(tmp_path)
    connect(real_provider, region="cn", tracking=tmp_path / "mlflow.db")
    task = copy.deepcopy(TASK)
    data = task["dataset"]
    segments = {
        "train": ["2014-10-08", "2015-03-31"],
        "valid": ["2015-04-01", "2015-06-12"],
        "test": ["2015-06-18", "2015-07-17"],
    }
    dataset = {**data, "kwargs": {**data["kwargs"], "segments": segments, "mandate": MANDATE}}
    mandate = {
        "class": "MandateRecord",
        "module_path": f"{OURS}.mandate_records",
    }
    records = [*task["record"][:1], mandate, task["record"][2]]
    with contextlib.redirect_stdout(io.StringIO()):
        recorder = task_train(
            {**task, "dataset": dataset, "record": records}, experiment_name="mandate"
        )
    targets = kept_targets(recorder)
    positions = recorder.load_object("portfolio_analysis/positions_normal_1day.pkl")
    days = kept_table(recorder, "bpqp/mandate_days.parquet")
    assert (days["status"] == "solved").mean() > 0.9
    provider = Provider(real_provider)
    pinned = days.index[days["pinned"] > 0]
    assert len(pinned)
    for date in dict.fromkeys([*days.index[[1, 2, -1]], *pinned[:3]]):
        position = positions[date]
        names = position.get_stock_list()
        quoted = quotes(provider, names, int(provider.calendar.get_loc(date)))["price"]
        worth = {n: position.get_stock_amount(n) * position.get_stock_price(n) for n in names}
        lines = [f"{n},{float(worth[n] / quoted[n])!r}" for n in names]
        held = tmp_path / "holdings.csv"
        held.write_text("\n".join(["instrument,shares", *lines]) + "\n")
        target = target_weights(
            "mandate",
            f"{date:%Y-%m-%d}",
            holdings=held,
            cash=float(position.get_cash()),
            tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        )
        got = target.table.set_index("instrument")["weight"]
        expected = targets.xs(date, level="datetime")
        assert set(got.index[got > 0]) == set(expected.index), date
        assert np.abs(got[expected.index] - expected).max() < 1e-9, date
        assert target.summary["status"] == days.loc[date, "status"]
