"""The exchange: limits by board and date, and prices spliced over invalid moves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qlib_markets import connect, from_closes, trade

from bpqp_portfolio.data.quality.exclusions import Exclusion, Exclusions
from bpqp_portfolio.markets.rules import market_rules
from bpqp_portfolio.qlib_ext.exchange import BoardExchange

# Around 2020-08-24, from which day ChiNext (SZ30) has a limit of 20 %.
DAYS = pd.bdate_range("2020-08-17", periods=12)
CHANGED = DAYS.get_loc(pd.Timestamp("2020-08-24"))
MAIN, CHINEXT, STAR = "SH600000", "SZ300001", "SH688001"


def closes(**moves: dict[int, float]) -> pd.DataFrame:
    """Prices of the three names (and SZ000001, always flat) that move on the given days only."""
    table = pd.DataFrame(20.0, index=DAYS, columns=[MAIN, CHINEXT, STAR, "SZ000001"])
    for name, days in moves.items():
        for day, move in days.items():
            table.loc[DAYS[day] :, name] *= 1 + move
    return table


def flags(tmp_path, table, **rules) -> pd.DataFrame:
    """Columns ``limit_buy`` and ``limit_sell`` by (instrument, datetime)."""
    provider = from_closes(tmp_path / "market", table)
    connect(provider.root, "cn")
    names = list(table.columns)
    exchange = BoardExchange(
        start_time=DAYS[0],
        end_time=DAYS[-2],
        codes=names,
        deal_price="close",
        rules=market_rules("cn", rules),
    )
    return exchange.quote_df[["limit_buy", "limit_sell"]]


@pytest.mark.parametrize(
    ("name", "day", "move", "limited"),
    [
        (MAIN, 3, 0.10, True),
        (MAIN, 8, 0.10, True),
        (MAIN, 3, 0.094, False),
        (CHINEXT, CHANGED - 1, 0.10, True),
        (CHINEXT, CHANGED, 0.10, False),
        (CHINEXT, CHANGED, 0.15, False),
        (CHINEXT, CHANGED, 0.20, True),
        (STAR, 3, 0.15, False),
        (STAR, 3, 0.20, True),
    ],
)
@pytest.mark.parametrize("side", [1, -1])
def test_limits_follow_board_and_date(tmp_path, name, day, move, limited, side):
    quote = flags(tmp_path, closes(**{name: {day: side * move}}))
    row = quote.loc[(name, DAYS[day])]
    assert bool(row["limit_buy"]) == (limited and side > 0)
    assert bool(row["limit_sell"]) == (limited and side < 0)
    assert not quote.drop((name, DAYS[day])).to_numpy().any()


def test_without_board_limits_only_suspensions_bind(tmp_path):
    table = closes(**{MAIN: {3: 0.10}, CHINEXT: {4: -0.3}})
    table.loc[DAYS[5], STAR] = np.nan
    quote = flags(tmp_path, table, price_limits=None)
    assert quote.loc[(STAR, DAYS[5])].all()
    assert not quote.drop((STAR, DAYS[5])).to_numpy().any()


def everything_in(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The whole portfolio in one name on every day but the last."""
    weights = pd.DataFrame(0.0, index=DAYS[:-1], columns=table.columns)
    weights[name] = 1.0
    return weights


@pytest.mark.parametrize(
    ("name", "day", "move", "bought"),
    [(MAIN, 1, 0.10, 0), (CHINEXT, 1, 0.10, 0), (CHINEXT, CHANGED, 0.10, 1), (STAR, 1, 0.10, 1)],
)
def test_a_name_at_its_upper_limit_is_not_bought(tmp_path, name, day, move, bought):
    """It is wanted from the day before on, and counted as blocked where it cannot be had."""
    table = closes(**{name: {day: move}})
    weights = everything_in(name, table)
    weights.iloc[: day - 1] = 0.0
    provider = from_closes(tmp_path / "market", table)
    _, shares, blocked = trade(provider, weights, region="cn")
    assert len(shares[DAYS[day]]) == bought
    assert blocked[DAYS[day]] == 1 - bought
    # Qlib's orders leave out what is at its limit on the day of the signal too.
    assert len(shares[DAYS[day + 2]]) == 1 and blocked[DAYS[day + 2]] == 0


def test_a_name_at_its_lower_limit_or_suspended_is_not_sold(tmp_path):
    table = closes(**{MAIN: {4: -0.10}})
    table.loc[DAYS[5], MAIN] = np.nan
    weights = everything_in(MAIN, table)
    weights.loc[DAYS[3] :, MAIN], weights.loc[DAYS[3] :, "SZ000001"] = 0.0, 1.0
    provider = from_closes(tmp_path / "market", table)
    report, shares, blocked = trade(provider, weights, region="cn")
    assert [MAIN in shares[day] for day in DAYS[3:7]] == [True, True, True, False]
    assert [blocked[day] for day in DAYS[3:7]] == [0, 1, 1, 0]
    assert report["return"].iloc[4] == pytest.approx(-0.9 * 0.1, rel=1e-5)


