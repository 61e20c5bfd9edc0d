"""The first sentence: what a run earned over its benchmark, and whether that is chance."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.report.headline import excesses, headline, interval, percent
from bpqp_portfolio.report.metrics import FEWEST, summarise


@pytest.fixture
def earning(changed):
    """A run of so many days whose net return is ``gain`` a day over the index, give or take."""

    def make(gain: float, days: int = 500, noise: float = 0.002, cost: float = 0.0002, **columns):
        index = pd.bdate_range("2020-01-01", periods=days)
        random = np.random.default_rng(0)
        bench = 0.01 * random.standard_normal(days)
        own = noise * random.standard_normal(days)
        own += gain - own.mean()
        daily = {"return": bench + own + cost, "cost": cost, "turnover": 0.2, "bench": bench}
        return changed(
            daily=pd.DataFrame({**daily, **columns}, index=index),
            settings={"benchmark": "CODE", "days_per_year": 250},
        )

    return make


def plain(results) -> list[str]:
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in headline(results)]


def test_a_gain_above_noise_is_told_with_its_interval(earning):
    (said,) = plain(earning(0.0008))
    found = re.fullmatch(
        r"Net of cost 20\.0 % a year above CODE, 95 % from \+([\d.]+) to \+([\d.]+): "
        r"distinguishable from chance\.",
        said,
    )
    assert found
    low, high = map(float, found.groups())
    # 1.96 standard errors of 500 days of noise 0.002, and Student's t of 25 blocks.
    assert (high - low) / 2 == pytest.approx(100 * 250 * 0.002 / np.sqrt(500) * 2.06, rel=0.3)
    assert plain(earning(-0.0008))[0].startswith(
        "Net of cost 20.0 % a year below CODE, 95 % from −"
    )


def test_a_gain_within_noise_is_not_distinguishable(earning):
    (said,) = plain(earning(0.00005))
    assert said.startswith("Net of cost 1.2 % a year above CODE, 95 % from −")
    assert said.endswith(": not distinguishable from chance.")


def test_cost_that_turns_the_sign_is_said(earning):
    first, second = plain(earning(-0.0002, cost=0.0004))
    assert first.startswith("Net of cost 5.0 % a year below CODE")
    assert second == (
        "Before cost it was a gain of 5.0 % a year over CODE: trading cost of 10.0 % a year turned "
        "the sign."
    )


def test_the_figures_are_those_of_the_table(run):
    index, equal = excesses(run)
    summary = summarise(run)
    for section, excess in (("excess_index", index), ("excess_equal", equal)):
        row = summary.loc[section, "annual_return"]
        assert excess.difference.annual == pytest.approx(row["with_cost"])
        assert excess.gross == pytest.approx(row["without_cost"])
    assert [e.benchmark for e in (index, equal)] == ["SH000300", "equal weights"]
    assert headline(run)[-1].startswith(
        f"Over equal weights: {percent(equal.difference.annual, sign=True)}"
    )
    assert interval(equal.difference) in headline(run)[-1]


def test_without_an_index_it_is_over_equal_weights_and_without_both_its_own(run, changed):
    said, *_ = plain(changed(daily=run.daily.drop(columns="bench")))
    assert " a year above equal weights, " in said or " a year below equal weights, " in said
    said, *_ = plain(changed(daily=run.daily[["return", "turnover"]]))
    assert re.match(r"Before cost −?[\d.]+ % a year, 95 % from ", said)


def test_a_short_test_has_the_return_of_its_days_alone(earning):
    bench = np.full(FEWEST - 1, 0.01)
    still = earning(0.0, days=FEWEST - 1, noise=0.0, cost=0.0, bench=bench, bench_equal=-bench)
    still.daily["return"] = 0.002
    assert plain(still) == [
        "Net of cost +3.9 % in 19 trading days; CODE +20.8 %, equal weights −17.4 %."
    ]
    assert "a year" in plain(earning(0.001, days=FEWEST))[0]


def test_an_account_that_never_traded_has_no_result(run, changed):
    still = changed(daily=run.daily.assign(turnover=0.0, cost=0.0, **{"return": 0.0}))
    assert headline(still) == [
        "The account never traded: it stayed in cash, so there is no result of a portfolio."
    ]
    assert excesses(still) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (-1e-6, "0.0"), (0.00052, "0.05"), (-0.01249, "−1.2")]
)
def test_percent(value, text):
    assert percent(value) == text
