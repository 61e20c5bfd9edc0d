"""Exclusions: the file, what is refused in it, and the mask."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.quality.exclusions import (
    Exclusion,
    Exclusions,
    read_exclusions,
    write_exclusions,
)
from bpqp_portfolio.errors import DataError


def entry(name: str, day: str, reason: str = "wrong") -> Exclusion:
    return Exclusion(name, pd.Timestamp(day), reason)


ENTRIES = (
    entry("SZ000001", "2020-12-31", 'a "quoted", reason'),
    entry("SH600000", "2020-12-31"),
    entry("SH600000", "2011-03-04"),
)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "sub" / "exclusions.csv"
    write_exclusions(path, Exclusions(ENTRIES))
    assert read_exclusions(path) == Exclusions(ENTRIES)
    assert path.read_text().splitlines()[:2] == ["instrument,date,reason",
                                                 "SH600000,2011-03-04,wrong"]  # fmt: skip
    write_exclusions(path, Exclusions())
    assert len(read_exclusions(path)) == 0


def test_order_does_not_matter_and_a_day_counts_once():
    again = Exclusions((*ENTRIES, entry("SH600000", "2011-03-04", "another reason")))
    assert again == Exclusions(ENTRIES[::-1])
    assert len(again) == 3
    assert [e.date for e in again] == sorted(e.date for e in ENTRIES)


def test_mask_marks_name_and_day_and_nothing_else():
    dates = pd.DatetimeIndex(["2011-03-03", "2011-03-04", "2020-12-31"])
    mask = Exclusions(ENTRIES).mask(dates, ["SH600000", "SH600004", "SZ000001"])
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, [[0, 0, 0], [1, 0, 0], [1, 0, 1]])


def test_mask_leaves_out_what_is_elsewhere():
    dates = pd.DatetimeIndex(["2015-01-05"])
    assert not Exclusions(ENTRIES).mask(dates, ["SH600000"]).any()
    assert not Exclusions(ENTRIES).mask(pd.DatetimeIndex(["2020-12-31"]), ["SH600004"]).any()
    assert Exclusions().mask(dates, ["SH600000", "SZ000001"]).shape == (1, 2)
    assert Exclusions(ENTRIES).mask(dates, []).shape == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns instrument,date,reason, got nothing"),
        ("name,date,reason\n", "line 1: expected the columns"),
        ("instrument,date,reason\nA,2020-01-02,x\nB,2020-13-02,x\n", "line 3: '2020-13-02'"),
        ("instrument,date,reason\nA,02.01.2020,x\n", "line 2: '02.01.2020'"),
        ("instrument,date,reason\nA,,x\n", "line 2: the date is empty"),
        ("instrument,date,reason\n,2020-01-02,x\n", "line 2: the instrument is empty"),
        ("instrument,date,reason\n\nA,2020-01-02\n", "line 3: expected 3 values, got 2"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "exclusions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_exclusions(path)


def test_an_absent_or_binary_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot read the exclusions"):
        read_exclusions(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="cannot read the exclusions"):
        read_exclusions(tmp_path / "binary.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "exclusions.csv"
    write_exclusions(path, Exclusions(ENTRIES))
    broken = Exclusions((entry("A", "2020-01-02"), entry("B", "2020-01-03", "\ud800")))
    with pytest.raises(UnicodeEncodeError):
        write_exclusions(path, broken)
    assert read_exclusions(path) == Exclusions(ENTRIES)
    assert [p.name for p in tmp_path.iterdir()] == ["exclusions.csv"]
