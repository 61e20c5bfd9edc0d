"""Segments: trading days in order, no label that reaches into the next, a test that can trade."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.qlib_ext.segments import check_segments

CALENDAR = pd.bdate_range("2020-01-01", "2020-12-31")  # Wednesday to Thursday
GOOD = {
    "train": ["2020-02-03", "2020-06-30"],
    "valid": ["2020-07-01", "2020-09-30"],
    "test": ["2020-10-01", "2020-12-15"],
}


def days(spans) -> dict[str, tuple[str, str]]:
    return {name: tuple(f"{d:%Y-%m-%d}" for d in span) for name, span in spans.items()}


def check(**changes):
    return days(check_segments({**GOOD, **changes}, CALENDAR))


def test_the_last_labels_of_train_and_valid_are_known_when_the_next_begins(capsys):
    """The label of day t needs the closes of t+1 and t+2; both lie before the next segment."""
    assert check() == {
        "train": ("2020-02-03", "2020-06-26"),  # 29 and 30 June are the label's days
        "valid": ("2020-07-01", "2020-09-28"),
        "test": ("2020-10-01", "2020-12-15"),
    }
    assert capsys.readouterr().out == ""


def test_a_gap_before_the_next_segment_is_enough():
    spans = check(train=["2020-02-03", "2020-06-26"], valid=["2020-07-01", "2020-09-15"])
    assert spans["train"][1] == "2020-06-26" and spans["valid"][1] == "2020-09-15"
    assert check(train=["2020-02-03", "2020-06-29"])["train"][1] == "2020-06-26"


def test_ends_that_are_no_trading_days_move_inwards():
    spans = check(train=["2020-02-01", "2020-06-07"], test=["2020-10-03", "2020-11-01"])
    assert spans["train"] == ("2020-02-03", "2020-06-05")
    assert spans["test"] == ("2020-10-05", "2020-10-30")


@pytest.mark.parametrize("end", ["2020-12-31", "2021-01-31"])
def test_a_test_up_to_the_last_day_is_cut_with_a_note(capsys, end):
    assert check(test=["2020-10-01", end])["test"] == ("2020-10-01", "2020-12-30")
    out = capsys.readouterr().out
    assert "note:" in out and "calendar's last day" in out and "cut to 2020-12-30" in out


def test_yaml_may_give_dates_and_days_before_a_first_holiday():
    date = datetime.date(2020, 2, 3)
    assert check(train=[date, datetime.date(2020, 6, 5)])["train"] == ("2020-02-03", "2020-06-05")
    assert check(train=["2019-12-20", "2020-06-05"])["train"][0] == "2020-01-01"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ["2020-02-03", "2020-07-01"]}, r"train \(to 2020-07-01\) overlaps valid \(from"),
        ({"valid": ["2020-07-01", "2020-11-02"]}, r"valid \(to 2020-11-02\) overlaps test"),
        ({"train": ["2020-10-05", "2020-10-30"]}, "train .* overlaps valid"),
        ({"train": ["2020-06-30", "2020-02-03"]}, "train: 2020-06-30 is after 2020-02-03"),
        ({"test": ["2021-01-01", "2021-03-01"]}, "test: .* outside the calendar, which runs from"),
        ({"train": ["2010-01-01", "2011-01-01"]}, "train: .* outside the calendar"),
        (
            {"train": ["2019-06-01", "2020-06-30"]},
            r"train: begins on 2019-06-01, 214 days before the calendar \(2020-01-01",
        ),
        ({"train": ["2020-02-08", "2020-02-09"]}, "train: no trading day"),
        ({"train": ["2020-06-29", "2020-06-30"]}, "train: needs more than 2 trading days"),
        ({"test": ["2020-12-31", "2020-12-31"]}, "test: needs a trading day before"),
        ({"test": ["2020-12-01", "2020-12-01"]}, r"test: 1 trading day \(2020-12-01 .*earned"),
        ({"test": ["2020-12-01", "2020-12-02"]}, "test: 2 trading days .* Take 3 days or more"),
        ({"test": ["2020-12-30", "2020-12-31"]}, "test: 1 trading day "),
        ({"train": "2020-02-03"}, "train: expected two dates, got '2020-02-03'"),
        ({"train": ["2020-02-03"]}, "train: expected two dates"),
        ({"train": None}, "train: expected two dates, got None"),
        (
            {"train": ["2020-02-33", "2020-06-30"]},
            "train: '2020-02-33' is no date of the form YYYY",
        ),
        ({"train": ["02.01.2015", "2020-06-30"]}, "train: '02.01.2015' is no date of the form"),
        ({"train": ["2020", "2020-06-30"]}, "train: '2020' is no date of the form"),
        ({"train": [20200203, "2020-06-30"]}, "train: 20200203 is no date of the form"),
        ({"test": ["2020-10-01", "2021-06-30"]}, r"test: .* end on 2020-12-31: 181 days of it are"),
        (
            {"test": ["2020-10-01", "2091-06-30"]},
            r"70.5 years of it are missing. End it on 2020-12",
        ),
        ({"train": ["2020-02-03", None]}, "train: None is no date"),
        ({"trian": ["2020-02-03", "2020-06-30"]}, "unknown key 'trian'. Did you mean 'train'"),
    ],
)
def test_bad_segments_are_named(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check(**changes)
    assert str(caught.value).startswith("segments")


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_segment_is_named(name):
    with pytest.raises(ConfigError, match=f"segments: '{name}' is missing"):
        check_segments({k: v for k, v in GOOD.items() if k != name}, CALENDAR)


def test_segments_at_the_very_beginning_of_the_calendar():
    """Two days of train cannot have a label before valid; four can."""
    first = [f"{d:%Y-%m-%d}" for d in CALENDAR[:5]]
    with pytest.raises(ConfigError, match="train: needs more than 2"):
        check(train=[first[0], first[1]], valid=[first[2], "2020-09-30"])
    spans = check(train=[first[0], first[3]], valid=[first[4], "2020-09-30"])
    assert spans["train"] == (first[0], first[1])
