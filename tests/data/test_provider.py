"""Provider files and atomic writes: layout, exactness, refusals, and nothing half-written."""

from __future__ import annotations

import os
import stat

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.provider import (
    Provider,
    check_target,
    folder_name,
    write_calendar,
    write_provider,
    write_series,
)
from bpqp_portfolio.data.provider.summary import summary
from bpqp_portfolio.errors import ConfigError, ProviderError
from bpqp_portfolio.files.atomic import replacing_file, replacing_folder

DAYS = pd.bdate_range("2020-01-01", periods=6)


def spells(*rows):
    frame = pd.DataFrame(rows, columns=["instrument", "start", "end"])
    return frame.assign(start=pd.to_datetime(frame["start"]), end=pd.to_datetime(frame["end"]))


@pytest.fixture
def provider(tmp_path):
    series = {
        "AAA": pd.DataFrame({"close": [1.1, 2.2, 3.3]}, index=DAYS[[1, 2, 4]]),
        "CON": pd.DataFrame({"close": np.arange(6.0), "volume": 7.0}, index=DAYS),
    }
    lists = {
        "all": spells(("AAA", "2020-01-02", "2020-01-07"), ("CON", "2020-01-01", "2020-01-08")),
        "some": spells(("AAA", "2020-01-01", "2020-01-02"), ("AAA", "2020-01-06", "2020-01-06")),
    }
    return write_provider(tmp_path / "p", DAYS, series, lists, {"source": "here"})


def test_what_is_written_is_read_back(provider):
    assert provider.require() is provider
    assert provider.calendar.equals(DAYS)
    assert provider.markets == ["all", "some"]
    assert provider.manifest == {"source": "here"}
    assert provider.fields("CON") == ["close", "volume"]
    expected = np.array([np.nan, 1.1, 2.2, np.nan, 3.3, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(provider.series("aaa", "close"), expected)
    frame = provider.frame("close", ["AAA", "CON"])
    assert frame.shape == (6, 2) and frame["CON"].iloc[5] == 5.0


def test_a_series_is_stored_from_its_first_to_its_last_value(provider):
    stored = np.fromfile(provider.root / "features" / "aaa" / "close.day.bin", dtype="<f4")
    np.testing.assert_array_equal(stored, np.float32([1, 1.1, 2.2, np.nan, 3.3]))


def test_device_names_get_the_folder_that_qlib_looks_in(provider):
    from qlib.utils import code_to_fname

    names = ["CON", "nul", "COM1", "LPT9", "COM", "SH600000", "CONE"]
    assert [folder_name(n) for n in names] == [code_to_fname(n).lower() for n in names]
    assert provider.series("CON", "close")[1] == 1.0


def test_membership_follows_the_spells(provider):
    member = provider.membership("some", DAYS, ["CON", "AAA"])
    assert not member[:, 0].any()
    np.testing.assert_array_equal(member[:, 1], [True, True, False, True, False, False])


def test_codes_that_look_like_missing_values_are_kept(provider):
    (provider.root / "instruments" / "odd.txt").write_text("NA\t2020-01-01\t2020-01-08\n")
    assert provider.spells("odd")["instrument"].tolist() == ["NA"]


def test_an_empty_list_has_no_spells(provider):
    (provider.root / "instruments" / "none.txt").write_text("")
    assert len(provider.spells("none")) == 0
    assert not provider.membership("none", DAYS, ["AAA"]).any()


@pytest.mark.parametrize("line", ["AAA\n", "AAA\t2020-01-01\t\n", "AAA\tsoon\t2020-01-01\n"])
def test_a_malformed_list_is_named(provider, line):
    (provider.root / "instruments" / "bad.txt").write_text(line)
    with pytest.raises(ProviderError, match=r"bad\.txt"):
        provider.spells("bad")


def test_an_unknown_list_names_the_known_ones(provider):
    with pytest.raises(ProviderError, match="all, some"):
        provider.spells("csi300")


def test_an_absent_provider_says_how_to_get_one(tmp_path):
    with pytest.raises(ProviderError, match="bpqp data import"):
        Provider(tmp_path / "nowhere").require()


def test_series_that_run_past_the_calendar_are_refused(provider):
    path = provider.root / "features" / "aaa" / "close.day.bin"
    np.float32([4, 1, 2, 3]).tofile(path)
    with pytest.raises(ProviderError, match="1 days past"):
        provider.series("AAA", "close")


@pytest.mark.parametrize("start", [-1.0, 0.5, np.nan, np.inf])
def test_a_series_begins_with_a_position(provider, start):
    np.float32([start, 1]).tofile(provider.root / "features" / "aaa" / "close.day.bin")
    with pytest.raises(ProviderError, match="calendar position"):
        provider.raw("AAA", "close")


def test_a_damaged_manifest_is_an_error(provider):
    (provider.root / "manifest.json").write_text("{")
    with pytest.raises(ProviderError, match="damaged"):
        _ = provider.manifest


def test_the_fingerprint_follows_every_file(provider):
    before = provider.fingerprint()
    assert provider.fingerprint() == before
    (provider.root / "instruments" / "all.txt").write_text("AAA\t2020-01-01\t2020-01-08\n")
    changed = provider.fingerprint()
    np.float32([0, 1]).tofile(provider.root / "features" / "aaa" / "close.day.bin")
    assert len({before, changed, provider.fingerprint()}) == 3


def test_the_summary_counts_names(provider):
    text = summary(provider)
    assert "6 days, 2 instruments" in text
    assert "list all: 2 names, 1 on the last day" in text


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (["2020-01-02", "2020-01-02"], "2020-01-02 follows 2020-01-02"),
        (["2020-01-03", "2020-01-02"], "2020-01-02 follows 2020-01-03"),
        ([], "empty"),
    ],
)
def test_a_calendar_increases_strictly(tmp_path, days, message):
    with pytest.raises(ProviderError, match=message):
        write_calendar(tmp_path, pd.DatetimeIndex(days))


