"""Who is in the problem of a day: members that trade, with a risk model, and valid moves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from qlib_markets import FEW, SETTINGS, build, from_closes, rewrite

from bpqp_portfolio.data.provider.provider import Provider, write_universe
from bpqp_portfolio.data.quality.exclusions import Exclusion, Exclusions, write_exclusions
from bpqp_portfolio.data.universe.market import MarketData, load_market
from bpqp_portfolio.errors import ConfigError, ProviderError
from bpqp_portfolio.qlib_ext.data_checks import check_region
from bpqp_portfolio.risk.config import RiskConfig
from bpqp_portfolio.risk.rolling import rolling_risk

DAYS = pd.bdate_range("2020-01-06", periods=8)


def spells(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """Membership from the first to the last position of :data:`DAYS`."""
    return pd.DataFrame(
        [(name, DAYS[a], DAYS[b]) for name, a, b in rows], columns=["instrument", "start", "end"]
    )


@pytest.fixture
def small(tmp_path) -> MarketData:
    """Four names: A always in, B leaves, C comes, suspended, comes back; D moves impossibly."""
    closes = pd.DataFrame(
        {
            "A": [10, 11, 12, 13, 14, 15, 16, 17],
            "B": [10, 10, 20, 20, 10, 10, 10, 10],
            "C": [np.nan, 5, 5, np.nan, np.nan, 10, 10, 10],
            "D": [10, 10, 10, 40, 40, 44, 44, 44],
            "E": [10, 12, 14, 16, 18, 20, 22, 24],
        },
        index=DAYS,
        dtype=float,
    )
    members = spells(("A", 0, 7), ("B", 0, 3), ("C", 2, 3), ("C", 5, 7), ("D", 0, 7), ("X", 0, 7))
    provider = from_closes(tmp_path / "small", closes, list=members)
    wrong = Exclusions((Exclusion("D", DAYS[3], "move-impossible"), Exclusion("E", DAYS[3], "")))
    return load_market(provider, "list", wrong)


def test_membership_is_that_of_the_day(small):
    assert list(small.names) == ["A", "B", "C", "D"]  # X has no prices, E is no member
    assert small.member.astype(int).T.tolist() == [
        [1] * 8,
        [1, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 1, 1, 1],
        [1] * 8,
    ]


def test_investable_are_members_with_a_valid_close(small):
    assert small.investable.astype(int).T.tolist() == [
        [1] * 8,
        [1, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, 1, 1],
        [1, 1, 1, 0, 1, 1, 1, 1],
    ]


def test_a_return_is_over_the_last_two_closes_and_unknown_where_excluded(small):
    expected = [np.nan, np.nan, 0.0, np.nan, np.nan, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(small.returns[:, 2], expected)
    expected = [np.nan, 0.0, 0.0, np.nan, 0.0, 0.1, 0.0, 0.0]
    np.testing.assert_allclose(small.returns[:, 3], expected, atol=1e-6)


def test_equal_weights_in_closed_form(small):
    """Held from the close of the day before; suspended and excluded names earn nothing."""
    series = small.equal_weight_returns()
    expected = [
        np.nan,
        (0.1 + 0.0 + 0.0) / 3,  # A, B, D
        (1 / 11 + 1.0 + 0.0) / 3,  # A, B, D; C joins at the close
        (1 / 12 + 0.0 + 0.0 + 0.0) / 4,  # A, B, C suspended, D excluded
        (1 / 13 - 0.5) / 2,  # A, B, which leaves at the close; D is invalid that day
        (1 / 14 + 0.1) / 2,  # A, D; C trades again, but was not held
        (1 / 15 + 0.0 + 0.0) / 3,
        (1 / 16 + 0.0 + 0.0) / 3,
    ]
    np.testing.assert_allclose(series, expected, atol=1e-6)
    assert series.index.equals(DAYS.astype(series.index.dtype))


def test_a_universe_without_members_or_prices_is_refused(tmp_path):
    closes = pd.DataFrame({"A": np.linspace(10, 11, 8)}, index=DAYS)
    empty = spells()
    provider = from_closes(tmp_path / "p", closes, empty=empty, priceless=spells(("X", 0, 7)))
    with pytest.raises(ProviderError, match=r"'empty' .* no members; it has: all, empty, pri"):
        load_market(provider, "empty")
    with pytest.raises(ProviderError, match=r"no member of 'priceless' .* has a close"):
        load_market(provider, "priceless")
    with pytest.raises(ProviderError, match=r"no universe 'csi300' .*; it has: all, empty"):
        load_market(provider, "csi300")


# In the panel ----------------------------------------------------------------------------------

LATE, JUMP = "SIM0003", "SIM0005"
LISTED, WRONG = 120, 250  # positions on the calendar: 2015-06-18 and 2015-12-17, in the test


@pytest.fixture(scope="module")
def odd(market, tmp_path_factory):
    """The market with a name listed late, and one quadrupled by a wrong factor in the test."""

    def change(name, frame):
        if name == LATE:
            frame.iloc[:LISTED] = np.nan
        if name == JUMP:
            frame.loc[frame.index[WRONG:], ["open", "high", "low", "close"]] *= 4
            frame.loc[frame.index[WRONG], "change"] = 3.0
        return frame

    rest = market.spells("sim")
    rest = rest[~rest["instrument"].isin([LATE, JUMP])]
    always = market.spells("all")
    members = pd.concat([rest, always[always["instrument"].isin([LATE, JUMP])]])
    return rewrite(market, tmp_path_factory.mktemp("odd") / "market", change, {"sim": members})


@pytest.fixture(scope="module")
def listed(odd, tmp_path_factory):
    """A file that excludes the wrong move, and two more that are no concern of this study."""
    file = tmp_path_factory.mktemp("list") / "exclusions.csv"
    moves = [
        Exclusion(JUMP, odd.calendar[WRONG], "move-large"),
        Exclusion(JUMP, odd.calendar[2], "before the study"),
        Exclusion("SH600000", odd.calendar[WRONG], "another market"),
    ]
    write_exclusions(file, Exclusions(tuple(moves)))
    return file


@pytest.fixture(scope="module")
def studies(odd, listed, tmp_path_factory):
    """The dataset that believes everything, and the one with exclusions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPQP_CACHE", str(tmp_path_factory.mktemp("cache")))
        pair = [build(odd.root, handler=FEW, exclusions=e) for e in (None, str(listed))]
        for data in pair:
            data.panel()
        return pair


