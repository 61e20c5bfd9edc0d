"""The mandate's part of the report: tables by hand, escaped reasons, and nothing without one."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from bpqp_portfolio.report.mandate import cause_table, constraint_table, event_counts
from bpqp_portfolio.report.page import render
from bpqp_portfolio.runs.results import load_results, save_results

DAYS = pd.DatetimeIndex(["2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09"])


@pytest.fixture
def few(changed):
    """Four days with figures that can be checked by hand."""
    activity = pd.DataFrame(
        {
            "datetime": DAYS.repeat(2),
            "constraint": ["turnover", "idle"] * 4,
            "binding": [1.0, 0, 1.0, 0, 0, 0, 0, 0],
            "price": [0.001, 0, 0.003, 0, 0, 0, 0, 0],
        }
    )
    shortfall = pd.DataFrame(0.0, index=DAYS, columns=changed().implementation_shortfall.columns)
    shortfall["gap"] = [0.01, 0.02, 0.03, 0.02]
    shortfall["gap_return_lots"] = [0.001, 0.0, 0.0, float("nan")]
    events = pd.DataFrame(
        {"datetime": DAYS[:3], "action": ["held", "relaxed", "held"], "reason": "<b>why</b>"}
    )
    return changed(activity=activity, implementation_shortfall=shortfall, events=events)


def test_shares_and_prices_by_hand(few):
    """A dual of 0.002 is 0.2 basis points a day for a percentage point."""
    table = constraint_table(few)
    assert list(table.index) == ["turnover", "idle"]
    assert table.loc["turnover"].tolist() == pytest.approx([0.5, 0.2, 0.1])
    assert table.loc["idle"].tolist() == [0, 0, 0]


def test_differences_and_what_they_earned_by_hand(few):
    table = cause_table(few)
    assert table.loc["all", "gap"] == pytest.approx(0.02)
    assert table["annual"].isna().all()  # four days are no year
    days = pd.bdate_range("2020-01-06", periods=20)
    longer = pd.concat([few.implementation_shortfall] * 5).set_axis(days)
    earned = cause_table(dataclasses.replace(few, implementation_shortfall=longer)).loc[
        "lots", "annual"
    ]
    assert earned == pytest.approx(0.001 / 3 * 238)
    assert event_counts(few).to_dict() == {"held": 2, "relaxed": 1}


def test_the_page_shows_them_escaped(few):
    page = render(few)
    section = page[page.index('<section id="mandate">') : page.index('<section id="solver">')]
    assert "50.00" in section and "0.200" in section
    assert "2 times held, 1 time relaxed" in section
    assert "&lt;b&gt;why" in section and "<b>why" not in section


def test_a_run_without_a_mandate_has_no_such_section(changed, few):
    empty = pd.DataFrame()
    page = render(changed(activity=empty, implementation_shortfall=empty, events=empty))
    assert "Mandate" not in page.replace("mandate:", "") and "figure-binding" not in page
    calm = render(changed(events=empty))
    assert "every day was solved with all constraints" in calm


def test_tables_survive_a_folder_and_may_be_absent(changed, few, tmp_path):
    again = load_results(save_results(few, tmp_path / "with"))
    pd.testing.assert_frame_equal(again.activity, few.activity)
    pd.testing.assert_frame_equal(
        again.implementation_shortfall, few.implementation_shortfall, check_freq=False
    )
    empty = pd.DataFrame()
    folder = save_results(
        changed(activity=empty, implementation_shortfall=empty, events=empty), tmp_path / "without"
    )
    assert not (folder / "events.parquet").exists()
    assert load_results(folder).events.empty
