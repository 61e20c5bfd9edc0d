"""Files from outside are read within bounds: time, memory and messages stay small."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.data.provider.importer import import_provider
from bpqp_portfolio.data.provider.provider import Provider, write_provider
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.data.quality.exclusions import read_exclusions
from bpqp_portfolio.data.universe.dated import read_dated
from bpqp_portfolio.data.universe.sectors import read_sectors
from bpqp_portfolio.errors import DataError, ProviderError
from bpqp_portfolio.files import bounds
from bpqp_portfolio.files.archive import unpack
from bpqp_portfolio.files.bounds import check_csv, listed

DAYS = pd.bdate_range("2020-01-01", periods=30)
READERS = {
    "import": lambda path: import_provider(path, path.parent / "out", progress=False),
    "exclusions": read_exclusions,
    "sectors": lambda path: read_sectors(path, DAYS, ["A"]),
    "exposures": lambda path: read_dated(path, "exposures", ["A"]),
}
HEADINGS = {
    "import": "date,close,symbol",
    "exclusions": "instrument,date,reason",
    "sectors": "instrument,sector",
    "exposures": "date,instrument,x",
}


def refused(call, match: str, *, memory: float = 60) -> str:
    """The message of the error that ``call`` raises, in little memory and few words."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=match) as error:
            call()
        assert tracemalloc.get_traced_memory()[1] < memory * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 800
    return str(error.value)


@pytest.fixture(params=READERS)
def reader(request):
    return request.param


# Lines and columns ----------------------------------------------------------------------------


def test_a_first_line_of_20_mb_is_not_printed(reader, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * 20_000_000)
    refused(lambda: READERS[reader](path), r"line 1 is longer than 1,048,576 bytes")


def test_a_long_line_further_down_is_named(reader, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADINGS[reader] + "\n2020-01-01,1,A\n" + "9" * 3_000_000 + "\n")
    refused(lambda: READERS[reader](path), r"line 3 is longer than")


def test_columns_are_counted_and_few_are_shown(reader, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{i}" for i in range(20_000)) + "\n")
    refused(lambda: READERS[reader](path), r"more than 10,000 columns")
    path.write_text(",".join(f"c{i}{'y' * 90}" for i in range(2_000)) + "\n1\n")
    message = refused(lambda: READERS[reader](path), "and 1,992 more")
    assert "c7" in message and "c8" not in message


def test_a_nul_is_named(reader, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADINGS[reader] + "\n2020-01-01,1,A\0B\n")
    refused(lambda: READERS[reader](path), r"line 2 holds a NUL character")
    path.write_text(HEADINGS[reader] + "\n", encoding="utf-16")
    refused(lambda: READERS[reader](path), r"line 1 holds a NUL character.*UTF-8")


@pytest.mark.parametrize("code", ["A\0B", "A\x07", "A\x7f", "A/B", ".A"])
def test_a_control_character_in_a_symbol_is_refused(tmp_path, code):
    frame = pd.DataFrame({"date": DAYS, "symbol": code, "close": np.arange(1.0, 31)})
    frame.to_parquet(tmp_path / "a.parquet")
    refused(
        lambda: import_provider(tmp_path / "a.parquet", tmp_path / "out", progress=False),
        "is no symbol; use letters",
    )
    spells = pd.DataFrame({"instrument": ["A"], "start": DAYS[0], "end": DAYS[-1]})
    series = {"A": pd.DataFrame({"close": np.ones(30)}, DAYS)}
    (tmp_path / "p").mkdir()
    provider = write_provider(tmp_path / "p", DAYS, series, {"all": spells})
    (provider.root / "instruments" / "mine.txt").write_text(f"{code}\t2020-01-01\t2020-02-01\n")
    with pytest.raises(ProviderError, match=r"mine\.txt, line 1: .* is no code"):
        provider.spells("mine")


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    packed=st.booleans(),
)
def test_the_longest_line_is_found_wherever_chunks_end(tmp_path_factory, lines, ends, packed):
    path = tmp_path_factory.getbasetemp() / ("a.csv.gz" if packed else "a.csv")
    content = ends.join("x" * n for n in lines).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "MAX_LINE", 16)
        if max(lines) <= 16:
            check_csv(path, "here:")
        else:
            with pytest.raises(DataError, match=r"here: line .* is longer than 16 bytes"):
                check_csv(path, "here:")


