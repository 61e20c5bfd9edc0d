"""The time left of a comparison."""

from __future__ import annotations

import pytest

from bpqp_portfolio.experiments.estimate import Estimate, as_text


def test_nothing_is_known_before_a_run_is_finished():
    estimate = Estimate({"a": []}, jobs=2)
    assert estimate.left(["a", "b"], [("a", 5.0)]) is None
    estimate.add("a", 100.0)
    assert estimate.left(["a"], []) == 50.0


def test_each_method_counts_with_its_own_mean_and_an_unknown_one_with_that_of_all():
    estimate = Estimate({"slow": [90.0, 110.0], "fast": [20.0]}, jobs=1)
    assert estimate.left(["slow", "fast", "new"], []) == pytest.approx(100 + 20 + 60)


def test_what_runs_at_work_have_taken_is_done_and_none_owes_less_than_nothing():
    estimate = Estimate({"slow": [100.0], "fast": [20.0]}, jobs=2)
    assert estimate.left([], [("slow", 70.0), ("fast", 500.0)]) == 30.0
    # Two jobs cannot share one run.
    assert estimate.left([], [("slow", 0.0)]) == 100.0
    assert estimate.left(["fast"] * 10, [("slow", 0.0)]) == pytest.approx((100 + 200) / 2)
    assert estimate.left([], []) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "no estimate yet"),
        (2, "about 10 s left"),
        (44, "about 40 s left"),
        (150, "about 2 min left"),
        (9000, "about 2.5 h left"),
    ],
)
def test_as_text(seconds, text):
    assert as_text(seconds) == text
