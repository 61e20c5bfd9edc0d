"""A backtest without an index: no figure over one, and equal weights as ever."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from qlib_markets import FEW, kept, mandate, run_task

from bpqp_portfolio.report.metrics import summarise
from bpqp_portfolio.report.page import render
from bpqp_portfolio.runs.results import load_results

OURS = "bpqp_portfolio.qlib_ext"
NOTHING = {"class": "RandomScores", "module_path": f"{OURS}.baselines", "kwargs": {}}
MANDATE = mandate(constraints={"max_weights": 0.3}, on_failure="hold")


@pytest.mark.parametrize("record", ["BacktestRecord", "MandateRecord"])
def test_a_run_without_an_index(market, tmp_path, monkeypatch, record):
    monkeypatch.chdir(tmp_path)
    place = "records" if record == "BacktestRecord" else "mandate_records"
    backtest = {"class": record, "module_path": f"{OURS}.{place}"}
    file = tmp_path / "mlflow.db"
    recorder = run_task(
        market, file, "bare", NOTHING, backtest, handler=FEW, benchmark=None, mandate=MANDATE
    )
    metrics = recorder.list_metrics()
    assert not [name for name in metrics if "excess_return" in name or "index" in name]
    assert math.isfinite(metrics["bpqp.excess_equal.annual_return.with_cost"])
    assert math.isfinite(metrics["bpqp.portfolio.annual_return.with_cost"])

    daily = kept(recorder, "daily")
    assert daily["bench"].isna().all() and daily["bench_equal"].notna().all()
    analysis = recorder.load_object("portfolio_analysis/port_analysis_1day.pkl")["risk"]
    assert analysis["return_without_cost", "annualized_return"] == pytest.approx(
        daily["return"].mean() * 238  # Qlib's own
    )
    results = load_results(recorder.client.download_artifacts(recorder.id, "bpqp/results"))
    assert not results.has_index
    summary = summarise(results)
    assert summary.loc["excess_index"].isna().all(axis=None)
    assert summary.loc["index"].isna().all(axis=None)
    assert summary.loc["excess_equal"]["with_cost"].notna().all()
    page = render(results)
    assert "Over index" not in page
    assert "Over equal weights" in page and "The run names no index" in page
    assert isinstance(daily.index, pd.DatetimeIndex)
