"""The account between two trades, by hand: what is held has grown by its returns."""

from __future__ import annotations

import pytest
import torch
from panels import days_by_hand, paying
from torch import Tensor

from bpqp_portfolio.portfolio.drift import held, held_after
from bpqp_portfolio.portfolio.problem import PortfolioProblem


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, vector(*expected), rtol=0, atol=1e-9)


def test_weights_grow_by_their_returns_and_are_matched_by_name():
    """Of 1.25 in all, .75 are in name 4, .2 in name 0 and .3 in name 2."""
    batch = days_by_hand(
        [[9.0] * 4, [0.5, -0.2, 0.2, 0.0], [9.0] * 4, [9.0] * 4],
        names=[[3, 5, -1, -1], [4, 0, 2, -1], [2, 4, 1, 0], [5, 3, 4, -1]],
        days=[6, 7, 8, 9],
    )
    before = held_after(vector(0.5, 0.25, 0.25, 0.0), batch, 1)
    close(before, 0.3 / 1.25, 0.75 / 1.25, 0.0, 0.2 / 1.25)


def test_what_is_held_of_a_name_that_left_is_missing_from_the_sum():
    batch = days_by_hand([[0.5, -0.2, 0.2], [0.0] * 3], names=[[0, 1, 2], [1, 2, -1]])
    before = held_after(vector(0.5, 0.25, 0.25), batch, 0)
    close(before, 0.2 / 1.25, 0.3 / 1.25, 0.0)


def test_every_day_is_from_the_day_before_unless_that_is_unknown():
    batch = days_by_hand([[0.5, 0.0], [-0.5, 0.0], [9.0] * 2, [9.0] * 2], days=[3, 4, 5, 7])
    w = torch.stack([vector(0.5, 0.5), vector(0.8, 0.2), vector(0.5, 0.5), vector(0.5, 0.5)])
    before = held(w, batch)
    assert bool(before[[0, 3]].isnan().all())
    close(before[1], 0.6, 0.4)
    close(before[2], 0.4 / 0.6, 0.2 / 0.6)


def problem(cost: float) -> PortfolioProblem:
    return PortfolioProblem({"risk_aversion": 20.0, "max_weight": 1.0, **paying(cost)})


@pytest.mark.parametrize("sweeps", [None, 1])
@pytest.mark.parametrize(
    ("cost", "expected"), [(0.1, (0.6, 0.4)), (0.05, (0.55, 0.45)), (0.025, (0.525, 0.475))]
)
def test_a_day_pays_for_what_it_moves_away_from_the_grown_weights(cost, expected, sweeps):
    """Equal weights (.5, .5) grow by +50 % and 0 to (.6, .4).

    With γd = 1 and no expected return, moving x from the first to the second changes
    ½(.6 − x)² + ½(.4 + x)² by 2x − .2 a unit, against 2c to pay: x = .1 − c. Of an account
    without drift nothing would be moved.
    """
    batch = days_by_hand([[0.5, 0.0], [0.0, 0.0]])
    w = problem(cost).rollout(torch.zeros(2, 2, dtype=torch.float64), batch, sweeps)
    close(w[0], 0.5, 0.5)
    torch.testing.assert_close(w[1], vector(*expected), rtol=0, atol=1e-7)
