"""A real folder of one CSV file a stock, from import and check to appended days."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.importer import import_provider
from bpqp_portfolio.data.provider.summary import summary
from bpqp_portfolio.data.quality.check import check_provider

pytestmark = pytest.mark.real_data
ARCHIVE = "us_stocks_2013_2018.tar.xz"
NAMES = ["AAPL", "ALLE", "BRK.B", "CHD", "FTV", "LNT", "MSFT", "SPG"]
LAST = "2018-01-31"


@pytest.fixture(scope="module")
def prices(real_archive: Path, tmp_path_factory) -> Path:
    """The files of a few names, or a skip."""
    path = real_archive.with_name(ARCHIVE)
    if not path.is_file():
        pytest.skip(f"no {ARCHIVE} beside {real_archive}")
    folder = tmp_path_factory.mktemp("prices")
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.rpartition("/")[2].removesuffix("_data.csv") in NAMES:
                archive.extract(member, folder, filter="data")
    return folder / "us_stocks"


def test_a_folder_of_files_is_imported_checked_and_continued(prices, tmp_path):
    whole = import_provider(prices, tmp_path / "whole", progress=False)
    assert whole.names == NAMES and len(whole.calendar) == 1259
    assert "may be cut off" not in summary(whole)
    apple = pd.read_csv(prices / "AAPL_data.csv", parse_dates=["date"]).set_index("date")
    for field in ("open", "high", "low", "close", "volume"):
        expected = apple[field].reindex(whole.calendar).to_numpy(np.float32)
        np.testing.assert_array_equal(whole.series("AAPL", field), expected)

    report = check_provider(whole.root)
    assert report.errors == 0
    # The prices before a split that the source forgot to adjust, the largest fault first.
    assert report["ohlc"].places[0].startswith("LNT 2016-05-19: open 35.19")
    assert report["move-large"].places == ("LNT 2016-05-20 (+101.0%)",)
    assert "universe-survivors" in report

    for name, kept in (("old", lambda d: d <= LAST), ("new", lambda d: d >= LAST)):
        (tmp_path / name).mkdir()
        for path in prices.iterdir():
            table = pd.read_csv(path, dtype=str)
            table[kept(table["date"])].to_csv(tmp_path / name / path.name, index=False)
    import_provider(tmp_path / "old", tmp_path / "grown", progress=False)
    grown = import_provider(tmp_path / "new", tmp_path / "grown", append=True, progress=False)
    assert grown.calendar.equals(whole.calendar)
    pd.testing.assert_frame_equal(grown.spells("all"), whole.spells("all"))
    for name in NAMES:
        for field in whole.fields(name):
            np.testing.assert_array_equal(grown.series(name, field), whole.series(name, field))
