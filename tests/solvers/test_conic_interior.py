"""The package's own solvers of cone programs: closed forms, Clarabel, degenerate and hard cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from bpqp_portfolio import ConfigError, SolveStatus
from bpqp_portfolio.problems import QP
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.socp import SOCP, ConePoint, SOCPSolution, linear
from bpqp_portfolio.solvers import get_solver
from bpqp_portfolio.solvers.auto import ConicAuto, choose_cones
from bpqp_portfolio.solvers.common.cache import CacheEntry
from bpqp_portfolio.solvers.common.parallel import solve_parallel
from bpqp_portfolio.solvers.common.protocol import SolverOptions
from bpqp_portfolio.solvers.conic.ball import solve_ball
from bpqp_portfolio.solvers.conic.clarabel import ConicClarabel
from bpqp_portfolio.solvers.conic.interior_point import ConicInterior
from bpqp_portfolio.solvers.conic.kkt import ActiveSystem
from bpqp_portfolio.solvers.conic.newton import ConeVector, nesterov_todd


def robust(n: int, m: int, seed: int, quadratic: bool = False) -> SOCP:
    """min qᵀz s.t. aᵢᵀz + ‖z‖ ≤ bᵢ, bounded since q is inside what its duals reach."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(m, n)), 1 + rng.random(m)
    tau = rng.random(m) * (rng.random(m) < 0.5)
    tau[0] = 1.0
    w = rng.normal(size=n)
    w *= 0.5 * tau.sum() / np.linalg.norm(w)
    factor = rng.normal(size=(n, n)) / np.sqrt(n)
    P = factor @ factor.T if quadratic else linear(n)
    return SOCP(QP(P, w - tau @ a), [(None, None, -a[i], b[i]) for i in range(m)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quadratic", [False, True])
@pytest.mark.parametrize(("n", "m"), [(4, 2), (30, 3), (30, 40), (120, 8)])
def test_robust_linear_programs_agree_with_clarabel(n, m, seed, quadratic):
    problem = robust(n, m, seed, quadratic)
    found = ConicInterior().solve(problem)
    exact = ConicClarabel().solve(problem, options=SolverOptions(tolerance=1e-9))
    assert found.status is SolveStatus.SOLVED and found.solver == "interior"
    assert found.kkt_norm <= 1e-9 and found.residuals(problem).norm <= 1e-9
    np.testing.assert_allclose(found.z, exact.z, rtol=1e-8, atol=1e-9)
    active = [
        ActiveSystem.at(problem, ConePoint.of(problem, s)).groups[0].rows for s in (found, exact)
    ]
    assert active[0].any() and (active[0] == active[1]).all()
    # Other rows have a dual of exactly zero.
    tau = np.array([dual[0] for dual in found.cone_duals])
    assert (tau[~active[0]] == 0).all()


@pytest.mark.parametrize("delta", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("p", [0, 2])
@pytest.mark.parametrize("g", [False, True])
def test_balls_in_closed_form_agree_with_clarabel(delta, p, g):
    rng = np.random.default_rng(p)
    n = 12
    shift = 0.1 * rng.normal(size=n) if g else None
    A = rng.normal(size=(p, n))
    qp = QP(FactorMatrix(np.zeros((n, 0)), np.full(n, delta)), rng.normal(size=n), A, A[:, 0] * 0.3)
    problem = SOCP(qp, [(None, shift, None, 1.5)])
    found = solve_ball(problem)
    assert found.solver == "ball" and found.kkt_norm <= 1e-13
    exact = ConicClarabel().solve(problem)
    for name in ("z", "nu"):
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), atol=1e-8)
    np.testing.assert_allclose(found.cone_duals[0], exact.cone_duals[0], atol=1e-8)


def test_what_is_no_ball_is_left_to_others():
    qp = QP(linear(3), np.ones(3))
    ball = (None, None, None, 1.0)
    others = [
        SOCP(qp, [ball, (None, np.ones(3), None, 1.0)]),
        SOCP(qp, [(None, None, np.ones(3), 1.0)]),
        SOCP(qp, [(2 * np.eye(3), None, None, 1.0)]),
        SOCP(qp, [(None, None, None, 0.0)]),
        SOCP(qp, [(None, None, None, -1.0)]),
        SOCP(QP(linear(3), np.zeros(3)), [ball]),
        SOCP(QP(np.eye(3), np.ones(3)), [ball]),
        SOCP(QP(FactorMatrix(np.zeros((3, 0)), np.arange(3.0)), np.ones(3)), [ball]),
        SOCP(QP(linear(3), np.ones(3), G=np.ones((1, 3)), h=[0.0]), [ball]),
        SOCP(QP(linear(3), np.ones(3), lb=np.zeros(3)), [ball]),
        # q along A: every point of the ball on the plane is a solution.
        SOCP(QP(linear(3), np.ones(3), np.ones((1, 3)), [0.1]), [ball]),
        # The plane does not meet the ball.
        SOCP(QP(linear(3), np.eye(3)[0], np.ones((1, 3)), [9.0]), [ball]),
    ]
    for problem in others:
        assert solve_ball(problem) is None


def test_an_inactive_cone_and_redundant_rows():
    # ½‖z − p‖² within a wide ball; the same row twice, once as equality, and a row that is slack.
    p, a = np.array([1.0, 2.0, -1.0]), np.ones((1, 3))
    qp = QP(np.eye(3), -p, np.vstack([a, a]), [1.0, 1.0], np.vstack([a, -a]), [1.0, 5.0])
    problem = SOCP(qp, [(None, None, None, 50.0)])
    found = ConicInterior().solve(problem)
    assert found.status is SolveStatus.SOLVED and found.kkt_norm <= 1e-9
    np.testing.assert_allclose(found.z, p - (p.sum() - 1) / 3, atol=1e-9)
    np.testing.assert_allclose(found.cone_duals[0], 0.0, atol=1e-9)


def test_two_active_cones():
    # The lens of two unit balls around (±½, 0): the highest point is (0, √¾).
    cones = [(None, np.array([x, 0.0]), None, 1.0) for x in (0.5, -0.5)]
    found = ConicInterior().solve(SOCP(QP(linear(2), [0.0, -1.0]), cones))
    np.testing.assert_allclose(found.z, [0.0, np.sqrt(0.75)], atol=1e-10)
    for dual in found.cone_duals:
        assert dual[0] == pytest.approx(0.5 / np.sqrt(0.75))


def test_a_ball_of_radius_zero_and_one_that_is_empty():
    qp = QP(linear(2), [1.0, 1.0])
    empty = ConicAuto().solve(SOCP(qp, [(None, None, None, -1.0)]))
    assert empty.status is SolveStatus.PRIMAL_INFEASIBLE
    point = ConicAuto().solve(SOCP(qp, [(None, None, None, 0.0)]))
    np.testing.assert_allclose(point.z, 0.0, atol=1e-9)


@pytest.mark.parametrize("n", [5, 60])
def test_certificates(n):
    # ‖z‖ ≤ 1 and 1ᵀz ≥ 2√n contradict each other; on ‖z‖ ≤ 1ᵀz + 1 the sum has no bound.
    one = np.ones(n)
    empty = SOCP(QP(linear(n), one, G=-one[None], h=[-2 * np.sqrt(n)]), [(None, None, None, 1.0)])
    s = ConicInterior().solve(empty)
    assert s.status is SolveStatus.PRIMAL_INFEASIBLE
    np.testing.assert_allclose(-one * s.lam[0] - s.cone_duals[0][1:], 0.0, atol=1e-6)
    assert -2 * np.sqrt(n) * s.lam[0] + s.cone_duals[0][0] < 0
    s = ConicInterior().solve(SOCP(QP(linear(n), -one), [(None, None, one, 1.0)]))
    assert s.status is SolveStatus.DUAL_INFEASIBLE
    assert s.z.sum() > 0.5 and np.linalg.norm(s.z) <= s.z.sum() + 1e-6


@pytest.mark.parametrize("at", ["lower", "upper"])
def test_every_coordinate_at_a_bound(at):
    n = 4
    q = np.ones(n) if at == "lower" else -np.ones(n)
    qp = QP(linear(n), q, lb=np.full(n, -0.1), ub=np.full(n, 0.1))
    found = ConicInterior().solve(SOCP(qp, [(None, None, None, 9.0)]))
    np.testing.assert_allclose(found.z, -0.1 * q, atol=1e-12)
    np.testing.assert_allclose(found.lam_lb if at == "lower" else found.lam_ub, 1.0, atol=1e-9)


def test_no_matrix_of_n_by_n_is_made_for_a_ball(monkeypatch):
    import bpqp_portfolio.solvers.conic.newton as newton

    def refuse(*_, **__):
        raise AssertionError("dense factorisation")

    monkeypatch.setattr(newton.linalg, "cho_factor", refuse)
    problem = robust(200, 5, 0)
    assert ConicInterior().solve(problem).status is SolveStatus.SOLVED


def test_the_scaling_maps_both_points_to_one():
    rng = np.random.default_rng(0)

    def inside():
        tail = rng.normal(size=4)
        return ConeVector(
            rng.random(3) + 0.1, [np.concatenate([[np.linalg.norm(tail) + 0.01], tail])]
        )

    s, y = inside(), inside()
    W = nesterov_todd(s, y)
    first, second = W.times(y), W.over(s)
    np.testing.assert_allclose(first.linear, second.linear, rtol=1e-12)
    np.testing.assert_allclose(first.cones[0], second.cones[0], rtol=1e-10)
    assert first @ first == pytest.approx(s @ y)
    x = inside()
    np.testing.assert_allclose(s.divide(s.jordan(x)).cones[0], x.cones[0], rtol=1e-8)
    # At the longest step the point is on the boundary.
    step = ConeVector(-s.linear / 9, [np.concatenate([[-1.0], np.ones(4)])])
    reach = s.reach(step)
    assert 0 < reach < 9 and (s + reach * step).depth() == pytest.approx(0.0, abs=1e-12)


def test_the_automatic_choice():
    assert ConicAuto().solve(SOCP(QP(linear(3), np.ones(3)), [(None, None, None, 1.0)])).solver == (
        "ball"
    )
    assert choose_cones(robust(20, 5, 0)) == "clarabel"
    large = robust(200, 50, 0)
    assert choose_cones(large) == "interior"
    assert ConicAuto().solve(large).solver == "interior"
    assert choose_cones(robust(100, 2, 0, quadratic=True)) == "interior"
    thin = sparse.random_array((50, 200), density=0.01, rng=np.random.default_rng(0), format="csr")
    sparse_rows = QP(linear(200), np.ones(200), G=thin, h=np.ones(50))
    assert choose_cones(SOCP(sparse_rows, [(None, None, None, 1.0)])) == "clarabel"
    shifts = np.random.default_rng(1).normal(size=(5, 200))
    many = SOCP(large.qp, [(None, g, np.ones(200), 99.0) for g in shifts])
    assert choose_cones(many) == "clarabel"


def test_auto_falls_back_where_its_first_choice_stops(monkeypatch):
    def stopped(problem, *_):
        return SOCPSolution.failed(
            problem, SolveStatus.ITERATION_LIMIT, iterations=1, solver="interior"
        )

    monkeypatch.setattr("bpqp_portfolio.solvers.conic.interior_point._solve", stopped)
    problem = robust(200, 50, 0)
    assert ConicInterior().solve(problem).status is not SolveStatus.SOLVED
    found = ConicAuto().solve(problem)
    assert found.status is SolveStatus.SOLVED and found.solver == "clarabel"


def test_native_settings_are_refused():
    with pytest.raises(ConfigError, match="interior"):
        get_solver("interior", "cone").solve(
            robust(5, 2, 0), options=SolverOptions(native={"max_iter": 3})
        )


def test_slots_start_from_the_last_solution():
    problems = [robust(20, 5, seed) for seed in range(3)]
    entries = [CacheEntry() for _ in problems]
    solver = ConicInterior()
    first = solve_parallel(solver, problems, options=SolverOptions(), entries=entries)
    moved = []
    for problem in problems:
        qp = QP(linear(20), problem.qp.q * (1 + 1e-5 * np.arange(20)))
        moved.append(SOCP(qp, problem.cones))
    warm = solve_parallel(solver, moved, options=SolverOptions(), entries=entries)
    cold = solve_parallel(solver, moved, options=SolverOptions())
    for a, b, c in zip(first, warm, cold, strict=True):
        assert a.iterations > 0 and b.iterations == 0 and c.iterations > 0
        np.testing.assert_allclose(b.z, c.z, rtol=1e-9, atol=1e-10)
    # Another problem under the same entries, of another size too, is solved as ever.
    other = [robust(7, 3, seed) for seed in range(3)]
    for a, b in zip(
        solve_parallel(solver, other, options=SolverOptions(), entries=entries),
        solve_parallel(solver, other, options=SolverOptions()),
        strict=True,
    ):
        np.testing.assert_allclose(a.z, b.z, rtol=0, atol=0)
