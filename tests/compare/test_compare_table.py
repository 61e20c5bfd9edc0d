"""The comparison's table: means and spreads over seeds, paired gains and their parts, the page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.compare.page import write_comparison
from bpqp_portfolio.compare.plan import Comparison
from bpqp_portfolio.compare.table import build_table, markdown, protocol
from bpqp_portfolio.errors import DataError
from bpqp_portfolio.report.metrics import TRADING_DAYS
from bpqp_portfolio.report.results import RunResults

DAYS = pd.bdate_range("2019-01-02", periods=400, name="datetime")
COMPARISON = Comparison(
    workflow="w.yaml",
    experiment_name="study",
    seeds=3,
    configurations_tried=18,
    methods={
        "cheap": {"title": "Cost-aware", "control": "plain"},
        "same": {"title": "A <b>copy</b>", "control": "plain"},
        "plain": {"title": "Two-stage"},
    },
)


def run(gain, cost, seed, days=DAYS):
    random = np.random.default_rng(0)  # the same market for all
    market = 0.01 * random.standard_normal(len(days))
    own = 1e-4 * np.random.default_rng(100 + seed).standard_normal(len(days))
    daily = pd.DataFrame(
        {
            "return": market + gain + own,
            "cost": cost,
            "turnover": cost * 500,
            "bench": market,
            "bench_equal": 0.0,
        },
        index=days,
    )
    empty = pd.DataFrame(columns=["datetime", "instrument", "weight"])
    return RunResults(
        name="r", run_id="0", created="2020-01-01T00:00:00", config={}, manifest={}, settings={},
        daily=daily, signal=pd.DataFrame(index=days), weights=empty,
    )  # fmt: skip


@pytest.fixture(scope="module")
def table():
    results = {}
    for seed in range(3):
        results["cheap", seed] = run(2e-4, 1e-4, seed)
        results["plain", seed] = run(1e-4, 4e-4, seed + 10)
        results["same", seed] = run(1e-4, 4e-4, seed + 10)
    return build_table(COMPARISON, results)


def test_a_gain_is_gross_plus_cost_saved(table):
    cheap, same = table.paired
    assert cheap.net.annual == pytest.approx(4e-4 * TRADING_DAYS, abs=2e-5 * TRADING_DAYS)
    assert cheap.saved == pytest.approx(3e-4 * TRADING_DAYS)
    assert cheap.net.annual == pytest.approx(cheap.gross.annual + cheap.saved)
    assert cheap.holds and cheap.p_value < 0.01
    assert same.net.annual == pytest.approx(0) and not same.holds and same.p_value == 1
    # Two comparisons: the smaller p-value counts twice.
    assert cheap.p_value == pytest.approx(2 * cheap.net.p_value)


def test_a_method_is_followed_by_its_control_and_told_by_mean_and_spread(table):
    text = table.text()
    assert list(text.index) == ["Cost-aware", "Two-stage", "A <b>copy</b>"]
    net = table.runs.loc["plain"]["net_index"]
    assert text.loc["Two-stage", "Over index, net"].startswith(
        f"{100 * net.mean():.2f}".replace("-", "−")
    )
    assert " ± " in text.loc["Two-stage", "Over index, net"]
    assert "IC" not in text.columns  # no run has one
    assert list(table.paired_text()["A gain?"]) == ["yes", "not against its control"]


def test_the_protocol_says_what_a_reader_must_know(table):
    said = " ".join(protocol(table))
    for fact in ("2019-01-02", "(400)", "frozen: 18", "blocks of 20", "2, Holm"):
        assert fact in said
    single = build_table(COMPARISON, {("plain", 0): run(0, 0, 0)})
    assert "One seed only, so no spread over seeds: Two-stage." in " ".join(protocol(single))
    assert "±" not in markdown(single.text()) and len(single.paired_text()) == 0


def test_files(table, tmp_path):
    paths = {path.name: path for path in write_comparison(table, tmp_path / "out")}
    assert set(paths) == {
        "comparison.md", "comparison.csv", "comparison.html", "frontier.svg", "growth.svg"
    }  # fmt: skip
    page = paths["comparison.html"].read_text()
    assert "A <b>copy" not in page and "A &lt;b&gt;copy" in page and page.count("<svg") == 2
    back = pd.read_csv(paths["comparison.csv"], index_col=["method", "seed"])
    np.testing.assert_allclose(back["net_equal"], table.runs["net_equal"])
    rows = [line for line in paths["comparison.md"].read_text().splitlines() if line[:1] == "|"]
    assert len(rows) == 2 + 3 + 2 + 2
    assert len({row.count("|") for row in rows[:5]}) == 1


def test_runs_of_other_days_are_refused(table):
    results = {("plain", 0): run(0, 0, 0), ("plain", 1): run(0, 0, 1, DAYS[1:])}
    with pytest.raises(DataError, match="'plain' were not made on the same days"):
        build_table(COMPARISON, results)
    results = {("plain", 0): run(0, 0, 0), ("cheap", 0): run(0, 0, 1, DAYS[1:])}
    with pytest.raises(DataError, match="same days"):
        build_table(COMPARISON, results)
