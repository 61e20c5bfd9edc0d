"""The final table against Qlib's own figures and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bpqp_portfolio.report.metrics import (
    TRADING_DAYS,
    book_rows,
    flatten,
    format_metric,
    other_rows,
    print_summary,
    risk,
    summarise,
)

SQRT = math.sqrt(TRADING_DAYS)


def qlib_risk(returns: pd.Series) -> dict[str, float]:
    from qlib.contrib.evaluate import risk_analysis

    table = risk_analysis(returns, freq="day")["risk"]
    return {
        "annual_return": table["annualized_return"],
        "annual_volatility": table["std"] * SQRT,
        "information_ratio": table["information_ratio"],
        "max_drawdown": table["max_drawdown"],
    }


def test_books_are_qlibs_numbers_exactly(run):
    daily, summary = run.daily, summarise(run)
    gross, net = daily["return"], daily["return"] - daily["cost"]
    expected = {
        ("portfolio", "without_cost"): gross,
        ("portfolio", "with_cost"): net,
        # Qlib's own order of subtraction, as its portfolio record has it.
        ("excess_index", "without_cost"): daily["return"] - daily["bench"],
        ("excess_index", "with_cost"): daily["return"] - daily["bench"] - daily["cost"],
        ("excess_equal", "without_cost"): daily["return"] - daily["bench_equal"],
        ("excess_equal", "with_cost"): daily["return"] - daily["bench_equal"] - daily["cost"],
        ("index", "without_cost"): daily["bench"],
        ("equal", "without_cost"): daily["bench_equal"],
    }
    for (section, cost), returns in expected.items():
        for metric, value in qlib_risk(returns).items():
            ours = summary.loc[(section, metric), cost]
            assert ours == pytest.approx(value, rel=1e-12), (section, cost, metric)


def test_missing_days_are_left_out_as_qlib_does(run):
    returns = run.daily["return"].copy()
    returns.iloc[[3, 40]] = np.nan
    assert risk(returns) == pytest.approx(qlib_risk(returns), rel=1e-12)


def test_closed_form():
    figures = risk(pd.Series([0.02, -0.01, -0.02, 0.03]))
    assert figures["annual_return"] == pytest.approx(0.005 * 238)
    std = math.sqrt((0.015**2 + 0.015**2 + 0.025**2 + 0.025**2) / 3)
    assert figures["annual_volatility"] == pytest.approx(std * SQRT)
    assert figures["information_ratio"] == pytest.approx(0.005 / std * SQRT)
    assert figures["max_drawdown"] == pytest.approx(-0.03)  # summed: from 0.02 to −0.01


def test_one_day_has_a_mean_and_no_spread():
    figures = risk(pd.Series([0.01]))
    assert figures["annual_return"] == pytest.approx(2.38)
    assert math.isnan(figures["annual_volatility"])
    assert math.isnan(figures["information_ratio"])
    assert figures["max_drawdown"] == 0


def test_signal_figures(run):
    summary = summarise(run)["without_cost"]
    ic, rank = run.signal["ic"].to_numpy(), run.signal["rank_ic"].to_numpy()
    assert summary["signal", "ic"] == pytest.approx(ic.mean())
    assert summary["signal", "icir"] == pytest.approx(ic.mean() / ic.std(ddof=1))
    assert summary["signal", "rank_ic"] == pytest.approx(rank.mean())
    assert summary["signal", "rank_icir"] == pytest.approx(rank.mean() / rank.std(ddof=1))
    assert summary["signal", "regret"] == pytest.approx(run.signal["regret"].to_numpy().mean())


def test_turnover_is_one_way_and_cost_annual(changed):
    days = pd.bdate_range("2020-01-01", periods=2)
    daily = pd.DataFrame(
        {"return": 0.0, "turnover": [1.0, 0.5], "cost": 0.001, "names_held": [3.0, 4.0]},
        index=days,
    )
    summary = summarise(changed(daily=daily))
    assert summary.loc[("trading", "turnover"), "without_cost"] == pytest.approx(0.375)
    assert summary.loc[("trading", "annual_cost"), "without_cost"] == pytest.approx(0.238)
    assert summary.loc[("trading", "names_held"), "without_cost"] == pytest.approx(3.5)


def test_the_blocked_share_is_that_of_all_orders_of_the_test(changed):
    days = pd.bdate_range("2020-01-01", periods=3)
    daily = pd.DataFrame(
        {"return": 0.0, "orders": [10.0, 0.0, 30.0], "blocked": [1.0, 0.0, 1.0]}, index=days
    )
    share = summarise(changed(daily=daily)).loc[("trading", "blocked_share"), "without_cost"]
    assert share == pytest.approx(2 / 40)
    none = summarise(changed(daily=daily.assign(orders=0.0, blocked=0.0)))
    assert math.isnan(none.loc[("trading", "blocked_share"), "without_cost"])


def test_absent_columns_are_nan_and_not_zero(run, changed):
    bare = changed(daily=run.daily[["return"]], signal=pd.DataFrame())
    summary = summarise(bare)
    assert summary.index.equals(summarise(run).index)
    present = summary.loc["portfolio"]["without_cost"]
    assert present.notna().all()
    assert summary.drop(index="portfolio", level=0).isna().all(axis=None)
    assert summary.loc["portfolio"]["with_cost"].isna().all()
    assert [label for label, _ in book_rows(summary)] == ["Portfolio, without cost"]
    assert other_rows(summary, "signal") == []


def test_flat_names_hold_every_finite_figure(run):
    summary = summarise(run)
    flat = flatten(summary)
    assert len(flat) == int(np.isfinite(summary.to_numpy()).sum())
    assert flat["bpqp.regret"] == summary.loc[("signal", "regret"), "without_cost"]
    key = ("excess_index", "annual_return")
    assert flat["bpqp.excess_index.annual_return.with_cost"] == summary.loc[key, "with_cost"]
    assert flat["bpqp.index.max_drawdown"] < 0
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz_.") for name in flat)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("annual_return", -0.0312, "−3.12\N{NO-BREAK SPACE}%"),
        ("information_ratio", -1.256, "−1.26"),
        ("ic", 0.02514, "0.0251"),
        ("ic", math.nan, "–"),
        ("information_ratio", math.inf, "–"),
    ],
)
def test_format(metric, value, text):
    assert format_metric(metric, value) == text


def test_terminal_table_fits_eighty_columns(run):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    summary = summarise(run)
    print_summary(summary, {"data": 1.25, "train [gpu]": 2.0}, console)
    text = console.export_text()
    assert "Portfolio, with cost" in text and "Over equal weights, without cost" in text
    assert format_metric("ic", summary.loc[("signal", "ic"), "without_cost"]) in text
    assert "train [gpu]" in text and "3.2" in text
    assert not any(line.rstrip().endswith("cost │") for line in text.splitlines())
