"""Importing: exact prices, units, suspensions, layouts, refusals, and the old provider kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider import importer
from bpqp_portfolio.data.provider.cleaning import COUNTS, UnitEvidence, Units, clean
from bpqp_portfolio.data.provider.importer import import_provider
from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.data.provider.summary import summary
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.errors import BPQPError, ConfigError, DataError

DAYS = pd.bdate_range("2021-03-01", periods=40)
PRICES = ["open", "high", "low", "close"]


def bars(seed, days=DAYS):
    """A random walk with volumes, float64, as a data vendor's table."""
    rng = np.random.default_rng(seed)
    close = 10 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))
    frame = pd.DataFrame({"open": close * rng.uniform(0.99, 1.01, len(days))}, index=days)
    frame["close"] = close
    frame["high"] = frame[["open", "close"]].max(axis=1) * 1.005
    frame["low"] = frame[["open", "close"]].min(axis=1) * 0.995
    frame["volume"] = rng.integers(1_000, 1_000_000, len(days)).astype(float)
    return frame.rename_axis("date")


def provider_at(root, frames, change="fraction", lists=None):
    """A provider as a vendor would make it, with ``change`` in the unit named."""
    scale = {"fraction": 1, "percent": 100, "currency": 17.3}[change]
    series = {}
    for name, frame in frames.items():
        series[name] = frame.assign(
            change=frame["close"].ffill().pct_change(fill_method=None) * scale, factor=2.0
        )
    span = pd.DataFrame({"instrument": list(frames), "start": DAYS[0], "end": DAYS[-1]})
    return write_provider(root, DAYS, series, lists or {"all": span}, {"source": "vendor"})


def same(a: Provider, b: Provider) -> bool:
    """Are all series of ``a`` bit for bit those of ``b``?"""
    assert a.folders == b.folders
    for name in a.folders:
        assert a.fields(name) == b.fields(name)
        for field in a.fields(name):
            np.testing.assert_array_equal(a.series(name, field), b.series(name, field))
    return True


