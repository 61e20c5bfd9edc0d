"""Exposures of names: the user's table by date, what is built in by hand, and no look-ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.data.universe.exposures import MarketExposures
from bpqp_portfolio.data.universe.market import load_market
from bpqp_portfolio.errors import ConfigError, DataError

DAYS = pd.bdate_range("2019-01-01", periods=320)
NAMES = ("AAA", "BBB", "CCC", "DDD", "EEE")


def frames(seed: int = 0) -> dict[str, pd.DataFrame]:
    """Prices of five names that share a market; EEE is listed on day 310."""
    rng = np.random.default_rng(seed)
    base = 0.01 * rng.standard_normal(len(DAYS))
    out = {}
    for i, name in enumerate(NAMES):
        moves = (0.5 + 0.3 * i) * base + 0.005 * rng.standard_normal(len(DAYS))
        close = pd.Series(10 * np.cumprod(1 + moves), DAYS)
        volume = pd.Series(rng.uniform(50, 150, len(DAYS)) * 10**i, DAYS)
        out[name] = pd.DataFrame({"close": close, "volume": volume})
    out["BBB"].iloc[[100, 101, 317]] = np.nan
    out["EEE"].iloc[:310] = np.nan
    return out


def provider_of(folder, series):
    folder.mkdir()
    ends = dict.fromkeys(NAMES, DAYS[-1]) | {"DDD": DAYS[315]}
    starts = dict.fromkeys(NAMES, DAYS[0]) | {"EEE": DAYS[310]}
    rows = [(name, starts[name], ends[name]) for name in NAMES]
    spells = pd.DataFrame(rows, columns=["instrument", "start", "end"])
    return write_provider(folder, DAYS, series, {"all": spells})


@pytest.fixture
def provider(tmp_path):
    return provider_of(tmp_path / "market", frames())


def exposures(provider, names, tmp_path=None, text=None, window=60, **options):
    if text is not None:
        options["table"] = str(tmp_path / "x.csv")
        (tmp_path / "x.csv").write_text(text)
    market = load_market(provider, "all")
    return MarketExposures(names, market, provider, window=window, **options)


def day(text: str) -> int:
    return int(DAYS.get_loc(text))


# The user's table ---------------------------------------------------------------------------------

TABLE = (
    "date,instrument,value,beta\n"
    "2019-02-04,AAA,1,0.1\n2019-02-04,bbb,2,0.2\n2019-02-04,CCC,,0.3\n2019-02-04,DDD,4,0.4\n"
    "2019-03-02,AAA,5,1\n2019-03-02,ZZZ,9,9\n"
)


def test_the_last_table_on_or_before_a_day_counts(provider, tmp_path):
    found = exposures(provider, ["value"], tmp_path, TABLE)
    assert found.names == ("value",) and found.source == "the table x.csv"
    nan = np.nan
    before, first = found.of_day(day("2019-02-01")), found.of_day(day("2019-02-04"))
    np.testing.assert_array_equal(before[:, 0], [nan] * 5)
    np.testing.assert_array_equal(first[:, 0], [1, 2, nan, 4, nan])
    np.testing.assert_array_equal(found.of_day(day("2019-03-01")), first)
    # The second is of a Saturday. Members that it leaves out have none; EEE is no member yet.
    np.testing.assert_array_equal(found.of_day(day("2019-03-04"))[:, 0], [5, nan, nan, nan, nan])


def test_a_name_that_left_the_universe_keeps_its_last(provider, tmp_path):
    found = exposures(provider, ["value"], tmp_path, TABLE)
    np.testing.assert_array_equal(found.of_day(316)[:, 0], [5, np.nan, np.nan, 4, np.nan])


def test_a_fill_is_for_names_and_not_for_days_before_the_table(provider, tmp_path):
    found = exposures(provider, ["value"], tmp_path, TABLE, fill=-7.0)
    np.testing.assert_array_equal(found.of_day(day("2019-03-04"))[:, 0], [5, -7, -7, -7, -7])
    assert np.isnan(found.of_day(0)).all()
    assert found.unknown.tolist() == [-7.0]
    found.check(DAYS[30], DAYS[-1])
    with pytest.raises(DataError, match=r"x.csv begins on 2019-02-04, after 2019-01-01"):
        found.check(DAYS[0], DAYS[-1])


def test_a_column_of_the_table_goes_before_what_is_built_in(provider, tmp_path):
    found = exposures(provider, ["size"], tmp_path, TABLE, every=True, fill=0.0)
    assert found.names == ("value", "beta", "size")
    assert found.source == "the table x.csv and prices (size)"
    assert found.of_day(day("2019-03-04"))[0, :2].tolist() == [5.0, 1.0]
    np.testing.assert_array_equal(
        found.of_day(300)[:, 2], exposures(provider, ["size"]).of_day(300)[:, 0]
    )


def test_the_first_member_without_an_exposure_is_named(provider, tmp_path):
    found = exposures(provider, ["beta"], tmp_path, TABLE)
    found.check(pd.Timestamp("2019-02-04"), pd.Timestamp("2019-03-01"))
    with pytest.raises(DataError, match=r"no 'beta' of BBB .* 2019-03-04; complete it, or set"):
        found.check(pd.Timestamp("2019-02-04"), pd.Timestamp("2019-03-10"))
    with pytest.raises(DataError, match=r"no 'value' of CCC in .* 2019-02-06"):
        exposures(provider, ["value"], tmp_path, TABLE).check(DAYS[26], DAYS[30])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,name,value\n", "expected the columns date,instrument,one column or more"),
        ("date,instrument\n2019-01-01,AAA\n", "expected the columns date,instrument,one column"),
        ("date,instrument,value\n", "no line but the first"),
        ("date,instrument,value\n2019,AAA,1\n", "line 2: date '2019' is no date"),
        ("date,instrument,value\n2019-01-01,,1\n", "line 2: instrument '' is no name"),
        (
            "date,instrument,value\n2019-01-01,AAA,1\n2019-01-01,BBB,high\n",
            "line 3: value 'high' is no finite number",
        ),
        ("date,instrument,value\n2019-01-01,ZZZ,inf\n", "line 2: value 'inf' is no finite"),
        (
            "date,instrument,value\n2019-01-01,AAA,1\n2019-01-01,aaa,1\n",
            "line 3: AAA occurs twice on 2019-01-01",
        ),
    ],
)
def test_what_is_refused(provider, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        exposures(provider, ["value"], tmp_path, text)


def test_an_unknown_exposure_names_the_nearest(provider, tmp_path):
    with pytest.raises(ConfigError, match=r"no column 'valeu'.* Did you mean 'value'\?"):
        exposures(provider, ["valeu"], tmp_path, TABLE)
    with pytest.raises(ConfigError, match=r"'bta' is not built in.* Did you mean 'beta'\?"):
        exposures(provider, ["bta"])
    with pytest.raises(ConfigError, match="one number for all needs a table"):
        exposures(provider, [], every=True)
    with pytest.raises(DataError, match=r"cannot read the exposures .*nowhere\.csv"):
        exposures(provider, ["value"], table="nowhere.csv")


# What is built in ---------------------------------------------------------------------------------


def test_beta_is_the_slope_of_a_regression_on_equal_weights(provider):
    market = load_market(provider, "all")
    base = market.equal_weight_returns().to_numpy()
    got = exposures(provider, ["beta"]).of_day(312)[:, 0]
    rows = slice(253, 313)
    for i in range(4):
        own = market.returns[rows, i]
        known = np.isfinite(own)
        slope = np.polyfit(base[rows][known], own[known], 1)[0]
        assert got[i] == pytest.approx(slope, rel=1e-9)
    assert got[4] == 1.0  # listed two days ago
    assert (np.diff(got[:4]) > 0).all()
    # The universe's own beta is 1, where each name has each day.
    assert got[:4].mean() == pytest.approx(1.0, abs=0.02)


def test_size_and_momentum_by_hand_standardised_over_the_members(provider):
    series, at = frames(), 317
    got = exposures(provider, ["size", "momentum"]).of_day(at)
    value = {n: (f["close"] * f["volume"])[at - 249 : at + 1].mean() for n, f in series.items()}
    size = np.log([value[n] for n in NAMES])
    members = [0, 1, 2, 4]  # DDD has left
    expected = (size - size[members].mean()) / size[members].std()
    np.testing.assert_allclose(got[:, 0], expected, atol=1e-6)
    past = [np.log(series[n]["close"].iloc[[at - 250, at - 20]]).diff().iloc[-1] for n in NAMES]
    own = [0, 1, 2]  # EEE has no such history
    momentum = (past - np.mean(np.take(past, own))) / np.std(np.take(past, own))
    np.testing.assert_allclose(got[:4, 1], momentum[:4], atol=1e-5)
    assert got[4, 1] == 0.0


def test_the_future_moves_nothing_and_the_day_itself_does(provider, tmp_path):
    names, at = ["beta", "size", "momentum"], 300
    base = exposures(provider, names)
    for first, same in ((at + 1, True), (at - 20, False)):
        series = frames()
        for i, frame in enumerate(series.values()):
            frame.iloc[first:] *= np.random.default_rng(i).uniform(0.5, 2.0, (len(DAYS) - first, 2))
        other = exposures(provider_of(tmp_path / f"changed{first}", series), names)
        for j in range(3):
            assert np.array_equal(base.of_day(at)[:, j], other.of_day(at)[:, j]) == same
        assert np.array_equal(base.of_day(at - 100), other.of_day(at - 100))


def test_size_needs_a_volume(tmp_path):
    series = {name: frame[["close"]] for name, frame in frames().items()}
    with pytest.raises(ConfigError, match="size needs the volume, which AAA does not have"):
        exposures(provider_of(tmp_path / "bare", series), ["size"])
