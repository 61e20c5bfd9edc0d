"""Tables as people have them: all shapes are read alike, and a refusal names its place."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.data.provider.importer import import_provider
from bpqp_portfolio.data.provider.summary import summary
from bpqp_portfolio.data.provider.table_file import Reading
from bpqp_portfolio.data.provider.tables import Tables, read_tables
from bpqp_portfolio.errors import ConfigError, DataError

DAYS = pd.bdate_range("2021-03-01", periods=6, name="Date")
FIELDS = ["Open", "High", "Low", "Close", "Volume"]


def table(seed=0, names=("AAPL", "LOW")):
    """Prices of cents and whole volumes by (field, name), as a vendor's frame."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name in names:
        close = np.round(1000 * np.exp(np.cumsum(rng.normal(0, 0.3, len(DAYS)))), 2)
        columns |= {(field, name): close for field in FIELDS[:4]}
        columns["Volume", name] = rng.integers(1, 10**8, len(DAYS)).astype(float)
    frame = pd.DataFrame(columns, index=DAYS)
    return frame.rename_axis(columns=["Price", "Ticker"])


def read(*files: Path, **options) -> Tables:
    return read_tables(files, Reading(**options), progress=False)


def text(folder: Path, content: str, name: str = "x.csv") -> Path:
    (folder / name).write_text(content)
    return folder / name


