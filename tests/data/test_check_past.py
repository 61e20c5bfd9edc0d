"""A verdict at day t rests on data up to t: whatever follows in any field, it stays as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.data.provider.cleaning import UnitEvidence, clean
from bpqp_portfolio.data.provider.provider import write_provider
from bpqp_portfolio.data.quality.check import check_provider
from bpqp_portfolio.data.quality.moves import DISPUTED, MoveJudge

DAYS = pd.bdate_range("2018-01-01", periods=500)
NAMES = [f"SH6000{i:02d}" for i in range(8)]
FIELDS = ("open", "high", "low", "close", "volume", "change", "factor")
CUT = 250


def market(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Bars of eight names, with a few invalid moves before ``CUT``."""
    rng = np.random.default_rng(seed)
    out = {}
    for i, name in enumerate(NAMES):
        moves = 0.02 * rng.uniform(-1, 1, len(DAYS))
        told = moves.copy()
        if i < 4:
            moves[100 + 10 * i] = -0.06  # and $change does not know of it
        if i == 5:
            moves[200] = told[200] = 0.15
        close = 20 * np.cumprod(1 + moves)
        told[0] = np.nan
        out[name] = {
            "open": close, "high": close * 1.01, "low": close * 0.99, "close": close,
            "volume": np.full(len(DAYS), 1e6), "change": told, "factor": np.ones(len(DAYS)),
        }  # fmt: skip
    return out


def verdicts(series: dict[str, dict[str, np.ndarray]], last: int) -> list:
    judge = MoveJudge(DAYS)
    for name, fields in series.items():
        judge.judge(name, fields)
    return [move for move in judge.moves if move.date <= DAYS[last]]


def later(series: dict, cut: int, field: str, how: str, seed: int) -> dict:
    """A copy in which ``field`` is another after day ``cut``."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, fields in series.items():
        values = fields[field].copy()
        rest = values[cut + 1 :]
        if how == "scaled":
            rest *= 100.0
        elif how == "noise":
            rest *= np.exp(rng.standard_normal(len(rest)))
        elif how == "wrong on some days":
            rest[rng.uniform(size=len(rest)) < 0.02] = 0.5
        else:
            rest[:] = np.nan
        out[name] = {**fields, field: values}
    return out


def test_the_moves_before_are_found():
    found = verdicts(market(), CUT)
    assert [m.verdict for m in found] == [DISPUTED] * 4 + ["move-impossible"]


def test_a_change_that_is_wrong_later_does_not_clear_the_past():
    """On 2 % of later days: more than the share at which $change is no longer trusted."""
    before = market()
    after = later(before, CUT, "change", "wrong on some days", 1)
    assert verdicts(after, CUT) == verdicts(before, CUT)
    judge = MoveJudge(DAYS)
    for name, fields in after.items():
        judge.judge(name, fields)
    assert not judge.trusted()[-1] and judge.share_disputed() > 0.005
    last = [move.date for move in judge.moves if move.verdict == DISPUTED][-1]
    assert last < DAYS[-20]


def test_a_move_that_nobody_disputes_any_more_is_still_impossible():
    series = market()
    for name in NAMES:
        series[name]["change"][300:] = 0.5
    series[NAMES[0]]["close"] = series[NAMES[0]]["close"].copy()
    series[NAMES[0]]["close"][480:] *= 1.3
    found = {(m.instrument, m.date): m.verdict for m in verdicts(series, len(DAYS) - 1)}
    assert found[NAMES[0], DAYS[480]] == "move-impossible"


def test_percent_later_is_not_percent_before():
    before = market()
    after = later(before, 300, "change", "scaled", 0)
    after[NAMES[0]]["change"][:301] = before[NAMES[0]]["change"][:301]
    assert verdicts(after, 300) == verdicts(before, 300)


@settings(max_examples=40, deadline=None)
@given(
    field=st.sampled_from(FIELDS),
    how=st.sampled_from(["scaled", "noise", "wrong on some days", "gone"]),
    cut=st.integers(150, 480),
    seed=st.integers(0, 1000),
)
def test_whatever_follows_a_verdict_stays(field, how, cut, seed):
    before = market()
    assert verdicts(later(before, cut, field, how, seed), cut) == verdicts(before, cut)


@pytest.mark.parametrize("field", FIELDS)
def test_the_exclusions_of_a_provider_stay(tmp_path, field):
    spells = pd.DataFrame({"instrument": NAMES, "start": DAYS[0], "end": DAYS[-1]})
    lists = []
    for which in ("before", "after"):
        series = market() if which == "before" else later(market(), CUT, field, "noise", 2)
        frames = {name: pd.DataFrame(fields, DAYS) for name, fields in series.items()}
        (tmp_path / which).mkdir()
        provider = write_provider(tmp_path / which, DAYS, frames, {"all": spells})
        lists.append([e for e in check_provider(provider.root).exclusions if e.date <= DAYS[CUT]])
    assert lists[0] == lists[1] and len(lists[0]) == 5


# Units of a source ---------------------------------------------------------------------------


def cleaned(series: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    evidence = UnitEvidence()
    for fields in series.values():
        evidence.add(fields)
    units = evidence.units()
    return {name: clean(fields, units, Counter()) for name, fields in series.items()}


@settings(max_examples=30, deadline=None)
@given(
    field=st.sampled_from([*FIELDS, "vwap", "amount"]),
    how=st.sampled_from(["scaled", "noise", "wrong on some days", "gone"]),
    percent=st.booleans(),
    cut=st.integers(20, 480),
    seed=st.integers(0, 1000),
)
def test_whatever_follows_an_import_reads_the_past_alike(field, how, percent, cut, seed):
    before = market()
    for fields in before.values():
        fields["vwap"] = fields["close"] * 1.001
        fields["amount"] = fields["vwap"] * fields["volume"] / (10 if percent else 1)
        if percent:
            fields["change"] = 100 * fields["change"]
    ours, theirs = cleaned(before), cleaned(later(before, cut, field, how, seed))
    for name in NAMES:
        for item, values in ours[name].items():
            np.testing.assert_array_equal(values[: cut + 1], theirs[name][item][: cut + 1], item)


def test_a_volume_that_begins_later_does_not_suspend_the_days_before():
    close = np.full(6, 10.0)
    volume = np.array([0.0, 0, 0, 5, 0, 5])
    for known in range(1, 7):
        out = cleaned({"A": {"close": close[:known], "volume": volume[:known]}})["A"]
        seen = np.isfinite(out["close"])
        np.testing.assert_array_equal(seen, [True, True, True, True, False, True][:known])
