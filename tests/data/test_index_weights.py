"""Index weights: proxies by hand, the user's table by date, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.data.universe.index_weights import index_weights
from bpqp_portfolio.data.universe.market import load_market
from bpqp_portfolio.errors import ConfigError, DataError

DAYS = pd.bdate_range("2020-01-06", periods=6)


@pytest.fixture
def provider(tmp_path):
    """AAA at 10 with volume 100, BBB at 20 with 150; CCC without volume joins on the third day."""
    flat = pd.DataFrame({"close": 1.0, "volume": 1.0}, index=DAYS)
    series = {
        "AAA": flat.assign(close=10.0, volume=100.0),
        "BBB": flat.assign(close=20.0, volume=150.0),
        "CCC": flat[["close"]],
    }
    spells = pd.DataFrame(
        [("AAA", DAYS[0], DAYS[-1]), ("BBB", DAYS[0], DAYS[-1]), ("CCC", DAYS[2], DAYS[-1])],
        columns=["instrument", "start", "end"],
    )
    (tmp_path / "market").mkdir()
    lists = {"all": spells, "two": spells.iloc[:2]}
    return write_provider(tmp_path / "market", DAYS, series, lists)


def test_equal_weights_of_the_members(provider):
    found = index_weights("equal", load_market(provider, "all"), provider)
    np.testing.assert_allclose(found.weights[1], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(found.weights[2], [1 / 3] * 3)
    assert "proxy" in found.source


def test_value_traded(provider):
    found = index_weights("traded_value", load_market(provider, "two"), provider)
    np.testing.assert_allclose(found.weights, [[0.25, 0.75]] * 6)
    with pytest.raises(ConfigError, match=r"traded_value needs the volume, which CCC"):
        index_weights("traded_value", load_market(provider, "all"), provider)


def test_value_traded_is_known_up_to_the_day(tmp_path):
    """AAA trades 1 a day and BBB 3; a value of 501 for AAA counts from its day on, for 250 days."""
    days = pd.bdate_range("2020-01-06", periods=260)
    flat = pd.DataFrame({"close": 1.0, "volume": 1.0}, index=days)
    series = {"AAA": flat.copy(), "BBB": flat.assign(close=3.0)}
    series["AAA"].iloc[4, 1] = 501.0
    spells = pd.DataFrame({"instrument": ["AAA", "BBB"], "start": days[0], "end": days[-1]})
    provider = write_provider(tmp_path / "m", days, series, {"all": spells})
    found = index_weights("traded_value", load_market(provider, "all"), provider).weights[:, 0]
    np.testing.assert_allclose(found[:4], 0.25)
    # Means over the days there are: (501 + 4) / 5 = 101, then (501 + 5) / 6 = 84⅓, ...
    np.testing.assert_allclose(found[[4, 5]], [101 / 104, (506 / 6) / (506 / 6 + 3)])
    np.testing.assert_allclose(found[[249, 253]], (750 / 250) / (750 / 250 + 3))
    np.testing.assert_allclose(found[254:], 0.25)


def test_a_day_without_trade_does_not_count(tmp_path):
    """AAA trades 4, nothing, then 2; BBB 3 on each day: means 4, 4, 3."""
    days = pd.bdate_range("2020-01-06", periods=3)
    flat = pd.DataFrame({"close": 1.0, "volume": 3.0}, index=days)
    series = {"AAA": flat.assign(volume=[4.0, 0.0, 2.0]), "BBB": flat}
    series["AAA"].iloc[1] = np.nan
    spells = pd.DataFrame({"instrument": ["AAA", "BBB"], "start": days[0], "end": days[-1]})
    provider = write_provider(tmp_path / "m", days, series, {"all": spells})
    found = index_weights("traded_value", load_market(provider, "all"), provider).weights[:, 0]
    np.testing.assert_allclose(found, [4 / 7, 4 / 7, 1 / 2])


def test_a_table_holds_until_the_next(provider, tmp_path):
    file = tmp_path / "weights.csv"
    file.write_text(
        "date,instrument,weight\n2020-01-07,AAA,2\n2020-01-07,ccc,6\n2020-01-11,BBB,1\n"
        "2020-01-11,ZZZ,9\n"
    )
    found = index_weights(str(file), load_market(provider, "all"), provider)
    expected = [[0, 0, 0], *[[0.25, 0, 0.75]] * 4, [0, 1, 0]]
    np.testing.assert_allclose(found.weights, expected)
    assert found.source == "the table weights.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,name,weight\n", "expected the columns date,instrument,weight"),
        ("date,instrument,weight\n2020,AAA,1\n", "cannot read the index weights"),
        ("date,instrument,weight\n2020-01-07,AAA,-1\n", "negative or not finite"),
        ("date,instrument,weight\n2020-01-07,AAA,\n", "line 2: weight '' is negative or not"),
        (
            "date,instrument,weight\n2020-01-07,AAA,1\n2020-01-07,aaa,1\n",
            "AAA occurs twice on 2020-01-07",
        ),
    ],
)
def test_what_is_refused(provider, tmp_path, text, message):
    (tmp_path / "weights.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        index_weights(str(tmp_path / "weights.csv"), load_market(provider, "all"), provider)


def test_a_mandate_relative_to_the_index_needs_its_weights_on_every_day(provider, tmp_path):
    file = tmp_path / "weights.csv"
    file.write_text("date,instrument,weight\n2020-01-07,AAA,2\n2020-01-07,BBB,0\n")
    market, span = load_market(provider, "two"), (DAYS[0], DAYS[-1])
    block = {"risk_aversion": 5.0, "index_weights": str(file)}
    settings = MandateSettings.from_config({**block, "active_weights": 0.1}, 238)
    with pytest.raises(DataError, match=r"weights.csv has no weight .* 2020-01-06 \(1 such days\)"):
        settings.check_tables(market, provider, 3, span)
    settings.check_tables(market, provider, 3, (DAYS[1], DAYS[-1]))
    free = MandateSettings.from_config({**block, "max_weights": 0.7}, 238)
    free.check_tables(market, provider, 3, span)
