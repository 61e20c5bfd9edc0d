"""Line searches along a concave function: closed forms, kinks, lines without an end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.solvers.common.line_search import Bracket, secant_search

BOTH = pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


@BOTH
def test_newton_is_exact_on_a_quadratic_and_refuses_what_leaves_the_bracket(make):
    # Slopes 3 − 2t and 1 − t/10, the first with its root in (0, 2), the second beyond it.
    t, slope = make(np.array([2.0, 2.0])), make(np.array([-1.0, -0.1]))
    bracket = Bracket.of(make(np.array([3.0, 1.0])))
    bracket.narrow(t, slope)
    new, inside = bracket.newton(t, slope, make(np.array([2.0, 0.0])))
    assert new[0] == 1.5 and inside.tolist() == [True, False]
    assert bracket.middle().tolist() == [1.0, 1.0]
    assert bracket.take([1]).at_high.tolist() == [-0.1]


@BOTH
def test_the_secant_is_exact_on_a_line_and_grows_where_there_is_no_end(make):
    bracket = Bracket.of(make(np.array([3.0, 3.0])))
    t = make(np.ones(2))
    bracket.narrow(t, make(np.array([-1.0, 2.0])))
    assert bracket.secant(t).tolist() == [0.75, 4.0]
    assert bracket.bisect(t).tolist() == [0.5, 4.0]


@BOTH
def test_a_search_ends_where_the_slope_has_fallen_enough(make):
    kinks = make(np.array([0.3, 0.9, 50.0, 7.0]))
    calls = []

    def slope_at(t):
        calls.append(t)
        steep = (t - kinks) * (t > kinks)
        return 1.0 - 0.01 * t - 40.0 * steep

    first, one = make(np.ones(4)), make(np.ones(4))
    goal, open_ = make(np.full(4, 0.05)), make(np.array([True, True, True, False]))
    t = secant_search(slope_at, first, slope_at(one), goal, open_, steps=60)
    assert (abs(slope_at(t))[:3] <= 0.05).all() and t[3] == 1.0
    assert (t[:3] > kinks[:3]).all() and len(calls) <= 40


@BOTH
def test_a_search_that_is_cut_short_ends_on_the_rising_side(make):
    def slope_at(t):
        return 1.0 - 9.0 * (t > 0.7)

    one = make(np.ones(1))
    t = secant_search(slope_at, one, slope_at(one), make(np.array([1e-3])), one > 0, steps=6)
    assert 0.0 < t[0] <= 0.7 and slope_at(t)[0] == 1.0
