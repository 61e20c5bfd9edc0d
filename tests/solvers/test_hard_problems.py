"""Every registered solver on sixty hard problems: nothing wrong is called solved."""

from __future__ import annotations

import numpy as np
import pytest
from hard_problems import KINDS, SEEDS, hard_problems

from bpqp_portfolio.problems import SolveStatus, kkt_residuals
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver

PROBLEMS = hard_problems()
# All six backends solved all sixty when this was written; other processors round differently.
FLOOR = 0.95


@pytest.fixture(scope="module")
def solutions():
    options = SolverOptions()
    return {
        name: {k: get_solver(name).solve(p, options=options) for k, p in PROBLEMS.items()}
        for name in available_solvers("qp")
    }


@pytest.fixture(scope="module")
def best(solutions):
    """The smallest objective that any solver reached."""
    return {
        k: min(
            problem.objective(found[k].z) for found in solutions.values() if found[k].status.usable
        )
        for k, problem in PROBLEMS.items()
    }


def test_there_are_sixty_and_they_do_not_change():
    assert len(PROBLEMS) == len(KINDS) * len(SEEDS) == 60
    again = hard_problems()
    assert all(
        np.array_equal(again[k].P, p.P) and np.array_equal(again[k].q, p.q)
        for k, p in PROBLEMS.items()
    )


@pytest.mark.parametrize("name", available_solvers("qp"))
def test_what_is_called_solved_is(name, solutions, best):
    for k, problem in PROBLEMS.items():
        s = solutions[name][k]
        assert s.status not in (
            SolveStatus.PRIMAL_INFEASIBLE,
            SolveStatus.DUAL_INFEASIBLE,
            SolveStatus.BAD_DATA,
        ), k
        if s.status is SolveStatus.SOLVED:
            norm = kkt_residuals(problem, s.z, s.nu, s.lam, s.lam_lb, s.lam_ub).norm
            assert norm <= 1e-7, k
            gap = problem.objective(s.z) - best[k]
            assert gap <= 1e-6 * max(1.0, abs(best[k])), k


@pytest.mark.parametrize("name", available_solvers("qp"))
def test_nearly_all_are_solved(name, solutions):
    solved = [s.status is SolveStatus.SOLVED for s in solutions[name].values()]
    missed = [k for k, s in solutions[name].items() if s.status is not SolveStatus.SOLVED]
    assert np.mean(solved) >= FLOOR, missed
