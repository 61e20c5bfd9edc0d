"""Infeasible problems: every solver finds them, with a certificate that a reader can check."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from bpqp_portfolio.problems import QP, SolveStatus, reference_problems
from bpqp_portfolio.problems.matrices import FactorMatrix, to_dense
from bpqp_portfolio.solvers import available_solvers, get_solver
from bpqp_portfolio.solvers.common.certificates import describe_infeasibility, infeasible

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))
EYE2 = np.eye(2)
PRIMAL = {
    "budget over caps": QP(EYE2, [0.0, 0.0], [[1.0, 1.0]], [3.0], lb=[0.0, 0.0], ub=[1.0, 1.0]),
    "contradictory rows": QP(EYE2, [0.0, 0.0], G=[[1.0, 0.0], [-1.0, 0.0]], h=[0.0, -1.0]),
    "contradictory equalities": QP(EYE2, [1.0, 2.0], [[1.0, 1.0], [2.0, 2.0]], [1.0, 3.0]),
    "more equalities than names": QP(EYE2, [1.0, 0.0], [[1, 0], [0, 1], [1, 1]], [1, 1, 1]),
    "row against bounds": QP(EYE2, [1.0, 1.0], G=[[-1.0, -1.0]], h=[-3.0], ub=[1.0, 1.0]),
    "0 = 1": QP(EYE2, [1.0, 1.0], [[0.0, 0.0]], [1.0]),
    "0 ≤ −1": QP(EYE2, [1.0, 1.0], G=[[0.0, 0.0]], h=[-1.0]),
    "pinned": QP(EYE2, [0.0, 0.0], [[1.0, 1.0]], [3.0], lb=[1.0, 1.0], ub=[1.0, 1.0]),
    "small rows": QP(EYE2, [0.0, 0.0], [[1e-5, 1e-5]], [3e-5], lb=[0.0, 0.0], ub=[1.0, 1.0]),
    "linear": QP(np.zeros((2, 2)), [1.0, 1.0], [[1.0, 1.0]], [-1.0], lb=[0.0, 0.0]),
    "factors": QP(
        FactorMatrix(np.ones((9, 1)), np.ones(9)),
        np.zeros(9),
        np.ones((1, 9)),
        [1.0],
        lb=np.zeros(9),
        ub=np.full(9, 0.1),
    ),
    "sparse": QP(
        sparse.eye_array(3),
        np.zeros(3),
        sparse.csr_array(np.ones((1, 3))),
        [4.0],
        lb=np.zeros(3),
        ub=np.ones(3),
    ),
}
DUAL = {
    "unbounded LP": QP(np.zeros((2, 2)), [1.0, 1.0], lb=[0.0, -np.inf]),
    "unbounded QP": QP(np.diag([1.0, 0.0]), [0.0, 1.0], ub=[1.0, 1.0]),
    "along a row": QP(np.zeros((2, 2)), [-1.0, -1.0], G=[[1.0, -1.0]], h=[0.0]),
    "along an equality": QP(np.zeros((3, 3)), [1.0, 0.0, 0.0], [[1.0, 1.0, 1.0]], [1.0]),
    "singular": QP([[1.0, -1.0], [-1.0, 1.0]], [-1.0, -1.0], lb=[0.0, 0.0]),
    "small objective": QP(np.zeros((2, 2)), [1e-6, 0.0], ub=[1.0, 1.0]),
    "factors": QP(FactorMatrix(np.ones((9, 1)), np.zeros(9)), np.arange(9.0)),
    "sparse": QP(sparse.csr_array((2, 2)), [1.0, 0.0], sparse.csr_array([[1.0, 1.0]]), [1.0]),
}


@EACH_SOLVER
@pytest.mark.parametrize("case", PRIMAL)
def test_primal_certificates_prove(name, case):
    problem = PRIMAL[case]
    s = get_solver(name).solve(problem)
    assert s.status is SolveStatus.PRIMAL_INFEASIBLE
    assert np.isnan(s.z).all() and np.isnan(s.kkt_norm)
    duals = np.concatenate([s.nu, s.lam, s.lam_lb, s.lam_ub])
    assert np.abs(duals).max() == pytest.approx(1.0, rel=1e-15)
    assert min(s.lam.min(initial=0), s.lam_lb.min(), s.lam_ub.min()) >= 0
    np.testing.assert_allclose(
        problem.A.T @ s.nu + problem.G.T @ s.lam - s.lam_lb + s.lam_ub, 0.0, atol=1e-8
    )
    lower, upper = s.lam_lb > 0, s.lam_ub > 0
    value = problem.b @ s.nu + problem.h @ s.lam
    value += problem.ub[upper] @ s.lam_ub[upper] - problem.lb[lower] @ s.lam_lb[lower]
    assert value < 0


@EACH_SOLVER
@pytest.mark.parametrize("case", DUAL)
def test_rays_descend_for_ever(name, case):
    problem = DUAL[case]
    s = get_solver(name).solve(problem)
    assert s.status is SolveStatus.DUAL_INFEASIBLE
    assert np.isnan(np.concatenate([s.nu, s.lam, s.lam_lb, s.lam_ub])).all()
    z = s.z
    assert np.abs(z).max() == 1.0 and problem.q @ z < 0
    np.testing.assert_allclose(problem.P @ z, 0.0, atol=1e-8)
    np.testing.assert_allclose(problem.A @ z, 0.0, atol=1e-8)
    assert (problem.G @ z <= 1e-8).all()
    assert (z[np.isfinite(problem.lb)] >= 0).all() and (z[np.isfinite(problem.ub)] <= 0).all()


@EACH_SOLVER
def test_the_conflict_is_named(name):
    G = np.concatenate([np.eye(5), -np.eye(5)])
    h = np.ones(10)
    h[2], h[7] = -2.0, 1.0  # z₂ ≤ −2 and z₂ ≥ −1
    problem = QP(np.eye(5), np.ones(5), np.ones((1, 5)), [0.0], G, h)
    found = get_solver(name).solve(problem)
    assert describe_infeasibility(problem, found) == "inequality rows 2, 7"


@EACH_SOLVER
def test_a_ray_is_named(name):
    problem = DUAL["unbounded LP"]
    words = describe_infeasibility(problem, get_solver(name).solve(problem))
    assert words.startswith("unbounded along coordinate") and "1" in words


def test_conflicts_in_words():
    n = 12
    problem = QP(
        np.eye(n), np.zeros(n), np.ones((1, n)), [1.0], lb=np.zeros(n), ub=np.full(n, 0.01)
    )
    words = describe_infeasibility(problem, get_solver("clarabel").solve(problem))
    assert words == "equality row 0; upper bounds of 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"
    bounds = QP(np.eye(2), np.zeros(2), [[1.0, 0.0]], [-1.0], lb=[0.0, 0.0])
    assert describe_infeasibility(bounds, get_solver("clarabel").solve(bounds)) == (
        "equality row 0; lower bound of 0"
    )
    solved = reference_problems()[0].problem
    assert describe_infeasibility(solved, get_solver("clarabel").solve(solved)) == ""


@pytest.mark.parametrize("reference", reference_problems(), ids=lambda r: r.name)
@pytest.mark.parametrize("kind", [SolveStatus.PRIMAL_INFEASIBLE, SolveStatus.DUAL_INFEASIBLE])
def test_a_false_claim_is_not_repeated(reference, kind):
    problem = reference.problem
    rng = np.random.default_rng(0)
    s = infeasible(
        problem,
        kind,
        ray=rng.normal(size=problem.n),
        duals=(rng.normal(size=problem.p), rng.random(problem.m)),
        iterations=1,
        solver="liar",
    )
    assert s.status is SolveStatus.ITERATION_LIMIT
    assert np.isnan(s.z).all() and np.isnan(s.lam_lb).all()


@pytest.mark.parametrize("offer", [np.nan, np.inf, 0.0])
def test_a_useless_offer_is_replaced(offer):
    problem = PRIMAL["budget over caps"]
    s = infeasible(
        problem,
        SolveStatus.PRIMAL_INFEASIBLE,
        duals=(np.full(1, offer), np.zeros(0)),
        iterations=1,
        solver="made up",
    )
    np.testing.assert_allclose([s.nu[0], *s.lam_lb, *s.lam_ub], [-1.0, 0.0, 0.0, 1.0, 1.0])
    ray = infeasible(
        DUAL["unbounded LP"],
        SolveStatus.DUAL_INFEASIBLE,
        ray=np.full(2, offer),
        iterations=1,
        solver="made up",
    )
    np.testing.assert_allclose(ray.z, [0.0, -1.0], atol=1e-12)


def test_certificates_do_not_depend_on_units():
    problem = PRIMAL["budget over caps"]
    for row, objective in ((1e6, 1.0), (1e-6, 1e6), (1.0, 1e-6)):
        other = QP(
            to_dense(problem.P) * objective,
            problem.q,
            problem.A * row,
            problem.b * row,
            lb=problem.lb,
            ub=problem.ub,
        )
        s = get_solver("clarabel").solve(other)
        assert s.status is SolveStatus.PRIMAL_INFEASIBLE
        assert describe_infeasibility(other, s) == "equality row 0; upper bounds of 0, 1"