def long(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.stack("Ticker").reset_index()


def european(value: object) -> str:
    """A number as Germany writes it."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


def american(value: object) -> str:
    return f"${value:,.2f}" if isinstance(value, float) else str(value)


SHAPES = {
    "yfinance": lambda frame, at: frame.to_csv(at / "all.csv"),
    "yfinance by ticker": lambda frame, at: frame.swaplevel(axis=1).to_csv(at / "all.csv"),
    "older yfinance": lambda frame, at: frame.rename_axis(columns=[None, None]).to_csv(
        at / "all.csv"
    ),
    "without a name of the index": lambda frame, at: frame.rename_axis(index=None).to_csv(
        at / "all.csv"
    ),
    "yfinance in Parquet": lambda frame, at: frame.to_parquet(at / "all.parquet"),
    "a file a name": lambda frame, at: [
        frame.xs(name, axis=1, level="Ticker").to_csv(at / f"{name}.csv")
        for name in frame.columns.unique("Ticker")
    ],
    "a file a name, by a column Name": lambda frame, at: [
        rows.rename(columns={"Ticker": "Name"}).to_csv(at / f"{name}_data.csv", index=False)
        for name, rows in long(frame).groupby("Ticker")
    ],
    "long Parquet": lambda frame, at: long(frame).to_parquet(at / "all.parquet"),
    "semicolons and decimal commas": lambda frame, at: long(frame).map(european).to_csv(
        at / "all.csv", sep=";", index=False
    ),
    "dollars and thousands": lambda frame, at: long(frame).map(american).to_csv(
        at / "all.csv", index=False
    ),
    "tabs": lambda frame, at: long(frame).to_csv(at / "all.csv", sep="\t", index=False),
    "a wide file a field": lambda frame, at: [
        frame[field].to_csv(at / f"{field.lower()}.csv") for field in FIELDS
    ],
}  # fmt: skip


@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_is_read_alike_in_every_shape(shape, seed):
    frame = table(seed)
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[shape](frame, Path(folder))
        tables = read(*sorted(Path(folder).iterdir()))
    assert tables.calendar.equals(DAYS) and sorted(tables.frames) == ["AAPL", "LOW"]
    for name in tables.frames:
        fields = tables.read(name)
        assert sorted(fields) == ["close", "factor", "high", "low", "open", "volume"]
        for field in FIELDS:
            expected = frame[field, name].to_numpy(np.float32)
            np.testing.assert_array_equal(fields[field.lower()], expected)


def test_a_wide_table_of_closes_may_have_names_like_fields_and_gaps(tmp_path):
    header = "Date,AAPL,LOW,OPEN,MSFT,NVDA,IBM,^GSPC"
    path = text(tmp_path, f"{header}\n2021-03-01,1,2,3,4,5,6,7\n2021-03-02,1.5,,3,4,5,6,7\n")
    provider = import_provider(path, tmp_path / "out", progress=False)
    assert provider.fields("LOW") == ["change", "close", "factor"]
    np.testing.assert_array_equal(provider.series("LOW", "close"), np.float32([2, np.nan]))
    assert provider.manifest["indices"] == ["^GSPC"]


def test_yfinance_with_adj_close_and_columns_that_are_not_needed(tmp_path):
    path = text(
        tmp_path,
        "Price,Adj Close,Close,Dividends,Volume\nTicker,A,A,A,A\nDate,,,,\n"
        "2021-03-01,5,10,0,70\n2021-03-02,6,12,0,80\n",
    )
    tables = read(path)
    fields = tables.read("A")
    np.testing.assert_array_equal(fields["close"], np.float32([5, 6]))
    np.testing.assert_array_equal(fields["volume"], np.float32([140, 160]))
    assert tables.ignored == ["Dividends"]
    assert tables.place("A", pd.Timestamp("2021-03-02")) == "x.csv line 5"


@pytest.mark.parametrize(
    "head", ["symbol,date,open,close,volume", "Ticker,Date,Open,Close,Volume", "symbol,date,close"]
)
def test_a_long_table_may_begin_with_codes_of_letters(tmp_path, head):
    row = "{},2020-01-0{},10.5,11.5,700" if head.count(",") > 2 else "{},2020-01-0{},11.5"
    rows = [row.format(name, day) for name in ("AAPL", "MSFT") for day in (2, 3)]
    tables = read(text(tmp_path, "\n".join([head, *rows]) + "\n"))
    assert sorted(tables.frames) == ["AAPL", "MSFT"]
    np.testing.assert_array_equal(tables.read("AAPL")["close"], np.float32([11.5, 11.5]))


def test_two_rows_of_headings_may_have_codes_of_digits(tmp_path):
    path = text(tmp_path, "Price,Close,Close\nTicker,600000,0700.HK\nDate,,\n2021-03-01,1,2\n")
    assert sorted(read(path).frames) == ["0700.HK", "SH600000"]


@pytest.mark.parametrize(
    "content",
    [
        "Price,Adj Close,Close,Close\nTicker,A,A,B\nDate,,,\n2021-03-01,5,10,7\n",
        "date,symbol,close,adj close\n2021-03-01,A,10,5\n2021-03-01,A,10,5\n2021-03-01,B,7,\n",
        "date,symbol,close,adj_factor\n2021-03-01,A,5,2\n2021-03-01,A,5,2\n2021-03-01,B,7,\n",
    ],
)
def test_a_close_without_its_adjustment_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"x\.csv line 4: B has a close on 2021-03-01 and no adj_"):
        read(text(tmp_path, content))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"r.csv": "date,A,B\n2021-03-01,0.1,-0.1\n2021-03-02,-0.1,0\n"}, "r.csv holds no closes"),
        ({"returns.csv": "date,A\n2021-03-01,1\n"}, "returns.csv: by its name"),
        ({"daily_volume.csv": "date,A\n2021-03-01,1\n"}, "daily_volume.csv: by its name"),
        ({"volumes.csv": "date,A\n2021-03-01,1\n"}, "volumes.csv: by its name"),
        ({"market_cap.csv": "date,A\n2021-03-01,1\n"}, "market_cap.csv: by its name"),
        ({"AAPL.csv": "date,eps,pe\n2021-03-01,1,20\n"}, "AAPL.csv has no column for 'close'"),
        ({"close.csv": "date,A\n2021-03-01,1\n", "other.csv": "date,B\n2021-03-01,1\n"},
         "other.csv: beside wide tables"),
    ],
)  # fmt: skip
def test_a_table_of_something_else_is_not_read_as_closes(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        read(*(text(tmp_path, content, name) for name, content in files.items()))


def test_zeros_before_a_listing_are_no_returns(tmp_path):
    path = text(tmp_path, "date,A,B\n2021-03-01,1,0\n2021-03-02,1,0\n2021-03-03,1,2\n")
    assert len(read(path).calendar) == 3


@pytest.mark.parametrize("names", [("2020.csv", "2021.csv"), ("prices.csv", "volume.csv")])
def test_wide_tables_may_be_named_otherwise_where_that_is_plain(tmp_path, names):
    days = ("2020-03-02", "2021-03-01" if names[1] == "2021.csv" else "2020-03-02")
    files = [text(tmp_path, f"date,CAP,IBM\n{day},1,2\n" if name != "2021.csv" else
                  f"date,aapl,cap.l\n{day},1,2\n", name)
             for name, day in zip(names, days, strict=True)]  # fmt: skip
    assert len(read(*files).calendar) == len(set(days))


# Numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        ('"5,006.29"', 5006.29), ('"$5,006.29"', 5006.29), ("$50.06", 50.06), ("-", np.nan),
        ('"1,234,567"', 1234567), ("€ 7.5", 7.5), ("7.5 USD", 7.5), ("5'006.29", 5006.29),
        ('"1,234"', 1234), ("¥8", 8), ("1e3", 1000),
    ],
)  # fmt: skip
def test_numbers_with_signs_and_separators(tmp_path, cells, value):
    path = text(tmp_path, f"date,close,open\n2021-03-01,$1.50,{cells}\n")
    np.testing.assert_array_equal(read(path).read("X")["open"], np.float32([value]))


@pytest.mark.parametrize(
    ("close", "other", "value"),
    [
        ("50,1", "1.234", 1234),
        ("1.234,5", "7", 7),
        ("1,234", "2,5", 2.5),
        ("1,234", "7", 7),
        ("12,345", "1.234", 1234),
    ],
)
def test_decimal_commas_between_semicolons(tmp_path, close, other, value):
    path = text(tmp_path, f"date;close;open\n2021-03-01;{close};{other}\n")
    fields = read(path).read("X")
    assert fields["open"] == np.float32(value)
    expected = {"50,1": 50.1, "1.234,5": 1234.5, "1,234": 1.234, "12,345": 12.345}[close]
    assert fields["close"] == np.float32(expected)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_marks_of_which_either_may_be_decimal_are_refused(tmp_path, separator):
    rows = [["date", "close", "volume"], ["2021-03-01", "12.345", '"1,234"']]
    path = text(tmp_path, "".join(separator.join(row) + "\n" for row in rows))
    seen = r"'12\.345' \(x\.csv line 2, column 'close'\) and '1,234' .*either mark"
    with pytest.raises(DataError, match=seen):
        read(path)


def test_both_decimal_marks_in_a_file_are_refused(tmp_path):
    path = text(tmp_path, "date;close;open\n2021-03-01;50,1;8\n2021-03-02;51.25;8\n")
    with pytest.raises(DataError, match=r"'51\.25' \(x\.csv line 3, column 'close'\).*'50,1' \(x"):
        read(path)


def test_volumes_that_may_be_in_lots_are_named(tmp_path):
    rows = "20210301,600000.SH,1,500,50\n20210302,600000.SH,1,500,50\n"
    path = text(tmp_path, f"trade_date,ts_code,close,vol,amount\n{rows}")
    said = summary(import_provider(path, tmp_path / "out", progress=False))
    assert "100 times too small" in said and said.endswith("again: x.csv")
    path = text(tmp_path, f"trade_date,ts_code,close,volume,amount\n{rows}")
    assert "too small" not in summary(import_provider(path, tmp_path / "out", progress=False))


# Codes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_code", "code"),
    [
        ("600000.SH", "SH600000"), ("000001.SZ", "SZ000001"), ("sh.600000", "SH600000"),
        ("600519.SS", "SH600519"), ("300750", "SZ300750"), ("688001", "SH688001"),
        ("830799", "BJ830799"), ("000001", "SZ000001"), ("000300", "SH000300"),
        ("600000.XSHG", "SH600000"), ("SZSE.000001", "SZ000001"), ("SZ000001", "SZ000001"),
        ("BRK.B", "BRK.B"), ("7203.T", "7203.T"), ("005930.KS", "005930.KS"), ("123456", "123456"),
    ],
)  # fmt: skip
def test_codes_of_china_are_read_as_qlib_writes_them(tmp_path, given_code, code):
    path = text(tmp_path, f"date,close,code\n2021-03-01,1,{given_code}\n")
    tables = read(path)
    assert list(tables.frames) == [code]
    assert tables.codes == ({given_code: code} if given_code.upper() != code else {})
    assert list(read(path, keep_codes=True).frames) == [given_code.upper()]


def test_an_import_says_which_codes_it_rewrote(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for name in ("600000.SH", "000300.SH"):
        text(source, "date,close\n2021-03-01,1\n2021-03-02,1\n", f"{name}.csv")
    provider = import_provider(source, tmp_path / "out", benchmark="000300.SH", progress=False)
    assert provider.spells("all")["instrument"].tolist() == ["SH600000"]
    assert provider.manifest["benchmark"] == "SH000300"
    assert "600000.SH as SH600000" in summary(provider)
    again = import_provider(source, tmp_path / "kept", reading=Reading(keep_codes=True))
    assert again.names == ["000300.SH", "600000.SH"]


def test_a_column_of_companies_names_is_no_symbol(tmp_path):
    path = text(tmp_path, "date,close,Name\n2021-03-01,1,Apple Inc.\n", "AAPL.csv")
    tables = read(path)
    assert list(tables.frames) == ["AAPL"] and tables.ignored == ["Name"]


def test_codes_that_lost_their_zeros_are_refused(tmp_path):
    frame = pd.DataFrame({"date": ["2021-03-01"] * 2, "close": 1.0, "code": [1, 600000]})
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"'code'.*\(1 and 600000\).*leading zeros.*text"):
        read(tmp_path / "x.parquet")


# Days ------------------------------------------------------------------------------------------


def stamps(folder: Path, *cells: str) -> Path:
    return text(folder, "date,close\n" + "".join(f"{cell},1\n" for cell in cells))


SHANGHAI = ("2019-12-31 16:00:00+00:00", "2020-01-01 16:00:00+00:00")
WALL_STREET = ("2020-01-02 05:00:00Z", "2020-07-02T04:00:00Z")


@pytest.mark.parametrize(
    ("cells", "zone", "days"),
    [
        (SHANGHAI, "Asia/Shanghai", ["2020-01-01", "2020-01-02"]),
        (WALL_STREET, "America/New_York", ["2020-01-02", "2020-07-02"]),
        (("2020-01-02 00:00:00+00:00", "2020-07-01 23:00:00+00:00"), "Europe/London",
         ["2020-01-02", "2020-07-02"]),
        # Dates with a zone for ornament: midnight is the day itself.
        (("2020-01-02 00:00:00+00:00", "2020-01-03 00:00:00Z"), "America/New_York",
         ["2020-01-02", "2020-01-03"]),
        (("2020-01-02 00:00:00+00:00",), None, ["2020-01-02"]),
        (("2020-01-02 00:00:00-05:00", "2020-07-02 00:00:00-04:00"), None,
         ["2020-01-02", "2020-07-02"]),
        (("2020-01-02 00:00:00+00:00", "2020-07-02 00:00:00+01:00"), None,
         ["2020-01-02", "2020-07-02"]),
    ],
)  # fmt: skip
def test_stamps_are_days_of_the_exchange(tmp_path, cells, zone, days):
    assert read(stamps(tmp_path, *cells), timezone=zone).calendar.equals(pd.DatetimeIndex(days))
    if len({cell[-6:] for cell in cells}) == 1:
        moments = pd.to_datetime(pd.Series(cells), utc=cells[0][-6:] == "+00:00", format="ISO8601")
        frame = pd.DataFrame({"date": moments, "close": 1.0})
        frame.to_parquet(tmp_path / "x.parquet")
        found = read(tmp_path / "x.parquet", timezone=zone).calendar
        assert found.equals(pd.DatetimeIndex(days))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_stamps_in_utc_are_refused_without_a_zone(tmp_path, kind):
    path = stamps(tmp_path, "2019-12-31", SHANGHAI[1])
    if kind == "parquet":
        path = tmp_path / "x.parquet"
        pd.DataFrame({"date": pd.to_datetime(list(SHANGHAI)), "close": 1.0}).to_parquet(path)
    with pytest.raises(DataError, match=r"x\.\w+ (line 3|row 1): '20.*UTC.*--timezone"):
        read(path)


def test_a_zone_that_is_unknown_or_has_nothing_to_shift_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no time zone 'China'"):
        Reading(timezone="China")
    with pytest.raises(ConfigError, match="no stamp of the source has an offset"):
        read(stamps(tmp_path, "2020-01-02 16:00:00"), timezone="Asia/Shanghai")


def test_dates_that_are_not_iso_are_read_as_stated(tmp_path):
    path = stamps(tmp_path, "02.01.2015", "05.01.2015")
    with pytest.raises(DataError, match=r"x.csv line 2: '02.01.2015' is no date.*--date-format"):
        read(path)
    assert read(path, date_format="%d.%m.%Y").calendar[0] == pd.Timestamp("2015-01-02")
    with pytest.raises(DataError, match=r"line 2: '02.01.2015'.*does not follow .*%m/%d/%Y"):
        read(path, date_format="%m/%d/%Y")


@pytest.mark.parametrize(
    ("cell", "date_format"),
    [
        ("13/01/2020", "%m/%d/%Y"), ("01/13/2020 16:00", "%m/%d/%Y"), ("2020-01-02 x", "%Y-%m-%d"),
        ("2020-01-02 garbage", None), ("2020-01-02 99:99", None), ("2020-01-02 16:00+99", None),
    ],
)  # fmt: skip
def test_what_follows_a_date_is_no_part_of_it(tmp_path, cell, date_format):
    with pytest.raises(DataError, match=f"x.csv line 2: '{re.escape(cell)}' is no date"):
        read(stamps(tmp_path, cell), date_format=date_format)


@pytest.mark.parametrize(
    ("cell", "date_format"),
    [
        ("2019-12-31 16:00:00+00", None), ("2019-12-31T16:00:00z", None),
        ("2019-12-31 16:00 utc", None), ("2019-12-31 1600-00:00", None),
        ("2019-12-31 16:00:00+0000", "%Y-%m-%d %H:%M:%S%z"),
        ("31.12.2019 11:00 -05:00", "%d.%m.%Y %H:%M %z"),
        ("31.12.2019 16:00Z", "%d.%m.%Y %H:%MZ"),
    ],
)  # fmt: skip
def test_a_moment_is_recognised_however_it_is_written(tmp_path, cell, date_format):
    path = stamps(tmp_path, cell)
    with pytest.raises(DataError, match=r"line 2.*moment in UTC.*--timezone"):
        read(path, date_format=date_format)
    found = read(path, date_format=date_format, timezone="Asia/Shanghai").calendar
    assert found.equals(pd.DatetimeIndex(["2020-01-01"]))


@pytest.mark.parametrize("cell", ["2020-01-02", "2020-01-02 16:00"])
def test_stamps_of_which_only_some_can_be_shifted_are_refused(tmp_path, cell):
    some = stamps(tmp_path, SHANGHAI[0], cell)
    with pytest.raises(DataError, match=f"x.csv line 3: '{cell}' has no offset"):
        read(some, timezone="Asia/Shanghai")
    files = [text(tmp_path, f"date,close\n{one},1\n", f"{name}.csv")
             for name, one in (("a", SHANGHAI[0]), ("b", cell))]  # fmt: skip
    with pytest.raises(DataError, match=r"b\.csv: no stamp has an offset.*a\.csv"):
        read(*files, timezone="Asia/Shanghai")


# Rows ------------------------------------------------------------------------------------------


def test_an_empty_row_beside_a_good_one_is_dropped_and_counted(tmp_path):
    path = text(
        tmp_path,
        "date,open,close,volume\n2021-03-01,,,\n2021-03-01,1,1,5\n2021-03-02,,,\n"
        "2021-03-02,,,0\n\n2021-03-03,2,2,6\n\n",
    )
    tables = read(path)
    assert tables.counts["empty_rows"] == 2
    np.testing.assert_array_equal(tables.read("X")["close"], np.float32([1, 2]))


def test_two_rows_of_a_day_are_shown_with_the_largest_difference_first(tmp_path):
    rows = [f"2021-03-{d:02d},{1 + e:g}" for d in range(1, 9) for e in (0, d / 100)]
    path = text(tmp_path, "\n".join(["date,close", *rows]) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    first = "X 2021-03-08, close 1 (x.csv line 16) and 1.08 (x.csv line 17); X 2021-03-07"
    assert first in str(caught.value) and "and 3 more days" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("date,close,open\n2021-03-01,1,2\n2021-03-02,1\n", "line 3: 2 cells.*3.*cut off"),
        ("date,close,open\n2021-03-01,1\n2021-03-02,1,2\n", "line 2: 2 cells.*has 3. "),
        ("date,close,open\n2021-03-01,1,2,9\n", "line 2: 4 cells"),
        ('date,close,open\n2021-03-01,"1",2\n2021-03-02,1', "line 3: 2 cells.*cut off"),
        ("date,close\n2021-03-01,116.59\n2021-03-02,11", "line 3.*'11', below '116.59'"),
        ("date,close,volume\n2021-03-01,1,46913300\n2021-03-02,1,469", "line 3.*'469'"),
        ("date,close,Name\n2021-03-01,1,AAL\n2021-03-02,1,AA", "line 3.*'AA', below 'AAL'"),
    ],
)
def test_a_file_that_is_cut_off_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=f"x.csv {message}"):
        read(text(tmp_path, content))


@pytest.mark.parametrize("last", ["116.2", "98", "60.31"])
def test_a_last_line_without_a_break_is_whole_unless_it_falls_short(tmp_path, last):
    path = text(tmp_path, f"date,close\n2021-03-01,116.59\n2021-03-02,{last}")
    assert read(path).read("X")["close"][1] == np.float32(last)


def test_the_one_file_without_a_last_break_is_named(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for name in "ABC":
        text(source, "date,close\n2021-03-01,1\n2021-03-02,1" + "\n" * (name != "B"), f"{name}.csv")
    said = summary(import_provider(source, tmp_path / "out", progress=False))
    assert "may be cut off" in said and said.rstrip().endswith("B.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Date,Close/Last\n2021-03-01,$1.5\n", None),
        ("timestamp,close\n2021-03-01,1\n", None),
        ("date,price\n2021-03-01,1\n", "no column for 'close'.*price"),
        ("date,open,last,settle\n2021-03-01,1,1,1\n", "no column for 'close'"),
        ("Date,AAPL,AAPL\n2021-03-01,1,2\n", "two columns for 'AAPL'"),
        ("Price,Open,High\nTicker,A,A\nDate,,\n2021-03-01,1,1\n", "no column for 'date'"),
        ("Price,Close,Close\nTicker,A,A\nDate,,\n2021-03-01,1,1\n", "A has two columns for 'cl"),
        ("\n2021-03-01,1\n", "first line is empty"),
        ("date,close\n2021-03-01,1\n2021-03-02,x\n2021-03-03,y\n",
         r"line 3, column 'close': 'x' is no number \(1 more"),
    ],
)  # fmt: skip
def test_headings(tmp_path, content, message):
    path = text(tmp_path, content)
    if message is None:
        assert len(read(path).calendar) == 1
    else:
        with pytest.raises(DataError, match=message):
            read(path)
