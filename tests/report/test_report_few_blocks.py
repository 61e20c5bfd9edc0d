"""The bootstrap's interval of few blocks and seeds, where it has a closed form."""

from __future__ import annotations

import math
from functools import partial

import pandas as pd
import pytest

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.markets.rules import QLIB_DAYS_PER_YEAR
from bpqp_portfolio.report import statistics

paired_difference = partial(statistics.paired_difference, days_per_year=QLIB_DAYS_PER_YEAR)

DRAWS = 1_000_000


def frame(values):
    return pd.DataFrame(values, index=pd.bdate_range("2019-01-01", periods=len(values)))


def margins(first, second, **options):
    """Distances of the interval's ends from the estimate, in units of the estimate."""
    found = paired_difference(frame(first), frame(second), draws=DRAWS, **options)
    return (found.annual - found.low) / found.annual, (found.high - found.annual) / found.annual


# A sample of two values m ± a, drawn twice, has the error −a, 0, a with chances ¼, ½, ¼. Enlarged
# by √2 and divided by √χ²₁ = |N(0, 1)|, it passes e with the chance ¼ P(|N| < √2 a/e). Of the level
# 90 % that is 5 %: P(|N| < c) = .2 where c = .253347.
M, A = 0.001, 0.003
EXACT = math.sqrt(2) * A / 0.253347 / M


def test_two_blocks_of_days():
    got = margins([[M + A], [M - A]], [[0.0], [0.0]], block=1, level=0.9)
    assert got == pytest.approx((EXACT, EXACT), rel=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_two_seeds_of_one_method(sign):
    """Whose days do not differ; of the first method, or of the second."""
    seeds, none = [[M + A, M - A]] * 4, [[0.0]] * 4
    pair = (seeds, none) if sign > 0 else (none, seeds)
    assert margins(*pair, block=1, level=0.9) == pytest.approx(
        (sign * EXACT, sign * EXACT), rel=0.02
    )


def test_blocks_are_drawn_whole_and_round_the_end():
    """Days (3, −3, −3, 3)a in blocks of two sum to 0, −6a, 0 or 6a: a draw of two is −3a, 0 or 3a
    on average where both are equal, with the chance 1/16 each, or ±1.5a with ¼ each.

    At the level 90 %, with the enlargement √2 and x = √2 a/e: P(|N| < 3x)/16 + P(|N| < 1.5x)/4 =
    .05, which is so at x = .112459.
    """
    days = [[M + 3 * A], [M - 3 * A], [M - 3 * A], [M + 3 * A]]
    exact = math.sqrt(2) * A / 0.112459 / M
    got = margins(days, [[0.0]] * 4, block=2, level=0.9)
    assert got == pytest.approx((exact, exact), rel=0.02)


def test_a_last_block_is_cut_to_the_days_that_are_left():
    """Three days in blocks of two: each sample has three days, so a constant has no error."""
    found = paired_difference(frame([[M]] * 3), frame([[0.0]] * 3), block=2, draws=500)
    assert (found.low, found.high) == pytest.approx((found.annual, found.annual))


@pytest.mark.parametrize("of", ["days", "seeds"])
def test_three_values(of):
    """Of m − a, m, m + a three are drawn: their sum is off by ka, k = 1, 2, 3, with the chances 6,
    3 and 1 of 27. Enlarged by √(3/2) and divided by √(χ²₂/2), whose square is exponential, it
    passes e with the chance 1 − exp(−k²x²), x = √(3/2) a/(3e): 5 % in all where x = 0.239217.
    """
    exact = math.sqrt(1.5) * A / 3 / 0.239217 / M
    values = [M - A, M, M + A]
    first = [[v] for v in values] if of == "days" else [values] * 6
    got = margins(first, [[0.0]] * len(first), block=1, level=0.9)
    assert got == pytest.approx((exact, exact), rel=0.02)


def test_a_skewed_interval_turns_with_the_order():
    """One seed of six is far above the others: a draw is too high by more than it is too low."""
    seeds, none = [[M] * 5 + [M + 6 * A]] * 4, [[0.0]] * 4
    low, high = margins(seeds, none, block=1, level=0.9)
    assert abs(low) > 1.2 * abs(high)
    turned = margins(none, seeds, block=1, level=0.9)
    assert turned == pytest.approx((-high, -low), rel=0.03)


@pytest.mark.parametrize("setting", [{"block": 0}, {"block": 1.5}, {"draws": 99}, {"level": 0.0}])
def test_settings_are_checked(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        paired_difference(frame([[M]] * 4), frame([[0.0]] * 4), **{"block": 1, **setting})
