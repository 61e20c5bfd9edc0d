"""Spreads of a day by hand: what is averaged, and what is rounding noise."""

from __future__ import annotations

import math

import pytest
import torch

from bpqp_portfolio.portfolio.scores import mean_spread, standardised


def test_the_mean_of_the_days_spreads():
    """2 ± 1 has a deviation of 1. (0, 0, 6) has the variance (4 + 4 + 16)/3. One name: none."""
    values = torch.tensor([[1.0, 9.0, 3.0], [0.0, 0.0, 6.0], [5.0, 1.0, 2.0]]).double()
    mask = torch.tensor([[True, False, True], [True, True, True], [True, False, False]])
    assert float(mean_spread(values, mask)) == pytest.approx((1 + math.sqrt(8)) / 3)
    assert float(mean_spread(values[:2], mask[:2])) == pytest.approx((1 + math.sqrt(8)) / 2)


def test_a_day_without_names_has_no_spread():
    values = torch.tensor([[math.nan, 1.0], [1.0, 3.0]]).double()
    mask = torch.tensor([[False, False], [True, True]])
    assert float(mean_spread(values, mask)) == 0.5
    assert standardised(values, mask).tolist() == [[0.0, 0.0], [-1.0, 1.0]]


@pytest.mark.parametrize("level", [0.1, 1e-6, 123456.789, -1e9 / 7])
@pytest.mark.parametrize("names", range(2, 12))
def test_names_that_differ_by_rounding_alone_are_equal(level, names):
    mask = torch.ones(1, names, dtype=torch.bool)
    same = torch.full((1, names), level, dtype=torch.float64)
    assert (standardised(same, mask) == 0).all()
    # One unit in the last place.
    near = same.clone()
    near[0, 0] = torch.nextafter(near[0, 0], near.new_tensor(math.inf))
    assert (standardised(near, mask) == 0).all()


@pytest.mark.parametrize("level", [1e-9, 1.0, 1e9])
def test_a_small_spread_of_a_level_is_one(level):
    """A ten-thousand-millionth of it; its own rounding is a millionth of that."""
    scores = level * torch.tensor([[1.0 + 1e-10, 1.0 - 1e-10, 0.0]], dtype=torch.float64)
    found = standardised(scores, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, 0.0]]).double(), rtol=0, atol=1e-5)
