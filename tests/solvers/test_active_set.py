"""The active set's rule: both slack and dual, whatever the units."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.problems import QP, Solution, SolveStatus
from bpqp_portfolio.solvers.common.active_set import active_set


def at(problem, z, lam=(), lam_lb=None, lam_ub=None):
    zeros = np.zeros(problem.n)
    duals = (zeros if d is None else np.asarray(d, dtype=float) for d in (lam_lb, lam_ub))
    return active_set(
        problem,
        Solution(
            np.asarray(z, dtype=float),
            np.zeros(problem.p),
            np.asarray(lam, dtype=float),
            *duals,
            SolveStatus.SOLVED,
            0.0,
            0,
            "test",
        ),
    )


@pytest.mark.parametrize("objective", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("row", [1e-4, 1.0, 1e4])
def test_rows_by_slack_and_dual_in_any_units(objective, row):
    G = row * np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    slack = row * np.array([1e-9, 1e-6, 0.5])
    lam = np.array([0.3, 1e-9, 0.0]) * objective / row
    z = np.array([1.0, 1.0])
    problem = QP(objective * np.eye(2), objective * -np.ones(2), G=G, h=G @ z + slack)
    assert at(problem, z, lam).rows.tolist() == [True, False, False]


def test_bounds():
    problem = QP(np.eye(4), np.ones(4), lb=[0, 0, -np.inf, 0], ub=[1, 1, np.inf, 1])
    active = at(problem, [1e-10, 1.0, 3.0, 0.4], lam_lb=[0.5, 0, 0, 1e-9], lam_ub=[0, 0.5, 0, 0])
    assert active.lower.tolist() == [True, False, False, False]
    assert active.upper.tolist() == [False, True, False, False]
    assert active.free.tolist() == [False, False, True, True]


@pytest.mark.parametrize("side", [{"lb": [0.0]}, {"ub": [0.0]}])
def test_weakly_active_counts_as_inactive(side):
    problem = QP(np.eye(1), np.zeros(1), **side)
    assert at(problem, [0.0]).free.all()


def test_a_weakly_active_row_counts_as_inactive():
    """Of three rows through the point, the one with a dual binds."""
    problem = QP(np.eye(2), np.array([-1.0, 0.0]), G=[[1, 0], [1, 1], [0, 1]], h=[1, 1, 0])
    assert at(problem, [1.0, 0.0], [0, 0, 0]).rows.tolist() == [False, False, False]
    assert at(problem, [1.0, 0.0], [0, 0.5, 0]).rows.tolist() == [False, True, False]


def test_equal_bounds_are_active_on_the_side_of_the_larger_dual():
    problem = QP(np.eye(3), np.ones(3), lb=[1.0] * 3, ub=[1.0] * 3)
    active = at(problem, [1.0] * 3, lam_lb=[2.0, 0.0, 0.0], lam_ub=[0.0, 2.0, 0.0])
    assert active.lower.tolist() == [True, False, True]
    assert active.upper.tolist() == [False, True, False]


def test_a_coordinate_is_on_one_side_of_a_narrow_box():
    """Both sides are nearer than any dual says: the larger dual decides."""
    problem = QP(np.eye(3), np.ones(3), lb=[0.0, 0.0, -1.0], ub=[1e-12, 1e-12, 1.0])
    active = at(problem, [0.0, 0.0, 0.5], lam_lb=[0.5, 0.3, 0.0], lam_ub=[0.3, 0.5, 0.0])
    assert active.lower.tolist() == [True, False, False]
    assert active.upper.tolist() == [False, True, False]


def test_a_dual_does_not_move_a_coordinate_off_the_side_where_it_is():
    """The other side's dual is the larger one, but that side is a whole unit away."""
    problem = QP(np.eye(2), np.ones(2), lb=[0.0] * 2, ub=[1.0] * 2)
    active = at(problem, [0.0, 1.0], lam_lb=[0.3, 0.5], lam_ub=[0.5, 0.3])
    assert active.lower.tolist() == [True, False]
    assert active.upper.tolist() == [False, True]


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6])
def test_a_slack_is_small_by_the_size_of_the_point(unit):
    """Of z = (1, 1) units: a row a millionth from its limit, and one half a unit."""
    z = unit * np.ones(2)
    problem = QP(np.eye(2) / unit, -np.ones(2), G=np.eye(2), h=z + unit * np.array([1e-6, 0.5]))
    assert at(problem, z, [1e-3, 1e-3]).rows.tolist() == [True, False]