def write_csvs(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv")
    return folder


# Tables


def test_csv_prices_come_back_through_qlib(tmp_path):
    frames = {"sh600000": bars(1), "SZ000001": bars(2, DAYS[5:30])}
    provider = import_provider(write_csvs(tmp_path / "csv", frames), tmp_path / "out")
    script = f"""
import qlib
from qlib.data import D
qlib.init(provider_uri={str(provider.root)!r}, region="cn", kernels=1)
fields = ["$open", "$high", "$low", "$close", "$volume", "$change", "$factor"]
D.features(D.instruments("all"), fields).to_pickle({str(tmp_path / "q.pkl")!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    got = pd.read_pickle(tmp_path / "q.pkl")
    assert sorted(got.index.levels[0]) == ["SH600000", "SZ000001"]
    for name, frame in frames.items():
        rows = got.xs(name.upper())
        assert rows.index.equals(frame.index)
        for field in [*PRICES, "volume"]:
            np.testing.assert_array_equal(
                rows[f"${field}"].to_numpy(np.float32), frame[field].to_numpy(np.float32)
            )
        assert (rows["$factor"] == 1).all()
        close = frame["close"].to_numpy(np.float32).astype(float)
        expected = np.r_[np.nan, close[1:] / close[:-1] - 1].astype(np.float32)
        np.testing.assert_array_equal(rows["$change"].to_numpy(np.float32), expected)


positive = st.floats(1e-6, 1e9, allow_subnormal=False)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.lists(st.tuples(positive, positive), min_size=1, max_size=12),
    missing=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
    headings=st.sampled_from([("Date", "OPEN", "Close"), (" datetime", "Open ", "CLOSE")]),
)
def test_any_table_is_kept_exactly(rows, missing, order, headings):
    days = DAYS[missing : missing + len(rows)]
    lines = [f"{d:%Y-%m-%d},{o!r},{c!r}" for d, (o, c) in zip(days, rows, strict=True)]
    order.shuffle(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "abc.csv"
        path.write_text("\n".join([",".join(headings), *lines]) + "\n")
        provider = import_provider(path, Path(folder) / "out", progress=False)
        assert provider.calendar.equals(days)
        expected = np.array(rows).astype(np.float32)
        np.testing.assert_array_equal(provider.series("ABC", "open"), expected[:, 0])
        np.testing.assert_array_equal(provider.series("ABC", "close"), expected[:, 1])


def test_adj_close_makes_the_factor(tmp_path):
    quoted = bars(3)
    factor = np.where(np.arange(40) < 20, 0.5, 1.0)
    quoted["Adj Close"] = quoted["close"] * factor
    provider = import_provider(write_csvs(tmp_path / "csv", {"A": quoted}), tmp_path / "out")
    np.testing.assert_array_equal(
        provider.series("A", "close"), quoted["Adj Close"].to_numpy(np.float32)
    )
    read = {f: provider.series("A", f).astype(float) for f in [*PRICES, "volume", "factor"]}
    np.testing.assert_allclose(read["factor"], factor, rtol=1e-7)
    for field in PRICES:
        np.testing.assert_allclose(read[field] / read["factor"], quoted[field], rtol=2e-7)
    np.testing.assert_allclose(read["volume"] * read["factor"], quoted["volume"], rtol=2e-7)


def test_adj_close_is_stored_to_the_last_digit(tmp_path):
    adjusted = 2 - 2.0**-24  # halfway between two float32: one bit of float64 decides
    quoted = next(c for c in np.linspace(2, 3, 999).tolist() if c * (adjusted / c) < adjusted)
    (tmp_path / "a.csv").write_text(f"date,close,adj_close\n2021-03-01,{quoted!r},{adjusted!r}\n")
    close = import_provider(tmp_path / "a.csv", tmp_path / "out").series("A", "close")
    np.testing.assert_array_equal(close, np.float32([adjusted]))


def split(seed=4):
    """Adjusted bars of a name that split two for one, with its factor, and the quoted ones."""
    factor = np.where(np.arange(40) < 20, 1.0, 2.0)
    adjusted = bars(seed)
    quoted = adjusted.copy()
    quoted[PRICES] = adjusted[PRICES].div(factor, axis=0)
    quoted["volume"] = adjusted["volume"] * factor
    return adjusted, quoted, factor


def test_factor_goes_with_adjusted_prices_and_adj_factor_with_quoted_ones(tmp_path):
    adjusted, quoted, factor = split()
    one = write_csvs(tmp_path / "a", {"A": adjusted.assign(factor=factor)})
    other = write_csvs(tmp_path / "q", {"A": quoted.assign(adj_factor=factor)})
    a, q = import_provider(one, tmp_path / "1"), import_provider(other, tmp_path / "2")
    assert same(a, q)
    np.testing.assert_array_equal(a.series("A", "close"), adjusted["close"].to_numpy(np.float32))


def test_quoted_prices_beside_a_factor_are_refused(tmp_path):
    _, quoted, factor = split()
    source = write_csvs(tmp_path / "csv", {"A": quoted.assign(factor=factor), "B": bars(5)})
    with pytest.raises(
        DataError, match=r"1 of 1 days.*A 2021-03-29 \(A.csv line 22\): factor × 2.*adj_factor"
    ):
        import_provider(source, tmp_path / "out")


def long_table():
    return pd.concat(
        [bars(6).assign(symbol="000001"), bars(7, DAYS[10:]).assign(symbol="na")]
    ).reset_index()


@pytest.mark.parametrize("kind", ["csv", "years", "parquet", "indexed", "zip"])
def test_long_tables_are_split_by_symbol(tmp_path, kind):
    table, source = long_table(), tmp_path / "src"
    source.mkdir()
    if kind == "csv":
        source = source / "all.csv"
        table.to_csv(source, index=False)
    elif kind == "years":  # several long files, the later days first
        table[table["date"] >= DAYS[20]].to_csv(source / "1.csv", index=False)
        table[table["date"] < DAYS[20]].to_csv(source / "2.csv", index=False)
    elif kind == "parquet":
        table.to_parquet(source / "all.parquet", index=False)
    elif kind == "indexed":
        table.set_index(["symbol", "date"]).to_parquet(source / "all.parquet")
    else:
        source = tmp_path / "src.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("data/daily/all.csv", table.to_csv(index=False))
    provider = import_provider(source, tmp_path / "out", market="mine")
    assert provider.folders == ["na", "sz000001"]
    for name, seed, days in (("SZ000001", 6, DAYS), ("NA", 7, DAYS[10:])):
        expected = bars(seed, days)["close"].reindex(DAYS).to_numpy(np.float32)
        np.testing.assert_array_equal(provider.series(name, "close"), expected)
    for market in ("all", "mine"):
        assert provider.spells(market)["instrument"].tolist() == ["NA", "SZ000001"]
        assert provider.spells(market)["start"].tolist() == [DAYS[10], DAYS[0]]
    assert (provider.manifest["cleaned"]["rows_out_of_order"] > 0) == (kind == "years")


@pytest.mark.parametrize(
    "style",
    ["%Y%m%d", "%Y/%m/%d", "%Y-%m-%d 00:00:00", "%Y-%m-%dT15:00:00+08:00", " %Y-%m-%d"],
)
def test_days_are_read_as_written(tmp_path, style):
    frame = bars(8)
    frame.index = frame.index.strftime(style)
    provider = import_provider(write_csvs(tmp_path / "csv", {"A": frame}), tmp_path / "out")
    assert provider.calendar.equals(DAYS)


def test_a_parquet_index_with_a_time_zone_keeps_its_local_days(tmp_path):
    frame = bars(8).rename_axis(None)
    frame.index = frame.index.tz_localize("Asia/Shanghai")
    (tmp_path / "src").mkdir()
    frame.to_parquet(tmp_path / "src" / "A.parquet")
    assert import_provider(tmp_path / "src", tmp_path / "out").calendar.equals(DAYS)


def test_rows_out_of_order_and_equal_duplicates_are_harmless(tmp_path):
    frame = bars(9)
    shuffled = pd.concat([frame.iloc[::-1], frame.iloc[:3]])
    a = import_provider(write_csvs(tmp_path / "a", {"A": frame}), tmp_path / "1")
    b = import_provider(write_csvs(tmp_path / "b", {"A": shuffled}), tmp_path / "2")
    assert same(a, b)
    assert b.manifest["cleaned"]["duplicate_rows"] == 3
    assert b.manifest["cleaned"]["rows_out_of_order"] == 39


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day,close\n2021-03-01,1\n", "no column for 'date'.*day, close"),
        ("date,open\n2021-03-01,1\n", "no column for 'close'"),
        ("date,Date,close\n2021-03-01,2021-03-01,1\n", "two columns for 'date'"),
        ("date,close,factor,adj close\n2021-03-01,1,1,1\n", "factor and adj_close; keep one"),
        ("date,close\n03/01/2021,1\n", "x.csv line 2: '03/01/2021' is no date"),
        ("date,close\n2021-03-01,1\n,1\n", "line 3: '' is no date"),
        ("date,close\n2021-02-30,1\n", "'2021-02-30' is no date"),
        ("date,close\n2021-03-01,cheap\n", "x.csv line 2, column 'close': 'cheap' is no number"),
        (
            "date,close\n2021-03-01,1\n2021-03-01,2\n",
            r"X 2021-03-01, close 1 \(x.csv line 2\) and 2 \(x.csv line 3\)",
        ),
        ("date,close\n2021-03-01 09:30,1\n2021-03-01 09:31,2\n", "intraday"),
        ("date,close,symbol\n2021-03-01,1,../x\n", r"x.csv line 2: '\.\./x' is no symbol"),
        ("date,close,symbol\n2021-03-01,1,\n", "'' is no symbol"),
        ("date,close\n2021-03-01,0\n", "no day with a positive close"),
        ("", "cannot read x.csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, text, message):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        import_provider(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_columns_are_left_out_and_listed(tmp_path):
    source = write_csvs(tmp_path / "csv", {"A": bars(1).assign(Mood="good", pe=3)})
    provider = import_provider(source, tmp_path / "out")
    assert provider.manifest["ignored_columns"] == ["Mood", "pe"]
    assert provider.fields("A") == ["change", "close", "factor", "high", "low", "open", "volume"]


# Cleaning


def test_suspended_days_are_nan_in_every_field_but_factor(tmp_path):
    frame = bars(10).assign(factor=3.0, change=0.25)
    frame.iloc[3, frame.columns.get_loc("volume")] = 0
    frame.iloc[4, frame.columns.get_loc("close")] = 0
    frame.iloc[5, frame.columns.get_loc("close")] = np.nan
    frame.iloc[6] = frame.iloc[6].where(frame.columns == "factor", 0)
    frame.iloc[7] = frame.iloc[7].where(frame.columns == "factor")
    frame.iloc[8, frame.columns.get_loc("volume")] = np.nan  # unknown is not zero
    source = write_csvs(tmp_path / "csv", {"A": frame, "B": bars(11)})
    provider = import_provider(source, tmp_path / "out")
    gone = np.isin(np.arange(40), [3, 4, 5, 6, 7])
    for field in [*PRICES, "change"]:
        np.testing.assert_array_equal(np.isnan(provider.series("A", field))[1:], gone[1:])
    np.testing.assert_array_equal(
        np.isnan(provider.series("A", "volume")), gone | (np.arange(40) == 8)
    )
    assert (provider.series("A", "factor") == 3).all()
    assert provider.manifest["cleaned"]["suspended_days"] == 4  # one was all NaN already


def test_an_index_without_volume_keeps_its_prices(tmp_path):
    source = write_csvs(tmp_path / "csv", {"INDEX": bars(12).assign(volume=0), "B": bars(11)})
    provider = import_provider(source, tmp_path / "out")
    np.testing.assert_array_equal(
        provider.series("INDEX", "close"), bars(12)["close"].to_numpy(np.float32)
    )


def test_impossible_values_are_nan_and_counted(tmp_path):
    frame = bars(13)
    frame.iloc[2, frame.columns.get_loc("open")] = -1
    frame.iloc[3, frame.columns.get_loc("low")] = 0
    frame.iloc[4, frame.columns.get_loc("high")] = np.inf
    frame.iloc[5, frame.columns.get_loc("volume")] = -7
    frame.iloc[6, frame.columns.get_loc("volume")] = 1e39  # beyond float32
    frame["factor"] = 1.0
    frame.iloc[7, frame.columns.get_loc("factor")] = 0
    provider = import_provider(write_csvs(tmp_path / "csv", {"A": frame}), tmp_path / "out")
    cleaned = provider.manifest["cleaned"]
    assert {k: cleaned[k] for k in COUNTS if cleaned[k]} == {
        "non_finite_values": 2,
        "non_positive_prices": 2,
        "negative_volumes": 1,
        "bad_factors": 1,
        "changes_computed": 39,
    }
    for field, days in {"open": [2], "low": [3], "high": [4], "volume": [5, 6]}.items():
        assert np.flatnonzero(np.isnan(provider.series("A", field))).tolist() == days
    assert np.isfinite(provider.series("A", "close")).all()


def test_names_without_any_price_are_left_out_and_listed(tmp_path):
    frames = {"A": bars(1), "DEAD": bars(2).assign(close=np.nan)}
    provider = import_provider(write_csvs(tmp_path / "csv", frames), tmp_path / "out")
    assert provider.folders == ["a"]
    assert provider.manifest["without_prices"] == ["DEAD"]
    assert provider.spells("all")["instrument"].tolist() == ["A"]


@pytest.mark.parametrize("unit", ["fraction", "percent", "currency"])
def test_change_becomes_a_fraction(tmp_path, unit):
    frames = {name: bars(seed) for seed, name in enumerate("ABCDE")}
    right = provider_at(tmp_path / "right", frames)
    vendor = provider_at(tmp_path / "vendor", frames, change=unit)
    provider = import_provider(vendor.root, tmp_path / "out")
    found = provider.manifest["source_units"]["change"]
    assert found == {"currency": "none"}.get(unit, unit)
    if unit == "fraction":
        assert same(provider, vendor)
    for name in frames:
        np.testing.assert_allclose(
            provider.series(name, "change"), right.series(name, "change"), rtol=1e-4, atol=1e-7
        )


def test_the_unit_of_change_survives_dividends_and_a_few_wrong_names():
    evidence = UnitEvidence()
    rng = np.random.default_rng(0)
    for seed in range(9):
        frame = bars(seed)
        change = frame["close"].pct_change().to_numpy() * 100
        change[rng.integers(1, 40, 5)] += rng.normal(0, 5, 5)
        scale = 0.01 if seed in (3, 7) else 1
        evidence.add({"close": frame["close"].to_numpy(), "change": change * scale})
    assert evidence.units().change[-1] == "percent"


def test_a_missing_change_is_recomputed_across_suspensions():
    close = np.float32([10, 11, np.nan, 0, 22, 33])
    given = np.float32([0.5, np.nan, 9, 9, 1, np.nan])
    counts = Counter()
    out = clean({"close": close, "change": given}, Units(change="fraction"), counts)
    np.testing.assert_array_equal(out["change"], np.float32([0.5, 0.1, np.nan, np.nan, 1, 0.5]))
    assert counts["changes_recomputed"] == 2
    out = clean({"close": close}, Units(), Counter())
    np.testing.assert_array_equal(out["change"], np.float32([np.nan, 0.1, np.nan, np.nan, 1, 0.5]))


def test_hands_and_thousands_become_shares_and_units(tmp_path):
    frames = {}
    for seed, name in enumerate("ABC"):
        frame = bars(seed)
        frame["vwap"] = frame["close"] * 1.001
        frame["amount"] = frame["vwap"] * frame["volume"]
        frames[name] = frame
    shares = provider_at(tmp_path / "shares", frames)
    vendor = {n: f.assign(volume=f.volume / 100, amount=f.amount / 1000) for n, f in frames.items()}
    hands = provider_at(tmp_path / "hands", vendor)
    a = import_provider(shares.root, tmp_path / "1")
    b = import_provider(hands.root, tmp_path / "2")
    assert [p.manifest["source_units"]["volume"] for p in (a, b)] == ["as given", "hands"]
    assert same(a, shares)
    for name in frames:
        for field in ("volume", "amount"):
            np.testing.assert_allclose(b.series(name, field), a.series(name, field), rtol=1e-6)


# Layouts of a provider


def test_a_clean_provider_comes_out_bit_for_bit(tmp_path):
    vendor = provider_at(tmp_path / "vendor", {"SH600000": bars(1), "SZ000001": bars(2, DAYS[9:])})
    provider = import_provider(vendor.root, tmp_path / "out")
    assert same(provider, vendor)
    cleaned = provider.manifest["cleaned"]
    assert {k: v for k, v in cleaned.items() if v} == {}


def test_upper_case_folders_fields_and_lower_case_codes_are_put_right(tmp_path):
    vendor = provider_at(tmp_path / "v", {"SH600000": bars(1), "CON": bars(2)})
    reference = import_provider(vendor.root, tmp_path / "1")
    features = vendor.root / "features"
    (features / "sh600000").rename(features / "SH600000")
    (features / "SH600000" / "close.day.bin").rename(features / "SH600000" / "CLOSE.day.bin")
    (vendor.root / "instruments" / "CSI300.txt").write_text(
        "sh600000\t2021-03-01\t2021-03-05\nsh600000\t2021-03-01\t2021-03-05\n"
        "sh600000\t2021-03-09\t2021-03-08\ncon\t2021-03-01\t2099-12-31\n"
    )
    (features / ".DS_Store").write_text("")
    provider = import_provider(vendor.root, tmp_path / "2")
    assert same(provider, reference)
    assert provider.folders == ["_qlib_con", "sh600000"]
    assert provider.spells("csi300")["instrument"].tolist() == ["SH600000", "CON"]
    assert provider.manifest["cleaned"]["universe_lines_dropped"] == 2
    assert provider.manifest["universes"]["csi300"] == {
        "names": 2,
        "on_last_day": 1,
        "without_prices": 0,
    }


def test_two_folders_of_one_name_are_refused(tmp_path):
    vendor = provider_at(tmp_path / "v", {"A": bars(1), "B": bars(2)})
    (vendor.root / "features" / "b").rename(vendor.root / "features" / "A")
    with pytest.raises(DataError, match="two folders for A"):
        import_provider(vendor.root, tmp_path / "out")


def test_a_missing_list_is_made_from_the_dates(tmp_path):
    vendor = provider_at(tmp_path / "v", {"A": bars(1), "B": bars(2, DAYS[4:30])})
    (vendor.root / "instruments" / "all.txt").unlink()
    spells = import_provider(vendor.root, tmp_path / "out").spells("all")
    assert spells["start"].tolist() == [DAYS[0], DAYS[4]]
    assert spells["end"].tolist() == [DAYS[-1], DAYS[29]]


def test_planned_days_are_kept_where_they_continue_the_calendar(tmp_path):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    future = vendor.root / "calendars" / "day_future.txt"
    future.write_text((vendor.root / "calendars" / "day.txt").read_text() + "2021-04-26\n")
    provider = import_provider(vendor.root, tmp_path / "out")
    kept = provider.root / "calendars" / "day_future.txt"
    assert kept.read_text() == future.read_text()
    future.write_text("2021-04-26\n")
    with pytest.raises(DataError, match="day_future"):
        import_provider(vendor.root, tmp_path / "out")


@pytest.mark.parametrize("swap", [True, False])
def test_a_calendar_out_of_order_is_refused(tmp_path, swap):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    path = vendor.root / "calendars" / "day.txt"
    days = path.read_text().split()
    days[2], days[3] = (days[3], days[2]) if swap else (days[2], days[2])
    path.write_text("\n".join(days))
    with pytest.raises(DataError, match="increase strictly"):
        import_provider(vendor.root, tmp_path / "out")


def pack(folder, path, inside=""):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, Path(inside) / file.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, inside or ".")
    return path


@pytest.mark.parametrize("inside", ["", "qlib_bin", "./release/qlib_bin", "a/b/c"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_the_provider_is_found_in_an_archive(tmp_path, kind, inside):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    archive = pack(vendor.root, tmp_path / f"release.{kind}", inside)
    provider = import_provider(archive, tmp_path / "out")
    assert same(provider, vendor)
    manifest = provider.manifest
    assert manifest["source"] == f"release.{kind}"
    assert manifest["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", f"release.{kind}", "v"]


def test_the_manifest_describes_the_import(tmp_path):
    vendor = provider_at(tmp_path / "vendor", {"A": bars(1), "B": bars(2)}, change="percent")
    manifest = import_provider(vendor.root, tmp_path / "out").manifest
    assert manifest["source"] == "vendor" and manifest["kind"] == "Qlib provider"
    assert (manifest["start"], manifest["end"]) == ("2021-03-01", "2021-04-23")
    assert (manifest["days"], manifest["instruments"]) == (40, 2)
    assert manifest["universes"] == {"all": {"names": 2, "on_last_day": 2, "without_prices": 0}}
    assert manifest["fields"] == dict.fromkeys([*PRICES, "volume", "change", "factor"], 2)
    assert manifest["cleaned"]["changes_converted"] == 78
    assert pd.Timestamp(manifest["created"]).tzinfo is not None
    assert str(tmp_path) not in json.dumps(manifest)


def test_the_digest_of_a_folder_follows_its_content(tmp_path):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    digests = []
    for name, value in (("1", None), ("2", None), ("3", 1.0)):
        if value:
            np.float32([0, value]).tofile(vendor.root / "features" / "a" / "open.day.bin")
        digests.append(import_provider(vendor.root, tmp_path / name).manifest["sha256"])
    assert digests[0] == digests[1] != digests[2]


# Refusals and atomicity


@pytest.fixture
def old(tmp_path):
    """An older provider at the target, which every failure must leave as it is."""
    return provider_at(tmp_path / "target", {"OLD": bars(99)})


def untouched(old, fails, *args, match):
    before = old.fingerprint(), old.manifest, sorted(p.name for p in old.root.parent.iterdir())
    with pytest.raises(BPQPError, match=match):
        fails(*args)
    assert before == (
        old.fingerprint(),
        old.manifest,
        sorted(p.name for p in old.root.parent.iterdir()),
    )


def test_an_older_provider_is_replaced(tmp_path, old):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    assert same(import_provider(vendor.root, old.root), vendor)


def test_a_provider_can_be_cleaned_in_place(old):
    assert import_provider(old.root, old.root).folders == ["old"]


def test_a_damaged_or_hostile_archive_leaves_the_old_provider(tmp_path, old):
    archive = pack(provider_at(tmp_path / "v", {"A": bars(1)}).root, tmp_path / "a.tar.gz")
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    untouched(old, import_provider, archive, old.root, match="damaged or cut short")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "v", "v")
        tar.add(archive, "../../evil")
    untouched(old, import_provider, tmp_path / "evil.tar", old.root, match="leads out")


def test_a_full_disk_leaves_the_old_provider(tmp_path, old, monkeypatch):
    vendor = provider_at(tmp_path / "v", {"A": bars(1), "B": bars(2)})

    def full(root, name, fields):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importer, "write_series", full)
    untouched(old, import_provider, vendor.root, old.root, match="cannot write.*No space left")


def test_wrong_sources_are_named(tmp_path, old):
    untouched(old, import_provider, tmp_path / "absent", old.root, match="no such file.*absent")
    (tmp_path / "empty").mkdir()
    untouched(old, import_provider, tmp_path / "empty", old.root, match="neither a Qlib provider")
    (tmp_path / "notes.txt").write_text("hello")
    untouched(old, import_provider, tmp_path / "notes.txt", old.root, match="neither an archive")
    for name in "ab":
        provider_at(tmp_path / "two" / name, {"A": bars(1)})
    untouched(old, import_provider, tmp_path / "two", old.root, match=r"several.*\(a, b\)")


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no Qlib provider"):
        import_provider(vendor.root, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    with pytest.raises(ConfigError, match="inside the source"):
        import_provider(vendor.root, vendor.root / "clean")


@pytest.mark.parametrize("market", ["CSI 300", "../x", "all", ""])
def test_a_list_name_is_checked(tmp_path, market):
    vendor = provider_at(tmp_path / "v", {"A": bars(1)})
    with pytest.raises(ConfigError, match="list"):
        import_provider(vendor.root, tmp_path / "out", market=market)


# The command


def test_the_command_imports_and_says_what_it_made(tmp_path):
    source = write_csvs(tmp_path / "csv", {"A": bars(1), "B": bars(2)})
    command = ["data", "import", str(source), "--to", str(tmp_path / "out"), "--market", "mine"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "2021-03-01 to 2021-04-23, 40 days, 2 instruments" in result.output
    assert "list mine: 2 names, 2 on the last day" in result.output


@pytest.mark.real_data
def test_the_real_archive_is_imported_bit_for_bit(real_archive, real_provider, tmp_path):
    command = ["data", "import", str(real_archive), "--to", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "list csi300: 719 names, 298 on the last day" in result.output
    provider, source = Provider(tmp_path / "out"), Provider(real_provider)
    assert same(provider, source)
    assert provider.calendar.equals(source.calendar)
    for market in source.markets:
        pd.testing.assert_frame_equal(provider.spells(market), source.spells(market))
    manifest = provider.manifest
    assert manifest["source"] == "cn_csi300_2010_2022.tar.xz"
    assert manifest["sha256"] == hashlib.sha256(real_archive.read_bytes()).hexdigest()
    assert (manifest["start"], manifest["end"]) == ("2010-01-04", "2022-12-30")
    assert (manifest["days"], manifest["instruments"]) == (3159, 723)
    assert manifest["universes"]["csi300"] == {
        "names": 719,
        "on_last_day": 298,
        "without_prices": 0,
    }
    assert manifest["fields"] == dict.fromkeys([*PRICES, "volume", "change", "factor"], 723)
    assert manifest["source_units"] == {"change": "fraction", "volume": "as given"}
    assert not any(manifest["cleaned"].values())


# Indices ---------------------------------------------------------------------------------------


def with_an_index(code, names=30, days=200):
    """Bars of ``names`` shares of one market and of its mean under ``code``."""
    rng = np.random.default_rng(3)
    market = rng.normal(0, 0.01, days)
    dates = pd.bdate_range("2020-01-01", periods=days, name="date")
    moves = {f"S{i:02d}": market + rng.normal(0, 0.015, days) for i in range(names)}
    moves[code] = np.mean(list(moves.values()), axis=0)
    rows = [
        pd.DataFrame({"symbol": name, "close": 10 * np.cumprod(1 + r)}, index=dates)
        for name, r in moves.items()
    ]
    return pd.concat(rows).reset_index()


def imported(tmp_path, code, **options):
    source = tmp_path / "prices.csv"
    with_an_index(code).to_csv(source, index=False)
    return import_provider(source, tmp_path / "out", **options)


@pytest.mark.parametrize("code", ["SPX", "^DJI", "SH000300", "SZ399006", "CSI300"])
def test_an_index_that_its_code_tells_is_no_name_to_hold(tmp_path, code):
    provider = imported(tmp_path, code, market="shares")
    for name in ("all", "shares"):
        held = provider.spells(name)["instrument"]
        assert len(held) == 30 and code not in set(held)
    assert np.isfinite(provider.series(code, "close")).all()
    assert provider.manifest["indices"] == [code]
    assert f"indices, to compare with and not to hold: {code}" in summary(provider)


def test_an_index_is_named_by_the_user_or_reported_as_likely(tmp_path):
    provider = imported(tmp_path, "MYMKT")
    assert len(provider.spells("all")) == 31
    assert provider.manifest["maybe_indices"] == ["MYMKT"]
    assert "looks like an index" in summary(provider) and "--benchmark" in summary(provider)
    found = check_provider(provider.root, benchmark="MYMKT")
    assert found["benchmark-traded"].severity == "error"
    assert found["benchmark-traded"].places == ("MYMKT in all",)

    provider = imported(tmp_path, "MYMKT", benchmark=["mymkt"])
    assert len(provider.spells("all")) == 30
    assert provider.manifest["benchmark"] == "MYMKT"
    assert "looks like" not in summary(provider)
    assert "benchmark-traded" not in check_provider(provider.root)

    with pytest.raises(ConfigError, match=r"no prices of 'MYMKTS'\. Did you mean 'MYMKT'"):
        imported(tmp_path, "MYMKT", benchmark=["MYMKTS"])
    assert len(imported(tmp_path, "SPX", benchmark=[]).spells("all")) == 31


def test_a_change_that_a_file_does_not_have_is_not_said_to_be_corrected(tmp_path):
    said = summary(imported(tmp_path, "SPX"))
    assert "recomputed" not in said and "corrected: nothing" in said
    assert "computed: change, from the closes of names that came without it" in said


def test_the_lists_of_a_provider_stay_as_they_are_without_a_word_from_the_user(tmp_path):
    vendor = imported(tmp_path, "SPX", benchmark=[], market="shares")
    again = import_provider(vendor.root, tmp_path / "again")
    assert "SPX" in set(again.spells("shares")["instrument"])
    assert again.manifest["maybe_indices"] == ["SPX"] and again.manifest["indices"] == []
    told = import_provider(vendor.root, tmp_path / "told", benchmark=["SPX"])
    for name in told.markets:
        assert "SPX" not in set(told.spells(name)["instrument"])
