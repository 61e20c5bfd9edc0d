"""Dates are YYYY-MM-DD or refused: no other form has one reading alone."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.data.quality.exclusions import read_exclusions
from bpqp_portfolio.data.universe.dated import read_dated
from bpqp_portfolio.data.universe.sectors import read_sectors
from bpqp_portfolio.errors import DataError, ProviderError
from bpqp_portfolio.files.dates import iso_day, iso_days

WRONG = ["02.01.2015", "1/2/2015", "2015-1-2", "20150102", "2015-02-30", "2015", "", "2015-W01-1"]


@pytest.mark.parametrize("value", [*WRONG, None, 20150102, 2015.0, True, float("nan"), pd.NaT])
def test_no_day(value):
    assert iso_day(value) is None


def test_days_as_text_and_as_yaml_reads_them():
    day = pd.Timestamp("2015-01-02")
    for value in ("2015-01-02", datetime.date(2015, 1, 2), datetime.datetime(2015, 1, 2), day):
        assert iso_day(value) == day
    assert iso_day(datetime.datetime(2015, 1, 2, 9)) is None
    assert iso_day(pd.Timestamp("2015-01-02", tz="UTC")) is None
    assert iso_day("9999-12-31") is None
    assert iso_days(pd.Series(["2015-01-02", *WRONG])).notna().tolist() == [True] + 8 * [False]


@pytest.mark.parametrize("date", ["02.01.2015", "1/2/2015", "2015-1-2"])
def test_every_table_refuses_another_form(tmp_path, date):
    days, path = pd.DatetimeIndex(["2015-01-02", "2015-02-01"]), tmp_path / "table.csv"
    said = rf"line 2.*'{date}' is no date of the form YYYY-MM-DD"
    path.write_text(f"date,instrument,weight\n{date},A,1\n")
    with pytest.raises(DataError, match=said):
        read_dated(path, "index weights", ["A"], ["weight"], weights=True)
    path.write_text(f"instrument,sector,from,to\nA,banks,{date},\n")
    with pytest.raises(DataError, match=said):
        read_sectors(path, days, ["A"])
    path.write_text(f"instrument,date,reason\nA,{date},wrong\n")
    with pytest.raises(DataError, match=said):
        read_exclusions(path)
    (tmp_path / "instruments").mkdir()
    line = f"A\t{date.replace('5-1', '5/1')}\t2016-01-04\n"
    (tmp_path / "instruments" / "all.txt").write_text(line)
    with pytest.raises(ProviderError, match=r"all\.txt, line 1: .* as YYYY-MM-DD; got A, "):
        Provider(tmp_path).spells("all")