def test_rows_outside_the_calendar_or_twice_are_refused(tmp_path):
    outside = {"A": pd.DataFrame({"close": [1.0]}, index=pd.DatetimeIndex(["2021-01-01"]))}
    with pytest.raises(ProviderError, match="2021-01-01 is no trading day"):
        write_provider(tmp_path / "a", DAYS, outside, {})
    twice = {"A": pd.DataFrame({"close": [1.0, 2.0]}, index=DAYS[[0, 0]])}
    with pytest.raises(ProviderError, match="twice"):
        write_provider(tmp_path / "b", DAYS, twice, {})


def test_names_that_differ_in_case_only_are_refused(tmp_path):
    write_series(tmp_path, "Aaa", {"close": np.ones(2)})
    with pytest.raises(ProviderError, match="share the folder"):
        write_series(tmp_path, "AAA", {"close": np.ones(2)})


def test_only_an_empty_place_or_a_provider_may_be_written(provider, tmp_path):
    check_target(provider.root)
    check_target(tmp_path / "absent")
    (tmp_path / "notes").mkdir()
    check_target(tmp_path / "notes")
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not replaced"):
        check_target(tmp_path / "notes")
    with pytest.raises(ConfigError, match="is a file"):
        check_target(tmp_path / "notes" / "thesis.txt")


def fill(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(text)


def test_a_folder_is_replaced_only_on_success(tmp_path):
    target = tmp_path / "deep" / "target"
    with replacing_folder(target) as fresh:
        fill(fresh, "old")
    with pytest.raises(RuntimeError), replacing_folder(target) as fresh:
        fill(fresh, "half")
        raise RuntimeError
    assert (target / "file").read_text() == "old"
    with replacing_folder(target) as fresh:
        fill(fresh, "new")
        assert (target / "file").read_text() == "old"
    assert (target / "file").read_text() == "new"
    assert os.listdir(target.parent) == ["target"]


def test_an_interrupt_between_the_renames_loses_nothing(tmp_path, monkeypatch):
    target = tmp_path / "target"
    fill(target, "old")
    rename, calls = os.rename, []

    def interrupted(source, destination):
        calls.append(destination)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as fresh:
        fill(fresh, "new")
    assert len(calls) == 3
    assert (target / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    fill(tmp_path / "disk", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with replacing_folder(tmp_path / "link") as fresh:
        fill(fresh, "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "file").read_text() == "new"


def test_a_file_is_replaced_only_on_success(tmp_path):
    target = tmp_path / "values.npy"
    with replacing_file(target) as scratch:
        np.save(scratch, np.ones(3))
    with pytest.raises(RuntimeError), replacing_file(target) as scratch:
        scratch.write_bytes(b"half")
        raise RuntimeError
    np.testing.assert_array_equal(np.load(target), np.ones(3))
    assert os.listdir(tmp_path) == ["values.npy"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
