"""New days for a provider: as if imported at once, or refused with what contradicts it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.data.provider.importer import import_provider
from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.data.provider.summary import summary
from bpqp_portfolio.errors import ConfigError, DataError

DAYS = pd.bdate_range("2021-03-01", periods=12, name="date")
NAMES = ["A", "B", "SPX"]
OLD = 8  # days of the first import


def market() -> pd.DataFrame:
    """A long table of all days; B is suspended on the last day of the first import."""
    parts = []
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        close = 10 * np.exp(np.cumsum(rng.normal(0, 0.02, len(DAYS))))
        part = pd.DataFrame({"symbol": name, "open": close * 1.01, "close": close}, DAYS)
        part["volume"] = rng.integers(1000, 9000, len(DAYS)).astype(float)
        parts.append(part)
    table = pd.concat(parts).reset_index()
    table.loc[(table["symbol"] == "B") & (table["date"] == DAYS[OLD - 1]), "volume"] = 0
    return table


def write(folder, table, name="x.csv"):
    table.to_csv(folder / name, index=False)
    return folder / name


@pytest.fixture
def old(tmp_path) -> Provider:
    table = market()
    source = write(tmp_path, table[table["date"] < DAYS[OLD]], "old.csv")
    return import_provider(source, tmp_path / "p", market="mine", benchmark="SPX")


def later(table=None, first=OLD - 3):
    table = market() if table is None else table
    return table[table["date"] >= DAYS[first]]


def stored(provider):
    series = {(n, f): provider.series(n, f) for n in provider.names for f in provider.fields(n)}
    return series, {m: provider.spells(m).to_dict("list") for m in provider.markets}


def test_appended_days_are_those_of_one_import(tmp_path, old):
    whole = import_provider(
        write(tmp_path, market(), "all.csv"), tmp_path / "q", market="mine", benchmark="SPX"
    )
    path = write(tmp_path, later())
    provider = import_provider(path, old.root, append=True)
    assert provider.calendar.equals(DAYS)
    ours, theirs = stored(provider), stored(whole)
    assert ours[0].keys() == theirs[0].keys() and ours[1] == theirs[1]
    for key, values in ours[0].items():
        np.testing.assert_array_equal(values, theirs[0][key], str(key))
    manifest = provider.manifest
    assert (manifest["days"], manifest["benchmark"]) == (12, "SPX")
    assert manifest["universes"] == whole.manifest["universes"]
    (entry,) = manifest["appended"]
    assert (entry["source"], entry["start"], entry["names"]) == ("x.csv", "2021-03-11", 3)
    assert "appended last: 2021-03-11 to 2021-03-16, 3 names, from x.csv" in summary(provider)
    # A second time there is nothing new, and nothing is touched.
    before = provider.fingerprint()
    assert import_provider(path, old.root, append=True).fingerprint() == before


def test_a_new_name_joins_and_one_that_stays_away_ends(tmp_path, old):
    table = later()
    table = table[table["symbol"] != "A"]
    new = table[table["symbol"] == "B"].assign(symbol="NEW", volume=5.0)
    provider = import_provider(write(tmp_path, pd.concat([table, new])), old.root, append=True)
    for name in ("all", "mine"):
        spells = provider.spells(name).set_index("instrument")
        assert sorted(spells.index) == ["A", "B", "NEW"]
        assert spells["end"].to_dict() == {"A": DAYS[7], "B": DAYS[11], "NEW": DAYS[11]}
    assert np.isnan(provider.series("A", "close")[OLD:]).all()
    said = summary(provider)
    assert "new names: NEW" in said and "without a price after the day before: A" in said


def changed(name, day, field, value):
    table = market()
    table.loc[(table["symbol"] == name) & (table["date"] == DAYS[day]), field] = value
    return later(table)


def refused(tmp_path, old, table, match, error=DataError):
    before = old.fingerprint(), old.manifest
    with pytest.raises(error, match=match):
        import_provider(write(tmp_path, table), old.root, append=True)
    assert before == (old.fingerprint(), old.manifest)


def test_what_contradicts_the_provider_is_refused_with_the_largest_difference_first(tmp_path, old):
    table = changed("A", 6, "close", 11.0)
    table.loc[(table["symbol"] == "B") & (table["date"] == DAYS[5]), "open"] = 99.0
    refused(
        tmp_path, old, table,
        r"B 2021-03-08, open .* in the provider and 99 in x.csv line \d+; A 2021-03-09, close .* "
        r"and 11 in x.csv line 3.*Nothing was written.*without --append",
    )  # fmt: skip


def test_prices_that_were_adjusted_anew_are_told_from_wrong_ones(tmp_path, old):
    table = market()
    table.loc[table["symbol"] == "A", ["open", "close"]] /= 2
    refused(
        tmp_path, old, later(table),
        r"A: all its prices from 2021-03-08 on are 0.5 times the provider's \(x.csv line 2\), so "
        "they were adjusted anew.*split",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "match", "error"),
    [
        (later(first=OLD), r"begins on 2021-03-11.*begin with 2021-03-10", DataError),
        (later().drop(columns="open"), r"no open of A.*add the columns", DataError),
        (later(pd.concat([market(), market().tail(1).assign(date="2021-03-07")])
               .assign(date=lambda t: pd.to_datetime(t["date"])), first=4),
         r"2021-03-07 \(SPX, x.csv line \d+\) is no trading day", DataError),
        (later()[lambda t: (t["symbol"] != "A") | (t["date"] >= DAYS[OLD])],
         "A: no day in common", DataError),
        (later()[lambda t: (t["symbol"] != "A") | (t["date"] != DAYS[OLD - 2])],
         "A 2021-03-09, .*nan in no row of the source", DataError),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_compared_are_refused(tmp_path, old, table, match, error):
    refused(tmp_path, old, table, match, error)


def test_append_keeps_lists_and_benchmark_and_needs_an_import(tmp_path, old):
    path = write(tmp_path, later())
    with pytest.raises(ConfigError, match="keeps its lists and its benchmark"):
        import_provider(path, old.root, append=True, benchmark="SPX")
    with pytest.raises(ConfigError, match="import a provider as a whole"):
        import_provider(old.root, old.root, append=True)
    (old.root / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="was not made by `bpqp data import`"):
        import_provider(path, old.root, append=True)


def test_the_command_appends(tmp_path, old):
    command = ["data", "import", str(write(tmp_path, later())), "--to", str(old.root), "--append"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0 and "2021-03-01 to 2021-03-16, 12 days" in result.output