# Splices ---------------------------------------------------------------------------------------

WRONG = 6
FALSE_MOVE = Exclusions((Exclusion(MAIN, DAYS[WRONG], "move-impossible"),))


@pytest.fixture
def quadrupled(tmp_path):
    """A name whose factor jumps by 300 % on one day and is right again in its later returns."""
    table = closes(**{MAIN: {3: 0.02, WRONG: 3.0, WRONG + 1: 0.05, WRONG + 2: -0.03}})
    return from_closes(tmp_path / "market", table), everything_in(MAIN, table)


def test_a_held_name_earns_nothing_on_an_excluded_day(quadrupled):
    provider, weights = quadrupled
    told, *_ = trade(provider, weights, region="cn")
    report, shares, blocked = trade(
        provider, weights, region="cn", exchange={"exclusions": FALSE_MOVE}
    )
    assert told["return"].iloc[WRONG] > 2.5
    assert report["return"].iloc[WRONG] == pytest.approx(0.0, abs=1e-7)
    invested = [0.9 * 1.05 / (0.9 * 1.05 + 0.1), 0.05 * 0.9]
    assert report["return"].iloc[WRONG + 1] == pytest.approx(invested[1], rel=0.01)
    assert report["return"].iloc[WRONG + 2] == pytest.approx(-0.03 * invested[0], rel=0.05)
    # Nothing is bought or sold for the false move, and the limit it would break does not bind.
    held = [shares[day][MAIN] for day in DAYS[WRONG - 1 : WRONG + 1]]
    assert held[0] == pytest.approx(held[1], rel=1e-6)
    assert blocked[DAYS[WRONG]] == 0


def test_lots_are_those_of_the_quoted_price(quadrupled):
    """Adjusted price over factor is what the exchange quoted, before the splice and after."""
    provider, _ = quadrupled
    connect(provider.root, "cn")
    settings = {"start_time": DAYS[0], "end_time": DAYS[-2], "deal_price": "close"}
    settings["rules"] = market_rules("cn")
    names = [MAIN, "SZ000001"]
    plain = BoardExchange(codes=names, **settings).quote_df
    spliced = BoardExchange(codes=names, exclusions=FALSE_MOVE, **settings).quote_df
    quoted = [(q["$close"] / q["$factor"]) for q in (plain, spliced)]
    pd.testing.assert_series_equal(*quoted, rtol=1e-6)
    assert spliced.loc[(MAIN, DAYS[WRONG]), "$change"] == 0.0
    change = spliced.loc[MAIN, "$close"].pct_change().fillna(0.0)
    np.testing.assert_allclose(change, spliced.loc[MAIN, "$change"].fillna(0.0), atol=1e-6)
    others = [q.drop(MAIN, level="instrument") for q in (plain, spliced)]
    pd.testing.assert_frame_equal(*others, check_exact=True)


def test_moves_outside_the_backtest_or_of_other_names_change_nothing(quadrupled):
    provider, weights = quadrupled
    other = Exclusions(
        (
            Exclusion("SH999999", DAYS[WRONG], "another name"),
            Exclusion(MAIN, DAYS[0], "before the first return"),
            Exclusion(MAIN, DAYS[0] - pd.Timedelta(days=30), "before the data"),
            Exclusion(MAIN, DAYS[WRONG] + pd.Timedelta(days=300), "after the data"),
        )
    )
    told, *_ = trade(provider, weights, region="cn")
    same, *_ = trade(provider, weights, region="cn", exchange={"exclusions": other})
    pd.testing.assert_frame_equal(told, same, check_exact=True)


def test_two_excluded_days_of_one_name(tmp_path):
    table = closes(**{MAIN: {4: 3.0, 5: 0.01, 6: -0.75, 7: 0.02}})
    provider = from_closes(tmp_path / "market", table)
    moves = Exclusions((Exclusion(MAIN, DAYS[4], ""), Exclusion(MAIN, DAYS[6], "")))
    report, _, _ = trade(
        provider, everything_in(MAIN, table), region="cn", exchange={"exclusions": moves}
    )
    expected = [0, 0, 0, 0, 0, 0.009, 0, 0.018]
    np.testing.assert_allclose(report["return"].iloc[:8], expected, atol=2e-4)


def test_an_excluded_day_of_resumption_continues_the_last_close(tmp_path):
    table = closes(**{MAIN: {5: 3.0, 6: 0.01}})
    table.loc[DAYS[4], MAIN] = np.nan
    provider = from_closes(tmp_path / "market", table)
    moves = Exclusions((Exclusion(MAIN, DAYS[5], ""),))
    report, _, _ = trade(
        provider, everything_in(MAIN, table), region="cn", exchange={"exclusions": moves}
    )
    np.testing.assert_allclose(report["return"].iloc[3:7], [0, 0, 0, 0.009], atol=2e-4)