def names_of(data, date) -> set[str]:
    """Names in the problem of a day."""
    panel = data.panel()
    day = int(np.searchsorted(panel.dates, np.datetime64(date, "D")))
    assert panel.dates[day] == np.datetime64(date, "D")
    rows = panel.rows(torch.tensor([day]))
    return set(panel.names[panel.name_index[rows].numpy()])


def test_the_panel_holds_exactly_the_names_that_can_be_held(odd, studies):
    """Members of the day that trade and have 30 returns within 60 days; the others are counted."""
    data = studies[1]
    close = odd.frame("close", data.market_data.names)
    member = odd.membership("sim", odd.calendar, close.columns)
    known = close.notna() & (close.notna().cumsum() > 1)
    known.loc[odd.calendar[WRONG], JUMP] = False
    known.loc[odd.calendar[2], JUMP] = False
    enough = known.rolling(60, min_periods=1).sum() >= 30
    tradable = member & close.notna()
    tradable.loc[odd.calendar[WRONG], JUMP] = False
    span = slice(data.span_names["train"][0], data.span_names["test"][1])
    expected = (tradable & enough).loc[span]
    for date, row in expected.iterrows():
        assert names_of(data, date) == set(row.index[row])
    suspended = (member & close.isna()).loc[span]
    assert suspended.to_numpy().any()
    assert data.unmodelled_rows == (tradable & ~enough).loc[span].sum().sum() == 30


def test_a_name_enters_when_it_has_history_enough(odd, studies):
    # The first close has no return, so 30 returns are known on the 31st day.
    assert LATE not in names_of(studies[0], odd.calendar[LISTED + 29])
    assert LATE in names_of(studies[0], odd.calendar[LISTED + 30])


