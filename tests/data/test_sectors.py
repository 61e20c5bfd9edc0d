"""The table of sectors: dates, names it does not know, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.universe.sectors import NONE, read_sectors
from bpqp_portfolio.errors import DataError

DATES = pd.bdate_range("2020-01-06", periods=10)
NAMES = ["AAA", "BBB", "NA"]


def read(tmp_path, text):
    (tmp_path / "sectors.csv").write_text(text)
    return read_sectors(tmp_path / "sectors.csv", DATES, NAMES)


def test_without_dates_a_sector_is_for_ever(tmp_path):
    found = read(tmp_path, "instrument,sector\naaa,banks\nNA,mines\nZZZ,banks\n")
    assert found.titles == ("banks", "mines")
    assert (found.codes == [0, NONE, 1]).all()
    assert list(found.of_day(3)) == ["banks", "", "mines"]


def test_dates_are_included_and_open_where_empty(tmp_path):
    found = read(
        tmp_path,
        "instrument,sector,from,to\nAAA,banks,,2020-01-08\nAAA,mines,2020-01-11,\n"
        "BBB,mines,2020-01-14,2020-01-14\n",
    )
    assert list(found.codes[:, 0]) == [0, 0, 0, NONE, NONE, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(np.flatnonzero(found.codes[:, 1] == 1), [6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,sector\nAAA,banks\n", "line 1: expected the columns instrument,sector"),
        ("instrument,sector\nAAA,\n", "line 2: the sector is empty"),
        ("instrument,sector\nAAA,x\n ,x\n", "line 3: the instrument is empty"),
        ("instrument,sector,from\nAAA,x,2020\n", "line 2: from '2020' is no date"),
        (
            "instrument,sector,from,to\nAAA,x,,2020-01-08\nAAA,y,2020-01-08,\n",
            "line 3: AAA has another sector on 2020-01-08 already",
        ),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_an_absent_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the sectors .*nowhere\.csv"):
        read_sectors(tmp_path / "nowhere.csv", DATES, NAMES)
