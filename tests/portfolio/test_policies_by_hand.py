"""Decisions by hand: four names of one variance, alone or with one factor that all share."""

from __future__ import annotations

import math

import pytest
import torch
from panels import days_by_hand

from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.portfolio.policies import build_policy

# γ times the variance is 1: from .25 each the free optimum is .25 + μ.
MU = (0.15, 0.05, -0.05, -0.15)
# γβ²·4 = 1: the factor doubles the bound L on the curvature, and halves a step of length 1/L. All
# weights sum to 1, so that its slope is the same for all names and the optimum is where it was.
SHARED = math.sqrt(0.0125)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def day(shared=0.0, specific=(0.05,) * 4):
    return days_by_hand([[0.0] * 4], shared=shared, specific=specific)


def decide(name, scores, batch, *, scale=0.1, cap=1.0, **options):
    settings = {"risk_aversion": 20.0, "max_weight": cap, "decision": {"name": name, **options}}
    problem = PortfolioProblem(settings, score_scale=scale)
    return problem.solve(row(*scores), batch)


def scores(mu=MU, scale=0.1):
    return tuple(m / scale for m in mu)


def close(found, *expected, atol=1e-9):
    torch.testing.assert_close(found, row(*expected), rtol=0, atol=atol)


@pytest.mark.parametrize("shared", [0.0, SHARED])
def test_the_problem_itself(shared):
    close(decide("bpqp", scores(), day(shared)).w, 0.4, 0.3, 0.2, 0.1)


@pytest.mark.parametrize(("shared", "expected"), [(0.0, 0.15), (SHARED, 0.075)])
def test_how_far_a_decision_is_from_the_optimum(shared, expected):
    """A step of 1/L from equal weights moves the first name by its μ, or by half of it."""
    solution = decide("equal_weight", scores(), day(shared))
    close(solution.w, 0.25, 0.25, 0.25, 0.25)
    assert float(solution.kkt_norm[0]) == pytest.approx(expected, abs=1e-9)


def test_the_distance_knows_limits_signs_and_the_largest_variance():
    # A step to (−.2, .4, .4, .4), of which the limits leave (0, ⅓, ⅓, ⅓).
    solution = decide("equal_weight", scores((-0.45, 0.15, 0.15, 0.15)), day())
    assert float(solution.kkt_norm[0]) == pytest.approx(0.25, abs=1e-9)
    # L = 2, from slopes of .25 and .5: (.125, .125, .125, 0), and .15625 more for all.
    solution = decide("equal_weight", (0.0,) * 4, day(specific=(0.05, 0.05, 0.05, 0.1)))
    assert float(solution.kkt_norm[0]) == pytest.approx(0.09375, abs=1e-9)
    assert solution.iterations.tolist() == [0]


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        (1, 0.5),  # (0 + 1)/2 of μ
        (2, 0.75),  # (.5 + 1)/2
        (3, 0.90625),  # from .75 + (.75 − .5)/4 = .8125
    ],
)
def test_unrolled_steps_are_accelerated(steps, part):
    solution = decide("unrolled", scores(), day(SHARED), steps=steps)
    close(solution.w, *(0.25 + part * m for m in MU))
    assert solution.iterations.tolist() == [steps]


def test_the_least_variance_is_inverse_to_it():
    batch = day(specific=(0.05, 0.05, 0.1, 0.1))
    close(decide("minimum_variance", scores(), batch).w, 1 / 3, 1 / 3, 1 / 6, 1 / 6)


def test_softmax_by_its_temperature():
    """Scores of 0, 2 ln 2, 4 ln 2 and 0 at the temperature 2: 1, 2, 4 and 1 parts of 8."""
    found = decide("softmax", (0.0, 2 * math.log(2), 4 * math.log(2), 0.0), day(), temperature=2.0)
    close(found.w, 0.125, 0.25, 0.5, 0.125)
    usual = decide("softmax", (0.0, math.log(2), 2 * math.log(2), 0.0), day())
    close(usual.w, 0.125, 0.25, 0.5, 0.125)


def test_dc3_proposes_a_part_of_the_cap_and_leaves_the_rest_to_the_last_name():
    """With a cap of .5 the score 0 proposes ¼, half of the cap; ln 3 proposes ¾ of it."""
    found = decide("dc3", (math.log(3), 0.0, -math.log(3), 9.0), day(), cap=0.5)
    close(found.w, 0.375, 0.25, 0.125, 0.25)
    assert found.codes.tolist() == [0]


def test_what_dc3_leaves_outside_is_inaccurate_and_paid_for():
    """Three names at their cap of .4 leave −.2 for the last."""
    big = 40.0
    problem = PortfolioProblem(
        {"risk_aversion": 20.0, "max_weight": 0.4, "decision": {"name": "dc3", "corrections": 0}}
    )
    found = problem.solve(row(big, big, big, 0.0), day())
    close(found.w, 0.4, 0.4, 0.4, -0.2)
    assert found.codes.tolist() != [0]
    torch.testing.assert_close(problem.penalty(found.w), row(0.04)[0])
    dear = PortfolioProblem({"max_weight": 0.25, "decision": {"name": "dc3", "penalty": 3.0}})
    # 3 (.15² + .05² + .25²)
    torch.testing.assert_close(dear.penalty(row(0.4, 0.3, 0.25, -0.25)), row(0.2625)[0])


def test_corrections_go_the_shortest_way_back():
    """From (.4, .4, .4, −.2): the last name's .2 is taken evenly from the three that pay for it."""
    big = 40.0
    found = decide("dc3", (big, big, big, 0.0), day(), cap=0.4, corrections=1)
    close(found.w, 1 / 3, 1 / 3, 1 / 3, 0.0, atol=1e-6)


def test_usual_options():
    assert build_policy({"name": "unrolled"}).steps == 100
    dc3 = build_policy({"name": "dc3"})
    assert (dc3.corrections, dc3.tolerance, dc3.penalty) == (100, 1e-6, 1.0)
