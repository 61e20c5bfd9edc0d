"""What a QP knows of itself: its bounds, its sizes, and what it shares with others."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.errors import ProblemError
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.qp import all_sound, check_shapes

INF = np.inf


@pytest.mark.parametrize(
    ("bounds", "bounded"),
    [
        ({}, False),
        ({"lb": [-INF, -INF]}, False),
        ({"ub": [INF, INF]}, False),
        ({"lb": [-INF, -INF], "ub": [INF, INF]}, False),
        ({"lb": [-INF, 0.0]}, True),
        ({"ub": [1.0, INF]}, True),
        ({"lb": [-INF, -INF], "ub": [1.0, INF]}, True),
        ({"lb": [0.0, -INF], "ub": [INF, INF]}, True),
        ({"lb": [0.0, 0.0], "ub": [1.0, 1.0]}, True),
    ],
)
def test_one_finite_bound_makes_a_problem_bounded(bounds, bounded):
    assert QP(np.eye(2), np.zeros(2), **bounds).bounded is bounded


@pytest.mark.parametrize(("lb", "ub"), [([0.0, 2.0], [1.0, 1.0]), ([2.0, 0.0], [1.0, 1.0])])
def test_one_crossed_pair_of_bounds_is_refused(lb, ub):
    with pytest.raises(ProblemError, match="expected at most ub there"):
        QP(np.eye(2), np.zeros(2), lb=lb, ub=ub)


@pytest.mark.parametrize("bad", [np.nan, INF, -INF])
@pytest.mark.parametrize("part", ["B", "d"])
def test_both_parts_of_a_factor_matrix_are_checked(part, bad):
    parts = {"B": np.ones((2, 1)), "d": np.ones(2)}
    parts[part].flat[1] = bad
    with pytest.raises(ProblemError, match=rf"^P's {part}: entry .*{bad}"):
        QP(FactorMatrix(**parts), np.zeros(2))


def test_sizes_of_absent_constraints_are_zero():
    assert check_shapes({"P": (3, 3), "q": (3,)}) == (3, 0, 0)
    assert check_shapes({"P": (3, 3), "q": (3,), "A": (2, 3), "b": (2,)}) == (3, 2, 0)
    assert check_shapes({"P": (3, 3), "q": (3,), "G": (4, 3), "h": (4,)}) == (3, 0, 4)


def test_a_stack_is_sound_if_every_item_is():
    P = np.stack([np.eye(2), np.eye(2)])
    assert all_sound("P", P) and all_sound("q", np.zeros((2, 2)))
    P[1, 0, 1] = 0.5
    assert not all_sound("P", P) and all_sound("A", P)
    P[1, 0, 1] = np.nan
    assert not all_sound("A", P)


def test_absent_fields_are_shared_and_cannot_be_written():
    problem = QP(np.eye(2), np.zeros(2))
    for value in (problem.lb, problem.ub):
        with pytest.raises(ValueError, match="read-only"):
            value[0] = 0.0
    assert not QP(np.eye(2), np.zeros(2)).bounded
