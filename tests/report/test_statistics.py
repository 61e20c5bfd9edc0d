"""The paired bootstrap: closed forms, invariances, and its nominal level on simulated returns."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.markets.rules import QLIB_DAYS_PER_YEAR as QLIB
from bpqp_portfolio.report import statistics
from bpqp_portfolio.report.statistics import holm

paired_difference = partial(statistics.paired_difference, days_per_year=QLIB)


def frame(values):
    index = pd.bdate_range("2019-01-01", periods=len(values), name="datetime")
    return pd.DataFrame(values, index=index)


def simulated(random, days, seeds, by_day=0.01, by_seed=0.0, noise=0.004, momentum=0.3):
    """Returns of a common autocorrelated market, a skill for each seed and noise."""
    shocks = by_day * random.standard_normal(days)
    common = np.empty(days)
    common[0] = shocks[0]
    for t in range(1, days):
        common[t] = momentum * common[t - 1] + shocks[t]
    skill = by_seed * random.standard_normal(seeds)
    return frame(common[:, None] + skill + noise * random.standard_normal((days, seeds)))


def test_a_method_against_itself_has_no_difference():
    returns = simulated(np.random.default_rng(0), 300, 3)
    result = paired_difference(returns, returns.copy(), draws=500)
    assert result.annual == 0 and result.p_value == 1
    assert result.low < 0 < result.high  # the spread over seeds remains


def test_a_constant_gain_is_found_exactly():
    returns = simulated(np.random.default_rng(1), 300, 1)
    result = paired_difference(returns + 1e-4, returns, draws=500)
    assert result.annual == pytest.approx(1e-4 * QLIB)
    assert result.low == pytest.approx(result.annual) == pytest.approx(result.high)
    assert result.p_value == pytest.approx(1 / 501)


def test_pairing_removes_what_the_methods_share():
    random = np.random.default_rng(2)
    first = simulated(random, 500, 1, noise=0.001)
    second = first + 0.001 * random.standard_normal((500, 1))
    shuffled = second.sample(frac=1, random_state=0).set_axis(second.index)
    paired = paired_difference(first, second, draws=500)
    unpaired = paired_difference(first, shuffled, draws=500)
    assert paired.high - paired.low < 0.2 * (unpaired.high - unpaired.low)


def test_the_same_seed_gives_the_same_figures_and_the_sign_turns_with_the_order():
    random = np.random.default_rng(3)
    first, second = simulated(random, 200, 1), simulated(random, 200, 1)
    result = paired_difference(first, second, draws=500)
    assert result == paired_difference(first, second, draws=500)
    turned = paired_difference(second, first, draws=500)
    assert turned.annual == pytest.approx(-result.annual)
    assert turned.p_value == pytest.approx(result.p_value)
    assert (turned.low, turned.high) == pytest.approx((-result.high, -result.low))


@pytest.mark.parametrize(
    ("seeds", "by_seed", "momentum"),
    [
        ((1, 1), 0.0, 0.3),
        ((5, 5), 0.0, 0.3),
        ((5, 5), 0.0005, 0.3),
        ((5, 5), 0.002, 0.3),  # nearly all of the spread is that of the seeds
        ((3, 3), 0.002, 0.3),
        ((5, 3), 0.0005, 0.6),
    ],
)
def test_the_interval_covers_its_nominal_level(seeds, by_seed, momentum):
    # Studies in which there is no difference: the share of 95 % intervals that hold zero. Days are
    # autocorrelated and shared in part by the two methods, seeds have a skill of their own.
    random, studies = np.random.default_rng(4), 500
    covered = rejected = 0
    for study in range(studies):
        market = simulated(random, 480, 1, noise=0, momentum=momentum).to_numpy()
        pair = []
        for count in seeds:
            own = simulated(random, 480, count, 0.004, by_seed, momentum=momentum)
            pair.append(frame(0.5 * market + own.to_numpy()))
        result = paired_difference(*pair, draws=400, seed=study)
        covered += result.low <= 0 <= result.high
        rejected += result.p_value < 0.05
    # Three standard errors of a binomial share. The noise of single runs counts twice, among days
    # and among seeds: without a skill of the seeds the interval is up to two points too wide.
    within = 3 * np.sqrt(0.95 * 0.05 / studies)
    wide = 0.02 if seeds[0] > 1 and not by_seed else 0.0
    assert 0.95 - within <= covered / studies <= 0.95 + within + wide
    assert 0.05 - within - wide <= rejected / studies <= 0.05 + within
    assert rejected > 0


@pytest.mark.parametrize("level", [0.5, 0.8])
def test_other_levels_are_covered_too_and_a_true_gain_is_inside(level):
    random, studies, gain = np.random.default_rng(7), 500, 3e-4
    covered = 0
    for study in range(studies):
        first = simulated(random, 480, 3, 0.004, 0.001) + gain
        second = simulated(random, 480, 3, 0.004, 0.001)
        result = paired_difference(first, second, draws=400, seed=study, level=level)
        covered += result.low <= gain * QLIB <= result.high
    within = 3 * np.sqrt(level * (1 - level) / studies)
    assert covered / studies == pytest.approx(level, abs=within)


def test_more_spread_over_seeds_widens_the_interval():
    random = np.random.default_rng(5)
    second = simulated(random, 300, 4)
    narrow = second + 2e-4
    wide = narrow + 1e-3 * np.array([-1.5, -0.5, 0.5, 1.5])
    width = [
        result.high - result.low
        for result in (paired_difference(x, second, draws=500) for x in (narrow, wide))
    ]
    assert width[1] > 1.5 * width[0]


def test_holm():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.03, "c": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"] and holm({}) == {}


def test_what_cannot_be_compared_is_refused():
    returns = simulated(np.random.default_rng(6), 60, 2)
    with pytest.raises(DataError, match=r"same days.*2019-01-01"):
        paired_difference(returns, returns.iloc[1:])
    with pytest.raises(DataError, match="same order"):
        paired_difference(returns, returns.iloc[::-1])
    broken = returns.copy()
    broken.iloc[3, 0] = np.nan
    with pytest.raises(DataError, match=r"2019-01-04.*missing"):
        paired_difference(returns, broken)
    with pytest.raises(DataError, match="60 days are fewer than two blocks of 100"):
        paired_difference(returns, returns, block=100)
    with pytest.raises(ConfigError, match="level"):
        paired_difference(returns, returns, level=1.5)


@pytest.mark.parametrize("days", [25, 240])
def test_the_interval_of_one_run_covers_its_true_gain(days):
    random, studies, gain = np.random.default_rng(8), 250, 5e-4
    covered = 0
    for _ in range(studies):
        returns = simulated(random, days, 1, momentum=0.1)[0] + gain
        result = statistics.mean_difference(returns, days_per_year=QLIB)
        covered += result.low <= gain * QLIB <= result.high
    within = 3 * np.sqrt(0.95 * 0.05 / studies)
    assert 0.95 - within <= covered / studies <= 0.95 + within + 0.01


def test_the_sign_of_a_difference_is_zero_where_its_interval_holds_zero():
    returns = simulated(np.random.default_rng(9), 300, 1)[0]
    centred = returns - returns.mean()
    signs = [
        statistics.mean_difference(centred + gain, days_per_year=QLIB).sign
        for gain in (-0.01, 0.0, 0.01)
    ]
    assert signs == [-1, 0, 1]
    missing = centred.where(centred.index.day > 3)
    assert statistics.mean_difference(missing, days_per_year=QLIB).days == missing.count()