def test_risk_is_that_of_the_rolling_model_on_the_days_returns(odd, studies):
    data = studies[1]
    panel = data.panel()
    at = WRONG + 5
    risk = rolling_risk(
        data.market_data.returns, data.market_data.member, [at], RiskConfig(**SETTINGS["risk"])
    )
    day = int(np.searchsorted(panel.dates, np.datetime64(odd.calendar[at], "D")))
    rows = panel.rows(torch.tensor([day])).numpy()
    place = {int(name): row for row, name in enumerate(risk.names)}
    mine = [place[int(name)] for name in panel.name_index[rows]]
    np.testing.assert_array_equal(panel.loadings[rows], risk.loadings[mine])
    np.testing.assert_array_equal(panel.specific[rows], risk.specific[mine])


def test_an_excluded_move_is_in_no_row_label_or_risk(odd, studies):
    kept, excluded = studies
    date, spanned = odd.calendar[WRONG], odd.calendar[WRONG - 2]
    assert JUMP in names_of(kept, date)
    assert JUMP not in names_of(excluded, date)
    assert JUMP in names_of(excluded, odd.calendar[WRONG + 1])

    labels = [
        pd.Series(data.handler.arrays()[3], index=data.handler.arrays()[0]) for data in studies
    ]
    assert labels[0][spanned, JUMP] > 2.5 and np.isnan(labels[1][spanned, JUMP])
    rest = labels[0].drop([(spanned, JUMP), (date, JUMP)])
    pd.testing.assert_series_equal(rest, labels[1].drop((spanned, JUMP)), check_exact=True)

    position = kept.market_data.names.get_loc(JUMP)
    returns = [data.market_data.returns for data in studies]
    assert returns[0][WRONG, position] > 2.5 and np.isnan(returns[1][WRONG, position])
    after = kept.days("test")[-40:]
    variance = []
    for data in studies:
        panel = data.panel()
        rows = panel.rows(after)
        mine = rows[panel.name_index[rows] == position]
        variance.append(
            float((panel.loadings[mine].square().sum(-1) + panel.specific[mine]).mean())
        )
    assert variance[1] < variance[0]


def test_exclusions_are_counted_where_they_matter(odd, studies):
    assert build(odd.root, handler=FEW, exclusions="none").excluded_name_days == 0
    assert [data.excluded_name_days for data in studies] == [0, 1]


def test_the_data_check_can_supply_the_exclusions(odd, capsys):
    data = build(odd.root, handler=FEW, exclusions="check")
    assert "1 moves excluded" in capsys.readouterr().out
    assert data.excluded_name_days == 1
    index = data.handler.arrays()[0]
    assert (odd.calendar[WRONG - 1], JUMP) in index
    assert (odd.calendar[WRONG], JUMP) not in index


def test_an_absent_list_of_exclusions_is_an_error(market, tmp_path):
    with pytest.raises(ConfigError, match=r"exclusions: no file .*absent\.csv"):
        build(market.root, exclusions=str(tmp_path / "absent.csv"))


def test_codes_of_no_chinese_board_are_noted_where_boards_set_the_limits(tmp_path, capsys):
    names = ["SH600000", "600000.SH", "AAPL"]
    write_universe(
        tmp_path, "mine", pd.DataFrame({"instrument": names, "start": DAYS[0], "end": DAYS[-1]})
    )
    write_universe(
        tmp_path,
        "board",
        pd.DataFrame({"instrument": names[:1], "start": DAYS[0], "end": DAYS[-1]}),
    )
    check_region(Provider(tmp_path), "mine", "cn", None)
    said = capsys.readouterr().out
    assert "2 of the 3 codes of 'mine'" in said and "600000.SH, AAPL" in said
    assert "no price limit" in said and "region: us" in said
    check_region(Provider(tmp_path), "board", "cn", None)
    check_region(Provider(tmp_path), "mine", "us", None)
    assert not capsys.readouterr().out
