"""The final table: which books have rows, what they are called, and what has no figure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.report.metrics import book_rows, format_metric, other_rows, summarise

DAYS = pd.bdate_range("2020-01-01", periods=2)


def test_every_book_has_its_row_and_its_own_figures(run):
    summary = summarise(run)
    rows = dict(book_rows(summary, "the index"))
    sections = {
        "Portfolio, without cost": ("portfolio", "without_cost"),
        "Portfolio, with cost": ("portfolio", "with_cost"),
        "Over the index, without cost": ("excess_index", "without_cost"),
        "Over the index, with cost": ("excess_index", "with_cost"),
        "Over equal weights, without cost": ("excess_equal", "without_cost"),
        "Over equal weights, with cost": ("excess_equal", "with_cost"),
        "The index": ("index", "without_cost"),
        "Equal weights": ("equal", "without_cost"),
    }
    assert list(rows) == list(sections)
    for label, (section, cost) in sections.items():
        value = summary.loc[(section, "annual_return"), cost]
        assert rows[label][0] == format_metric("annual_return", value)


def test_a_book_of_one_day_has_no_annual_figure(changed):
    daily = pd.DataFrame({"return": [0.01], "bench": [0.02]}, index=DAYS[:1])
    rows = dict(book_rows(summarise(changed(daily=daily))))
    assert rows["Portfolio, without cost"][:3] == ["–", "–", "–"]
    assert "Index" in rows and "Equal weights" not in rows


def test_figures_have_their_labels(run):
    rows = dict(other_rows(summarise(run), "signal"))
    assert rows["IC"] == format_metric("ic", run.signal["ic"].mean())
    assert rows["Regret a day"] == format_metric("regret", run.signal["regret"].mean())


def test_one_order_that_was_blocked_is_all_of_them(changed):
    daily = pd.DataFrame({"return": 0.0, "orders": [1.0, 0.0], "blocked": [1.0, 0.0]}, index=DAYS)
    share = summarise(changed(daily=daily)).loc[("trading", "blocked_share"), "without_cost"]
    assert share == 1.0


@pytest.mark.parametrize("days", [1, 2])
def test_a_correlation_that_does_not_vary_has_no_ratio(changed, days):
    signal = pd.DataFrame({"ic": np.full(days, 0.25), "rank_ic": np.full(days, 0.5)}, DAYS[:days])
    summary = summarise(changed(signal=signal))["without_cost"]
    assert summary["signal", "ic"] == 0.25 and summary["signal", "rank_ic"] == 0.5
    assert math.isnan(summary["signal", "icir"]) and math.isnan(summary["signal", "rank_icir"])