def test_names_are_listed_shortly():
    assert listed(["a", "b"]) == "a, b" and listed([]) == ""
    assert listed(["x" * 99, *range(20)]).endswith("and 13 more")
    assert len(listed("y" * 500 for _ in range(10_000))) < 500


# What grows when it is unpacked -----------------------------------------------------------------


def packed(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
    else:
        with tarfile.open(path, "w:" + path.suffix[1:]) as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("count", [1, 40])
def test_an_archive_that_grows_out_of_proportion_is_refused(tmp_path, kind, count):
    """Of one large file, or of many that are large together."""
    total = 40_000_000
    rows = b"2020-01-01,1.0,A\n" * (total // 17 // count)
    archive = packed(tmp_path / f"a.{kind}", {f"{i}.csv": rows for i in range(count)})
    assert archive.stat().st_size < 400_000
    refused(
        lambda: import_provider(archive, tmp_path / "out", progress=False),
        r"takes it past [0-9,]+ bytes, .* times its own size",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [archive.name]


def test_a_large_file_is_refused_before_it_is_written(tmp_path):
    archive = packed(tmp_path / "a.zip", {"a.csv": bytes(40_000_000)})
    with pytest.raises(DataError, match="takes it past"):
        unpack(archive, tmp_path / "out", progress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_header_that_claims_gigabytes_is_refused(tmp_path):
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, 5 * 2**30
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(entry.tobuf() + bytes(1024))
    refused(
        lambda: unpack(tmp_path / "a.tar.gz", tmp_path / "out", progress=False), "header claims"
    )


def test_what_follows_the_end_of_an_archive_is_bounded(tmp_path):
    archive = packed(tmp_path / "a.tar.gz", {"a.csv": b"date,close\n"})
    raw = gzip.decompress(archive.read_bytes())
    archive.write_bytes(gzip.compress(raw + bytes(40_000_000)))
    refused(lambda: unpack(archive, tmp_path / "out", progress=False), "goes on after its end")


def test_a_packed_csv_that_grows_out_of_proportion_is_refused(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"date,close\n" + b"2020-01-01,1\n" * 3_000_000))
    refused(
        lambda: import_provider(path, tmp_path / "out", progress=False),
        r"grows past 33,554,432 bytes",
    )


def test_a_parquet_file_that_grows_out_of_proportion_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({"date": pd.Timestamp("2020-01-01"), "close": np.ones(20_000_000)})
    frame.to_parquet(path)
    assert path.stat().st_size < 400_000
    refused(
        lambda: import_provider(path, tmp_path / "out", progress=False),
        r"20,000,000 rows of 2 columns take",
    )


def test_what_packs_well_and_is_small_is_taken(tmp_path):
    rows = "".join(f"{day:%Y-%m-%d},1.0\n" for day in pd.bdate_range("1990-01-01", periods=8000))
    archive = packed(
        tmp_path / "a.tar.xz", {f"{c}.csv": f"date,close\n{rows}".encode() for c in "AB"}
    )
    assert archive.stat().st_size * 20 < 2 * len(rows)
    assert import_provider(archive, tmp_path / "out", progress=False).names == ["A", "B"]


# Feature files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 3, 5, 117, 119])
def test_a_feature_file_cut_within_a_value_is_an_error_at_every_door(tmp_path, length):
    spells = pd.DataFrame({"instrument": ["A", "B"], "start": DAYS[0], "end": DAYS[-1]})
    columns = {"close": np.arange(1.0, 31), "change": np.full(30, 0.01), "volume": np.ones(30)}
    series = {name: pd.DataFrame(columns, DAYS) for name in ("A", "B")}
    (tmp_path / "p").mkdir()
    provider = write_provider(tmp_path / "p", DAYS, series, {"all": spells})
    for field in columns:
        path = provider.root / "features" / "a" / f"{field}.day.bin"
        whole = path.read_bytes()
        path.write_bytes(whole[:length])
        match = rf"a/{field}\.day\.bin is cut short: {length} bytes"
        for read in (
            lambda name=field: provider.series("A", name),
            lambda name=field: provider.raw("A", name),
            lambda name=field: provider.frame(name, ["A"]),
            provider.fingerprint,
            lambda: import_provider(provider.root, tmp_path / "out", progress=False),
        ):
            with pytest.raises(ProviderError, match=match):
                read()
        assert any(f"{field}.day.bin is cut short" in p for p in check_provider(
            provider.root)["unreadable"].places)  # fmt: skip
        path.write_bytes(whole)
    assert Provider(provider.root).fingerprint()
