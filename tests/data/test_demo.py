"""The demo provider holds skfolio's prices and nothing invented."""

from __future__ import annotations

import importlib.resources

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.demo import BENCHMARK, UNIVERSE, build_demo
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.errors import ConfigError

pytest.importorskip("skfolio", reason="the demo's prices come with skfolio")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return build_demo(tmp_path_factory.mktemp("demo") / "provider")


@pytest.fixture(scope="module")
def source():
    path = importlib.resources.files("skfolio.datasets.data") / "sp500_dataset.csv.gz"
    with path.open("rb") as file:
        return pd.read_csv(file, compression="gzip", index_col=0, parse_dates=True)


def test_prices_are_those_of_the_source(demo, source):
    assert demo.calendar.equals(source.index)
    names = sorted(demo.spells(UNIVERSE)["instrument"])
    assert names == sorted(source.columns)
    np.testing.assert_array_equal(demo.frame("close", names), source[names].astype(np.float32))


def test_fields_are_only_those_that_are_known(demo):
    for name in ("AAPL", BENCHMARK):
        assert demo.fields(name) == ["change", "close", "factor"]
        assert (demo.series(name, "factor") == 1.0).all()


def test_change_is_the_return_as_a_fraction(demo):
    close, change = demo.series("XOM", "close").astype(float), demo.series("XOM", "change")
    np.testing.assert_allclose(change[1:], close[1:] / close[:-1] - 1, atol=1e-6)
    assert np.isnan(change[0])


def test_lists_and_manifest(demo):
    assert demo.markets == ["all", UNIVERSE]
    assert demo.spells("all").equals(demo.spells(UNIVERSE))
    assert BENCHMARK not in set(demo.spells("all")["instrument"])
    manifest = demo.manifest
    assert manifest["benchmark"] == BENCHMARK
    assert {market: size["names"] for market, size in manifest["universes"].items()} == {
        "all": 20,
        UNIVERSE: 20,
    }
    assert (manifest["start"], manifest["end"]) == ("1990-01-02", "2022-12-28")
    assert "skfolio" in manifest["source"]


def test_the_check_finds_no_fault(demo):
    report = check_provider(demo.root)
    assert (report.errors, report.warnings, len(report.exclusions)) == (0, 0, 0)
    assert "fields-missing" in report
    assert (report.coverage["covered"] == 1.0).all()


def test_it_can_be_built_again_but_replaces_nothing_else(tmp_path):
    build_demo(tmp_path / "demo")
    assert build_demo(tmp_path / "demo").markets == ["all", UNIVERSE]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds no Qlib provider"):
        build_demo(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "precious"


def test_without_skfolio_the_error_names_the_remedy(tmp_path, monkeypatch):
    def absent(package):
        raise ModuleNotFoundError(f"No module named {package!r}")

    monkeypatch.setattr(importlib.resources, "files", absent)
    with pytest.raises(ConfigError, match=r"pip install 'bpqp-portfolio\[demo\]'"):
        build_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
