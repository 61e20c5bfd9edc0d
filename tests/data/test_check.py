"""The check finds each fault, and only where it is; on the real data it finds the known ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.data.quality.exclusions import read_exclusions
from bpqp_portfolio.data.quality.findings import CHECKS
from bpqp_portfolio.errors import ProviderError

CALENDAR = pd.bdate_range("2018-01-01", "2022-12-30")
NAMES = ["SH600000", "SH600004", "SZ000001", "SZ300750", "SH688001", "AAPL"]
INDEX = "SH000300"


def bars(moves: np.ndarray, factor: np.ndarray | float = 1.0, price: float = 20.0) -> pd.DataFrame:
    """Consistent bars on the calendar whose close-to-close returns are ``moves``, (T,)."""
    close = price * np.cumprod(1.0 + moves)
    return pd.DataFrame(
        {
            "open": close, "high": close * 1.01, "low": close * 0.99, "close": close,
            "volume": 1e6, "change": np.where(np.arange(len(close)), moves, np.nan),
            "factor": factor,
        },
        CALENDAR,
    )  # fmt: skip


def spells(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"instrument": names, "start": CALENDAR[0], "end": CALENDAR[-1]})


@pytest.fixture
def market() -> dict[str, pd.DataFrame]:
    """Clean series of every name and the index."""
    rng = np.random.default_rng(0)
    return {name: bars(0.02 * rng.uniform(-1, 1, len(CALENDAR))) for name in [*NAMES, INDEX]}


def move(frame: pd.DataFrame, day: str, size: float, halt: int = 0, change: bool = True) -> None:
    """Make the return into ``day`` ``size``; the ``halt`` days before it without trade."""
    i = CALENDAR.get_loc(pd.Timestamp(day))
    frame.iloc[i - halt : i, :6] = np.nan
    before = frame["close"].iloc[i - halt - 1]
    frame.iloc[i:, :4] *= before * (1 + size) / frame["close"].iloc[i]
    if change:
        frame.iloc[i, 5] = size


def write(root: Path, market, universes=None, manifest=None) -> Provider:
    universes = universes or {"all": spells(NAMES), "mine": spells(NAMES)}
    return write_provider(root, CALENDAR, market, universes, manifest)


def moves(report) -> dict[str, tuple[str, ...]]:
    return {f.check: f.places for f in report.findings if f.check.startswith("move-")}


def test_a_clean_provider_has_no_fault(tmp_path, market):
    report = check_provider(write(tmp_path / "p", market).root)
    assert [f.check for f in report.findings] == ["universe-fixed"]
    assert (report.errors, report.warnings, len(report.exclusions)) == (0, 0, 0)
    assert report.coverage["covered"].eq(1.0).all()
    assert list(report.coverage["year"]) == [2018, 2019, 2020, 2021, 2022]


# Moves ---------------------------------------------------------------------------------------


def test_a_move_beyond_the_limit_is_excluded(tmp_path, market):
    move(market["SH600000"], "2021-03-03", 0.125)
    report = check_provider(write(tmp_path / "p", market).root)
    assert moves(report) == {"move-impossible": ("SH600000 2021-03-03 (+12.5%, limit 10%)",)}
    (entry,) = report.exclusions
    assert (entry.instrument, entry.date) == ("SH600000", pd.Timestamp("2021-03-03"))
    assert (report.errors, report.warnings) == (0, 1)


@pytest.mark.parametrize(
    ("name", "day", "size", "found"),
    [
        ("SZ300750", "2020-08-21", 0.19, True),
        ("SZ300750", "2020-08-24", 0.19, False),
        ("SZ300750", "2020-08-24", -0.21, True),
        ("SH688001", "2020-03-03", -0.19, False),
        ("AAPL", "2020-03-03", 0.70, False),
    ],
)
def test_the_limit_is_that_of_board_and_date(tmp_path, market, name, day, size, found):
    move(market[name], day, size)
    report = check_provider(write(tmp_path / "p", market).root)
    assert bool(moves(report)) == found == bool(len(report.exclusions))


def test_the_limit_is_rounded_to_a_tick_of_the_quoted_price(tmp_path, market):
    """A stock quoted at 2.05 may close at 2.26, which is 10.2 % up; its adjusted price is 41."""
    frame = market["SH600000"] = bars(np.zeros(len(CALENDAR)), factor=20.0, price=2.05 * 20)
    move(frame, "2020-03-03", 2.26 / 2.05 - 1)
    assert not moves(check_provider(write(tmp_path / "a", market).root))
    market["SH600000"]["factor"] = 0.1  # the same returns of a stock quoted at 410
    assert "move-impossible" in moves(check_provider(write(tmp_path / "b", market).root))


def test_the_first_sessions_after_a_listing_are_free(tmp_path, market):
    day = pd.Timestamp("2019-07-22")
    for name in ("SH688001", "SH600004"):
        move(market[name], "2019-07-25", 0.6)
        market[name] = market[name].loc[day:]
    assert moves(check_provider(write(tmp_path / "p", market).root)) == {
        "move-impossible": ("SH600004 2019-07-25 (+60.0%, limit 10%)",)
    }


def test_a_stock_that_resumes_may_jump(tmp_path, market):
    move(market["SZ000001"], "2021-08-10", 3.06, halt=60)
    report = check_provider(write(tmp_path / "p", market).root)
    assert moves(report) == {
        "move-unlimited": (
            "SZ000001 2021-08-10 (+306.0%, limit 10%, after 60 sessions without trade)",
        )
    }
    assert report.warnings == len(report.exclusions) == 0


def test_a_short_halt_does_not_lift_the_limit_unless_the_day_itself_shows_it(tmp_path, market):
    move(market["SZ000001"], "2021-08-10", 0.3, halt=1)
    assert "move-impossible" in moves(check_provider(write(tmp_path / "a", market).root))
    # A high 24 % above the low cannot be within 10 % of any one price.
    market["SZ000001"].loc["2021-08-10", ["high", "low"]] *= [1.12, 0.9]
    report = check_provider(write(tmp_path / "b", market).root)
    assert list(moves(report)) == ["move-unlimited"]


def test_a_fall_on_resuming_without_a_new_factor_is_invalid(tmp_path, market):
    move(market["SZ000001"], "2019-08-20", -0.43, halt=37)
    report = check_provider(write(tmp_path / "a", market).root)
    assert list(moves(report)) == ["move-unadjusted"]
    assert len(report.exclusions) == 1
    market["SZ000001"].loc["2019-08-20":, "factor"] = 3.5
    report = check_provider(write(tmp_path / "b", market).root)
    assert list(moves(report)) == ["move-unlimited"]
    assert len(report.exclusions) == 0


def test_a_fall_on_a_day_without_a_halt_before_it_is_valid_if_its_range_shows_it(tmp_path, market):
    """A reform that the factor lacks shows itself on resuming; a fall in trading is a fall."""
    move(market["SZ000001"], "2019-08-20", -0.3)
    # A high 24 % above the low cannot be within 10 % of any one price.
    market["SZ000001"].loc["2019-08-20", ["high", "low"]] *= [1.12, 0.9]
    report = check_provider(write(tmp_path / "a", market).root)
    assert moves(report) == {"move-unlimited": ("SZ000001 2019-08-20 (-30.0%, limit 10%)",)}
    assert len(report.exclusions) == 0
    # The same day after a halt of a single session.
    market["SZ000001"].loc["2019-08-19"] = np.nan
    market["SZ000001"].loc["2019-08-20", "change"] = np.nan
    report = check_provider(write(tmp_path / "b", market).root)
    assert list(moves(report)) == ["move-unadjusted"]
    assert len(report.exclusions) == 1


def test_a_wrong_factor_within_the_limit_is_seen_by_change(tmp_path, market):
    frame = market["SH600004"]
    move(frame, "2020-11-25", -0.06, change=False)
    frame.loc["2020-11-25":, "factor"] = 0.94
    report = check_provider(write(tmp_path / "p", market).root)
    assert list(moves(report)) == ["move-disputed"]
    assert report["move-disputed"].places[0].startswith("SH600004 2020-11-25 (-6.0%, $change")
    assert [e.instrument for e in report.exclusions] == ["SH600004"]


def test_a_change_of_the_quoted_price_disputes_nothing(tmp_path, market):
    """Where $change ignores the adjustment, it differs on ex-days: no move is wrong."""
    for name in NAMES:
        factor = np.repeat(np.arange(1.0, 10.0), 145)[: len(CALENDAR)]
        quoted = market[name]["close"] / factor
        market[name]["factor"] = factor
        market[name]["change"] = quoted.pct_change()
    report = check_provider(write(tmp_path / "p", market).root)
    assert "change-unadjusted" in report and not moves(report)
    assert len(report.exclusions) == 0


def test_change_in_percent(tmp_path, market):
    market["SH600004"]["change"] *= 100
    report = check_provider(write(tmp_path / "p", market).root)
    assert report["change-percent"].places == ("SH600004",)
    assert report.errors == 1 and not moves(report)


def test_a_large_move_without_a_known_limit_is_doubtful_but_stays(tmp_path, market):
    move(market["AAPL"], "2020-03-03", 0.9)
    report = check_provider(write(tmp_path / "p", market).root)
    assert moves(report) == {"move-large": ("AAPL 2020-03-03 (+90.0%)",)}
    assert report.warnings == 1 and len(report.exclusions) == 0


def test_an_index_is_reported_but_not_excluded(tmp_path, market):
    move(market[INDEX], "2020-03-03", 0.05, change=False)
    report = check_provider(write(tmp_path / "p", market).root)
    assert "move-disputed" in report and len(report.exclusions) == 0


# Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "field", "value", "place"),
    [
        ("non-finite", "close", np.inf, "SH600000 close 2020-03-03"),
        ("non-finite", "volume", -np.inf, "SH600000 volume 2020-03-03"),
        ("non-positive", "low", 0.0, "SH600000 low 2020-03-03"),
        ("non-positive", "factor", -1.0, "SH600000 factor 2020-03-03"),
        ("negative-volume", "volume", -1.0, "SH600000 2020-03-03"),
        ("suspended-priced", "volume", 0.0, "SH600000 2020-03-03"),
    ],
)
def test_a_value_that_cannot_be(tmp_path, market, check, field, value, place):
    market["SH600000"].loc["2020-03-03", field] = value
    report = check_provider(write(tmp_path / "p", market).root)
    assert report[check].places == (place,)
    assert report[check].count == 1
    expected = CHECKS[check][0] == "error"
    assert (report.errors > 0) == expected


def test_a_bar_that_is_not_within_low_and_high_is_shown_with_its_values(tmp_path, market):
    market["SH600004"].loc["2020-03-04", ["open", "high", "low", "close"]] = [10, 11, 10.5, 10]
    for day, price in (("2020-03-03", 21.0), ("2020-03-05", 1e3), ("2020-03-06", 22.0)):
        market["SH600000"].loc[day, ["open", "high", "low", "close"]] = [price, 20.5, 20, 20]
    report = check_provider(write(tmp_path / "p", market).root)
    assert report["ohlc"].places == (
        "SH600000 2020-03-05: open 1000, high 20.5, low 20, close 20",
        "SH600004 2020-03-04: open 10, high 11, low 10.5, close 10",
    )
    assert report["ohlc"].count == 4


def test_a_volume_of_zero_before_the_first_proves_no_suspension(tmp_path, market):
    """As in the import, which leaves such days as they are."""
    market["SH600000"].iloc[:3, 4] = 0.0
    assert "suspended-priced" not in check_provider(write(tmp_path / "p", market).root)


def test_the_largest_faults_come_first(tmp_path, market):
    """A list that is cut after a few places shows the worst of them."""
    days = CALENDAR[600:1200:100]
    sizes = [0.064, 0.07, 0.05, 0.2, 0.06, 0.08]
    for day, size in zip(days, sizes, strict=True):
        move(market["SH600000"], f"{day:%Y-%m-%d}", size, change=False)
        market["SH600000"].loc[day, "change"] = 0.0
    report = check_provider(write(tmp_path / "p", market).root)
    shown = [place.split("(")[1][:5] for place in report["move-disputed"].places]
    assert shown == ["+20.0", "+8.0%", "+7.0%", "+6.4%", "+6.0%", "+5.0%"]
    assert "+20.0%" in report["move-disputed"].where.splitlines()[0]


# Files and calendar --------------------------------------------------------------------------


def test_calendar_out_of_order(tmp_path, market):
    root = write(tmp_path / "p", market).root
    days = (root / "calendars" / "day.txt").read_text().split()
    days[10], days[11] = days[11], days[10]
    (root / "calendars" / "day.txt").write_text("\n".join([*days, days[-1]]))
    report = check_provider(root)
    assert [f.check for f in report.findings] == ["calendar-order"]
    assert report["calendar-order"].count == 2 and report.errors == 1


def test_calendar_with_a_hole(tmp_path, market):
    calendar = CALENDAR[(CALENDAR < "2020-03-01") | (CALENDAR > "2020-04-01")]
    series = {name: frame.loc[calendar] for name, frame in market.items()}
    write_provider(tmp_path / "p", calendar, series, {"all": spells(NAMES)})
    report = check_provider(tmp_path / "p")
    assert report["calendar-gap"].places == ("2020-02-28 to 2020-04-02",)


def test_a_calendar_with_weekends_and_codes_in_another_notation(tmp_path, market):
    calendar = CALENDAR - pd.Timedelta(days=1)
    series = {name: frame.set_axis(calendar) for name, frame in market.items()}
    series["600036.SH"] = series.pop("SH600004")
    names = ["SH600000", "600036.SH"]
    spells = pd.DataFrame({"instrument": names, "start": calendar[0], "end": calendar[-1]})
    report = check_provider(write_provider(tmp_path / "p", calendar, series, {"x": spells}).root)
    assert report["calendar-weekend"].places == ("first Sunday 2017-12-31",)
    assert report["code-notation"].places == ("600036.SH for SH600036",)


def test_names_that_never_leave_are_survivors(tmp_path, market):
    late = spells(NAMES)
    late.loc[0, "start"] = pd.Timestamp("2020-01-01")
    report = check_provider(write(tmp_path / "p", market, {"all": late}).root)
    assert report["universe-survivors"].places == ("all: 6 names, all there at the end",)
    late.loc[1, "end"] = pd.Timestamp("2021-01-01")
    report = check_provider(write(tmp_path / "q", market, {"all": late}).root)
    assert "universe-survivors" not in report


def test_no_provider_and_no_calendar(tmp_path, market):
    with pytest.raises(ProviderError, match="no Qlib provider"):
        check_provider(tmp_path)
    root = write(tmp_path / "p", market).root
    (root / "calendars" / "day.txt").write_text("")
    with pytest.raises(ProviderError, match="is empty"):
        check_provider(root)


def test_files_that_do_not_fit(tmp_path, market):
    root = write(tmp_path / "p", market).root
    features = root / "features"
    with (features / "sh600000" / "close.day.bin").open("ab") as file:
        file.write(np.float32([20.0, 20.0]).tobytes())
    with (features / "sh600004" / "open.day.bin").open("ab") as file:
        file.write(b"\0")
    (features / "sz000001" / "low.day.bin").write_bytes(np.float32([-3.0, 1.0]).tobytes())
    (features / "sz300750" / "close.day.bin").unlink()
    (features / "aapl").rename(features / "AAPL")
    (features / "sh688001").rename(tmp_path / "gone")
    report = check_provider(root)
    assert report["past-calendar"].places == ("SH600000 close by 2 days",)
    assert any(
        "sh600004/open.day.bin is cut short" in place for place in report["unreadable"].places
    )
    assert any("low.day.bin does not begin" in place for place in report["unreadable"].places)
    assert report["close-missing"].places == ("SZ300750",)
    assert report["folder-case"].places == ("AAPL",)
    assert report["files-missing"].places == ("SH688001",)
    assert report.errors == 4


def test_a_name_without_any_close(tmp_path, market):
    root = write(tmp_path / "p", market).root
    nothing = np.full(3, np.nan, dtype="<f4")
    nothing[0] = 0
    nothing.tofile(root / "features" / "sh600000" / "close.day.bin")
    assert check_provider(root)["empty"].places == ("SH600000",)


# Universes and benchmark ---------------------------------------------------------------------


def test_coverage_by_year_and_a_known_universe(tmp_path, market):
    market["SH600000"] = market["SH600000"].loc["2020-01-01":]
    report = check_provider(write(tmp_path / "p", market).root)
    covered = report.coverage.set_index("year")["covered"]
    assert covered.to_dict() == pytest.approx({2018: 5 / 6, 2019: 5 / 6, 2020: 1, 2021: 1, 2022: 1})
    assert report["coverage-low"].places == ("mine 2018: 83.3%", "mine 2019: 83.3%")

    lists = {"all": spells(NAMES), "csi300": spells(NAMES)}
    report = check_provider(write(tmp_path / "q", market, lists).root)
    assert report.coverage.set_index("year")["covered"][2022] == pytest.approx(6 / 300)
    assert "universe-frozen" in report


def test_membership_that_stops_changing(tmp_path, market):
    early = spells(NAMES)
    early.loc[0, "end"] = pd.Timestamp("2019-06-28")
    early.loc[1, "start"] = pd.Timestamp("2019-01-01")
    lists = {"all": spells(NAMES), "mine": early}
    report = check_provider(write(tmp_path / "p", market, lists).root)
    assert report["universe-frozen"].places == ("mine: 2019-07-01 to 2022-12-30",)
    assert report.warnings == 1


def test_a_universe_that_ends_or_is_empty(tmp_path, market):
    old = spells(NAMES)
    old["end"] = pd.Timestamp("2022-06-30")
    late = spells(NAMES)
    late["start"] = pd.Timestamp("2022-06-30")  # a list that begins late is no fault
    lists = {"all": spells(NAMES), "old": old, "late": late, "none": old.iloc[:0]}
    report = check_provider(write(tmp_path / "p", market, lists).root)
    assert report["universe-empty"].places == (
        "none: on no day of the calendar",
        "old: 131 days, 2022-07-01 to 2022-12-30",
    )


def test_an_unreadable_list(tmp_path, market):
    root = write(tmp_path / "p", market).root
    (root / "instruments" / "mine.txt").write_text("SH600000\tyesterday\ttoday\n")
    report = check_provider(root)
    assert "mine.txt" in report["list-unreadable"].places[0] and report.errors == 1


def test_market_and_benchmark_that_are_asked_for(tmp_path, market):
    root = write(tmp_path / "p", market).root
    report = check_provider(root, market="sp500", benchmark="SPX")
    assert report["market-missing"].places == ("sp500 (has: all, mine)",)
    assert report["benchmark-missing"].places == ("SPX",)
    assert report.errors == 2
    assert check_provider(root, market="mine", benchmark=INDEX).errors == 0


def test_the_benchmark_of_manifest_and_universe(tmp_path, market):
    market[INDEX].loc["2020-03-03":"2020-03-04", "close"] = np.nan
    lists = {"all": spells(NAMES), "csi300": spells(NAMES), "csi500": spells(NAMES)}
    report = check_provider(write(tmp_path / "p", market, lists).root)
    assert report["benchmark-unknown"].places == ("SH000905",)
    assert report["benchmark-gaps"].places == ("SH000300: first 2020-03-03",)
    assert report["benchmark-gaps"].count == 2
    named = write(tmp_path / "q", market, lists, manifest={"benchmark": "SPX"})
    assert check_provider(named.root)["benchmark-missing"].severity == "error"


# Command line --------------------------------------------------------------------------------


def bpqp(*arguments: object):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])


def test_command_prints_the_table_and_writes_the_exclusions(tmp_path, market):
    move(market["SH600000"], "2021-03-03", 0.125)
    root = write(tmp_path / "p", market).root
    result = bpqp("data", "check", root, "--write-exclusions", tmp_path / "ex.csv")
    assert result.exit_code == 0, result.output
    assert "SH600000 2021-03-03 (+12.5%, limit 10%)" in result.output
    assert "0 errors, 1 warning" in result.output
    assert [e.instrument for e in read_exclusions(tmp_path / "ex.csv")] == ["SH600000"]


def test_command_fails_on_errors(tmp_path, market):
    market["SH600000"].loc["2020-03-03", "close"] = np.inf
    result = bpqp("data", "check", write(tmp_path / "p", market).root)
    assert result.exit_code == 1
    assert "1 error," in result.output


def test_command_prints_json(tmp_path, market):
    move(market["SH600000"], "2021-03-03", 0.125)
    result = bpqp("data", "check", write(tmp_path / "p", market).root, "--json")
    found = json.loads(result.stdout)
    assert (found["errors"], found["warnings"]) == (0, 1)
    assert found["exclusions"][0][:2] == ["SH600000", "2021-03-03"]


def test_commands_that_make_data(tmp_path):
    result = bpqp("data", "simulate", "--to", tmp_path / "m", "--names", 8, "--years", 1,
                  "--seed", 3, "--factors", 2)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert Provider(tmp_path / "m").manifest["settings"]["seed"] == 3
    assert bpqp("data", "check", tmp_path / "m").exit_code == 0


# Real data -----------------------------------------------------------------------------------

# Looked at by eye: the factor jumps on a day without any corporate action (all but two), or does
# not move on a day of a share reform (SH600688, SH600871).
WRONG = {
    ("SH600633", "2010-03-01"), ("SH600654", "2013-07-16"), ("SH600688", "2013-08-20"),
    ("SH600871", "2013-08-20"), ("SZ002466", "2019-12-26"), ("SZ002466", "2020-01-02"),
    ("SZ000002", "2020-11-16"), ("SZ000002", "2020-11-19"), ("SZ000002", "2020-11-20"),
    ("SH600372", "2020-11-19"), ("SH600633", "2020-11-25"), ("SH600654", "2020-11-25"),
    ("SH600655", "2020-11-25"), ("SH601607", "2020-11-27"), ("SZ000001", "2020-12-31"),
}  # fmt: skip

# Stocks that came back after a restructuring, on days without a limit.
RIGHT = {"SH600633 2011-09-29", "SH600733 2018-09-27", "SZ000629 2018-08-24",
         "SZ000738 2010-10-15", "SZ000792 2021-08-10", "SZ000831 2013-02-08"}  # fmt: skip


@pytest.mark.real_data
def test_real_data(real_provider):
    report = check_provider(real_provider, benchmark=INDEX)
    assert report.errors == 0
    assert {(e.instrument, f"{e.date:%Y-%m-%d}") for e in report.exclusions} == WRONG
    assert {place[:19] for place in report["move-unlimited"].places} == RIGHT
    covered = report.coverage.set_index("year")["covered"]
    assert list(covered.index) == list(range(2010, 2023))
    assert covered.between(0.93, 1.0).all()
    # An index that nobody asked for has holes; the benchmark has none.
    assert "benchmark-gaps" not in report
    assert "benchmark-gaps" in check_provider(real_provider, benchmark="SH000852")
