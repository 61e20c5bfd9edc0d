"""The active set's rule: both slack and dual, whatever the units."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.problems import QP, Solution, SolveStatus
from bpqp_portfolio.solvers.active import active_set


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


def test_weakly_active_counts_as_inactive():
    problem = QP(np.eye(1), np.zeros(1), lb=[0.0])
    assert at(problem, [0.0]).free.all()


def test_equal_bounds_are_active_on_the_side_of_the_larger_dual():
    problem = QP(np.eye(3), np.ones(3), lb=[1.0] * 3, ub=[1.0] * 3)
    active = at(problem, [1.0] * 3, lam_lb=[2.0, 0.0, 0.0], lam_ub=[0.0, 2.0, 0.0])
    assert active.lower.tolist() == [True, False, True]
    assert active.upper.tolist() == [False, True, False]
