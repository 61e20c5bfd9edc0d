"""Cone programs: their data are checked by name, and their residuals know optimal points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from bpqp_portfolio import ProblemError, SecondOrderCone, SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.socp import SOCP, SOCPSolution, linear


def ball(n=3, radius=2.0):
    """min qᵀz on the ball ‖z‖ ≤ radius with its solution −radius q/‖q‖, dual ‖q‖."""
    q = np.arange(1.0, n + 1)
    problem = SOCP(QP(linear(n), q), [SecondOrderCone(None, None, None, radius)])
    size, none = np.linalg.norm(q), np.zeros(n)
    dual = np.concatenate([[size], q])
    solution = SOCPSolution(
        -radius * q / size,
        np.zeros(0),
        np.zeros(0),
        none,
        none,
        SolveStatus.SOLVED,
        0.0,
        0,
        "",
        cone_duals=(dual,),
    )
    return problem, solution


def test_residuals_vanish_at_the_closed_form():
    problem, solution = ball()
    assert solution.residuals(problem).norm < 1e-15


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_residuals_have_no_scale(size):
    problem, solution = ball()
    off = replace(solution, z=solution.z + np.array([0.1, 0.0, 0.0]))
    expected = off.residuals(problem)
    cone = SecondOrderCone(size * np.eye(3), None, None, size * 2.0)
    scaled = SOCP(QP(linear(3), 10 * problem.qp.q), [cone])
    dual = 10 * off.cone_duals[0] / size
    found = replace(off, cone_duals=(dual,)).residuals(scaled)
    for field in ("stationarity", "primal", "dual", "complementarity"):
        assert getattr(found, field) == pytest.approx(getattr(expected, field), rel=1e-9, abs=1e-15)


def test_each_residual_sees_its_own_violation():
    problem, solution = ball()
    dual = solution.cone_duals[0]
    outside = replace(solution, z=1.01 * solution.z).residuals(problem)
    assert outside.primal == pytest.approx(0.02 / np.abs(1.01 * solution.z).max())
    short = replace(solution, cone_duals=(dual * [0.9, 1, 1, 1],)).residuals(problem)
    assert short.dual == pytest.approx(0.1 * dual[0] / 3.0) and short.stationarity < 1e-15
    # Turning z along the sphere keeps it feasible; only the Jordan product notices, to first order.
    turn = 1e-4 * np.cross(solution.z, [1.0, 0.0, 0.0])
    turned = solution.z + turn
    turned *= 2.0 / np.linalg.norm(turned)
    found = replace(solution, z=turned).residuals(problem)
    assert found.primal < 1e-15 and found.complementarity > 1e-5


def test_a_dual_inside_its_cone_is_complementary_to_the_apex_only():
    cone = SecondOrderCone(None, None, np.zeros(2), 0.0)
    problem = SOCP(QP(np.eye(2), [0.3, 0.4]), [cone])
    zero = np.zeros(2)
    dual = np.array([0.7, 0.3, 0.4])
    point = SOCPSolution(
        zero, np.zeros(0), np.zeros(0), zero, zero, None, 0.0, 0, "", cone_duals=(dual,)
    )
    assert point.residuals(problem).norm < 1e-15
    assert replace(point, z=np.array([0.01, 0.0])).residuals(problem).complementarity > 1e-3


def test_cones_that_share_a_norm_form_one_group():
    F, c = np.ones((2, 3)), np.arange(3.0)
    cones = [
        (None, None, c, 1.0),
        (F, None, None, 1.0),
        (None, np.zeros(3), -c, 2.0),
        (F.copy(), None, c, 3.0),
        (F, np.ones(2), c, 3.0),
    ]
    problem = SOCP(QP(linear(3), np.ones(3)), cones)
    assert [group.members for group in problem.groups] == [(0, 2), (1, 3), (4,)]
    assert (problem.groups[0].c == [c, -c]).all() and (problem.groups[1].d == [1.0, 3.0]).all()
    duals = tuple(np.array([1.0 + i, *(0.1 * np.ones(r))]) for i, r in enumerate((3, 2, 3, 2, 2)))
    gathered = problem.gather(duals)
    assert (gathered[0][0] == [1.0, 3.0]).all() and np.allclose(gathered[0][1], 0.2)
    again = problem.gather(problem.spread(gathered))
    for (tau, w), (tau2, w2) in zip(gathered, again, strict=True):
        assert np.allclose(tau, tau2) and np.allclose(w, w2)


def test_a_sparse_matrix_is_taken():
    F = sparse.random_array((2, 3), density=0.5, rng=np.random.default_rng(0))
    problem = SOCP(QP(linear(3), np.ones(3)), [(F, None, None, 1.0)])
    assert problem.groups[0].r == 2 and sparse.issparse(problem.groups[0].F)


@pytest.mark.parametrize(
    ("cone", "message"),
    [
        ((None, None, None), r"cones\[0\]: expected SecondOrderCone\(F, g, c, d\).*tuple of 3"),
        (3.0, r"cones\[0\]: expected SecondOrderCone.*got float"),
        ((None, None, None, None), r"cones\[0\]\.d: missing"),
        ((np.ones((2, 4)), None, None, 1.0), r"cones\[0\]\.F: expected shape \(\.\.\., 2, 3\)"),
        ((np.ones(3), None, None, 1.0), r"cones\[0\]\.F: expected shape \(\.\.\., r, 3\)"),
        ((np.ones((2, 3)), np.ones(3), None, 1.0), r"cones\[0\]\.g: expected shape \(\.\.\., 2\)"),
        ((None, np.ones(2), None, 1.0), r"cones\[0\]\.g: .*F = None meaning the identity"),
        ((None, None, np.ones(2), 1.0), r"cones\[0\]\.c: expected shape \(\.\.\., 3\)"),
        ((None, None, None, np.ones(2)), r"cones\[0\]\.d: one problem has no batch"),
        ((None, None, None, np.nan), r"cones\[0\]\.d: entry 0 is nan"),
        ((None, [0, np.inf, 0], None, 1.0), r"cones\[0\]\.g: entry 1 is inf"),
    ],
)
def test_bad_cones_are_named(cone, message):
    with pytest.raises(ProblemError, match=message):
        SOCP(QP(linear(3), np.ones(3)), [cone])
