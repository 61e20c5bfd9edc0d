"""The final table against Qlib's own figures and against closed forms."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.markets.rules import MARKET_RULES, market_rules
from bpqp_portfolio.markets.rules import QLIB_DAYS_PER_YEAR as QLIB
from bpqp_portfolio.report.headline import headline
from bpqp_portfolio.report.metrics import (
    FEWEST,
    book_rows,
    cautions,
    flatten,
    format_metric,
    other_rows,
    risk,
    summarise,
)
from bpqp_portfolio.report.terminal import print_summary

SQRT = math.sqrt(QLIB)


def qlib_risk(returns: pd.Series) -> dict[str, float]:
    from qlib.contrib.evaluate import risk_analysis

    table = risk_analysis(returns, freq="day")["risk"]
    # Of returns alone Qlib's curve begins on the first day: the eve's 1 is a return of zero.
    start = pd.concat([pd.Series([0.0], returns.index[:1] - pd.Timedelta(days=1)), returns])
    curve = risk_analysis(start, freq="day", mode="product")["risk"]
    return {
        "annual_return": table["annualized_return"],
        "annual_volatility": table["std"] * SQRT,
        "information_ratio": table["information_ratio"],
        "max_drawdown": curve["max_drawdown"],
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
    assert risk(returns, QLIB) == pytest.approx(qlib_risk(returns), rel=1e-12)


def series(returns):
    days = pd.bdate_range("2020-01-01", periods=len(returns))
    return pd.Series(returns, index=days, dtype=float)


def test_closed_form():
    figures = risk(series([0.02, -0.01, -0.02, 0.03] * 5), QLIB)
    assert figures["annual_return"] == pytest.approx(0.005 * 238)
    std = math.sqrt(5 * (0.015**2 + 0.015**2 + 0.025**2 + 0.025**2) / 19)
    assert figures["annual_volatility"] == pytest.approx(std * SQRT)
    assert figures["information_ratio"] == pytest.approx(0.005 / std * SQRT)
    assert figures["max_drawdown"] == pytest.approx(0.99 * 0.98 - 1)


@pytest.mark.parametrize("region", MARKET_RULES)
def test_annual_figures_count_the_days_of_their_market(region):
    year = market_rules(region).days_per_year
    figures = risk(series([0.02, -0.01] * 20), year)
    assert figures["annual_return"] == pytest.approx(0.005 * year)
    std = 0.015 * math.sqrt(40 / 39)
    assert figures["annual_volatility"] == pytest.approx(std * math.sqrt(year))
    assert figures["information_ratio"] == pytest.approx(0.005 / std * math.sqrt(year))


def test_the_years_are_those_of_the_markets(run, changed):
    us = changed(settings={**run.settings, "days_per_year": market_rules("us").days_per_year})
    assert us.years == pytest.approx(260 / 252)
    assert run.days_per_year == QLIB  # of results saved before the market's year was kept
    ours, qlibs = (summarise(r).loc[("index", "annual_return"), "without_cost"] for r in (us, run))
    assert ours / qlibs == pytest.approx(252 / 238)
    cost = [summarise(r).loc[("trading", "annual_cost"), "without_cost"] for r in (us, run)]
    assert cost[0] / cost[1] == pytest.approx(252 / 238)


def test_an_unknown_market_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown region 'usa'\. Did you mean 'us'"):
        market_rules("usa")


@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=60))
def test_a_drawdown_is_that_of_a_curve_of_wealth(returns):
    worst, wealth, highest = 0.0, 1.0, 1.0
    for one in returns:
        wealth *= 1 + one
        highest = max(highest, wealth)
        worst = min(worst, wealth / highest - 1)
    assert risk(series(returns), QLIB)["max_drawdown"] == pytest.approx(worst, abs=1e-12)
    assert worst >= -1


def test_a_loss_of_many_days_over_the_index_stays_above_minus_one(changed):
    """Summed, these falls are 1.3 times the account."""
    days = pd.bdate_range("2015-01-01", periods=2000)
    daily = pd.DataFrame({"return": 0.0, "bench": 0.00065, "turnover": 1.0}, index=days)
    fall = summarise(changed(daily=daily)).loc[("excess_index", "max_drawdown"), "without_cost"]
    assert fall == pytest.approx((1 - 0.00065) ** 2000 - 1)
    assert -1 < fall < -0.7


@pytest.mark.parametrize("days", [1, 2, 4, FEWEST - 1])
def test_few_days_have_no_annual_figure_and_say_so(changed, days):
    index = pd.bdate_range("2020-01-01", periods=days)
    daily = pd.DataFrame(
        {"return": 0.01, "bench": 0.0, "bench_equal": 0.0, "cost": 0.001, "turnover": 0.5},
        index=index,
    )
    results = changed(daily=daily)
    summary = summarise(results)
    for (section, metric), row in summary.iterrows():
        if "annual" in metric or metric == "information_ratio":
            assert row.isna().all(), (section, metric)
    assert not [name for name in flatten(summary) if "annual" in name or "ratio" in name]
    assert flatten(summary)["bpqp.trading_days"] == days
    (said,) = cautions(results)
    assert said.startswith(f"{days} trading day{'s' if days > 1 else ''}: too few")


def test_less_than_a_year_is_said_to_be_little(run, changed):
    (said,) = cautions(changed(daily=run.daily.iloc[:60]))
    assert "60 trading days are 0.25 years" in said and "2.0" in said
    assert cautions(run) == []


def test_an_account_that_never_traded_has_no_figures(run, changed):
    still = changed(daily=run.daily.assign(turnover=0.0, cost=0.0, **{"return": 0.0}))
    summary = summarise(still)
    for section in ("portfolio", "excess_index", "excess_equal"):
        assert summary.loc[section].isna().all(axis=None)
    assert summary.loc["index"]["without_cost"].notna().all()


def test_signal_figures(run):
    summary = summarise(run)["without_cost"]
    ic, rank = run.signal["ic"].to_numpy(), run.signal["rank_ic"].to_numpy()
    assert summary["signal", "ic"] == pytest.approx(ic.mean())
    assert summary["signal", "icir"] == pytest.approx(ic.mean() / ic.std(ddof=1))
    assert summary["signal", "rank_ic"] == pytest.approx(rank.mean())
    assert summary["signal", "rank_icir"] == pytest.approx(rank.mean() / rank.std(ddof=1))
    assert summary["signal", "regret"] == pytest.approx(run.signal["regret"].to_numpy().mean())


def test_turnover_is_one_way_and_cost_annual(changed):
    days = pd.bdate_range("2020-01-01", periods=20)
    daily = pd.DataFrame(
        {"return": 0.0, "turnover": [1.0, 0.5] * 10, "cost": 0.001, "names_held": [3.0, 4.0] * 10},
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
    others = summary.drop(index="portfolio", level=0).drop(index=("trading", "trading_days"))
    assert others.isna().all(axis=None)
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


def printed(results):
    """What the terminal shows of a run, on eighty columns."""
    console = Console(width=80, record=True, file=io.StringIO())
    print_summary(summarise(results), results, console)
    return console.export_text()


def test_the_terminal_shows_the_truth_where_it_is_known(run):
    text = printed(run)
    assert text.index("less true regret than two stages") < text.index(headline(run)[0][:40])
    for name in ("True optimum", "End to end", "Two stages", "Equal weights"):
        assert re.search(rf"^{name} +\d+\.\d\d +20 +[+−]", text, re.MULTILINE)
    assert "Portfolio, with cost" not in text and len(text.splitlines()) < 20


def test_terminal_table_fits_eighty_columns(changed):
    run = changed(truth=pd.DataFrame())
    summary, text = summarise(run), printed(run)
    assert "true regret" not in text
    assert "Portfolio, with cost" in text and "Over equal weights, without cost" in text
    assert format_metric("ic", summary.loc[("signal", "ic"), "without_cost"]) in text
    assert not any(line.rstrip().endswith("cost") for line in text.splitlines())
