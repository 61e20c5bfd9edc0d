"""The provider of 20 US stocks holds skfolio's prices and nothing invented."""

from __future__ import annotations

import importlib.resources

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.us20 import BENCHMARK, UNIVERSE, build_us20
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.errors import ConfigError

pytest.importorskip("skfolio", reason="these prices come with skfolio")


@pytest.fixture(scope="module")
def us20(tmp_path_factory):
    return build_us20(tmp_path_factory.mktemp("us20") / "provider")


@pytest.fixture(scope="module")
def source():
    path = importlib.resources.files("skfolio.datasets.data") / "sp500_dataset.csv.gz"
    with path.open("rb") as file:
        return pd.read_csv(file, compression="gzip", index_col=0, parse_dates=True)


def test_prices_are_those_of_the_source(us20, source):
    assert us20.calendar.equals(source.index)
    names = sorted(us20.spells(UNIVERSE)["instrument"])
    assert names == sorted(source.columns)
    np.testing.assert_array_equal(us20.frame("close", names), source[names].astype(np.float32))


def test_fields_are_only_those_that_are_known(us20):
    for name in ("AAPL", BENCHMARK):
        assert us20.fields(name) == ["change", "close", "factor"]
        assert (us20.series(name, "factor") == 1.0).all()


def test_change_is_the_return_as_a_fraction(us20):
    close, change = us20.series("XOM", "close").astype(float), us20.series("XOM", "change")
    np.testing.assert_allclose(change[1:], close[1:] / close[:-1] - 1, atol=1e-6)
    assert np.isnan(change[0])


def test_lists_and_manifest(us20):
    assert us20.markets == ["all", UNIVERSE]
    assert us20.spells("all").equals(us20.spells(UNIVERSE))
    assert BENCHMARK not in set(us20.spells("all")["instrument"])
    manifest = us20.manifest
    assert manifest["benchmark"] == BENCHMARK
    assert {market: size["names"] for market, size in manifest["universes"].items()} == {
        "all": 20,
        UNIVERSE: 20,
    }
    assert (manifest["start"], manifest["end"]) == ("1990-01-02", "2022-12-28")
    assert "skfolio" in manifest["source"]


def test_the_check_finds_no_fault(us20):
    report = check_provider(us20.root)
    assert (report.errors, report.warnings, len(report.exclusions)) == (0, 0, 0)
    assert "fields-missing" in report
    assert (report.coverage["covered"] == 1.0).all()


def test_it_can_be_built_again_but_replaces_nothing_else(tmp_path):
    build_us20(tmp_path / "us20")
    assert build_us20(tmp_path / "us20").markets == ["all", UNIVERSE]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds no Qlib provider"):
        build_us20(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "precious"


def test_without_skfolio_the_error_names_the_remedy(tmp_path, monkeypatch):
    def absent(package):
        raise ModuleNotFoundError(f"No module named {package!r}")

    monkeypatch.setattr(importlib.resources, "files", absent)
    with pytest.raises(ConfigError, match=r"pip install 'bpqp-portfolio\[demo\]'"):
        build_us20(tmp_path / "us20")
    assert not (tmp_path / "us20").exists()
