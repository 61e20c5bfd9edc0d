"""The protocol's laws, for every registered solver on every reference problem."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.problems import QP, SolveStatus, reference_problems
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver

REFERENCES = reference_problems()
EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))
SIMPLEX = next(r for r in REFERENCES if r.name == "simplex")


def solve(name, problem, **options):
    return get_solver(name).solve(problem, options=SolverOptions(**options))


@EACH_SOLVER
@pytest.mark.parametrize("polish", [True, False])
@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: r.name)
def test_reference_problems(name, reference, polish):
    problem = reference.problem
    solution = solve(name, problem, polish=polish)
    assert solution.status is SolveStatus.SOLVED
    assert solution.solver == name or (
        name == "auto" and solution.solver in available_solvers("qp")
    )
    assert solution.kkt_norm == solution.residuals(problem).norm <= 1e-7
    for dual in (solution.lam, solution.lam_lb, solution.lam_ub):
        assert (dual >= 0).all()
    assert (problem.lb <= solution.z).all() and (solution.z <= problem.ub).all()
    scale = max(1.0, abs(reference.objective))
    tolerance = 1e-12 if polish else 2e-7
    assert abs(problem.objective(solution.z) - reference.objective) <= tolerance * scale
    # A weakly active bound is met to the square root of an interior point's gap only.
    loose = 1e-4 if reference.name == "weakly active" else 1e-6
    for known, found in (
        (reference.z, solution.z),
        (reference.nu, solution.nu),
        (reference.lam, solution.lam),
    ):
        if known is not None:
            np.testing.assert_allclose(found, known, rtol=0, atol=1e-9 if polish else loose)


@EACH_SOLVER
def test_polished_zeros_are_exact(name):
    solution = solve(name, SIMPLEX.problem)
    assert solution.z[2] == 0.0 and solution.lam_lb[0] == solution.lam_lb[1] == 0.0


@EACH_SOLVER
@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (
            QP(np.eye(2), np.zeros(2), [[1.0, 1.0]], [3.0], lb=np.zeros(2), ub=np.ones(2)),
            SolveStatus.PRIMAL_INFEASIBLE,
        ),
        (
            QP(np.eye(2), np.zeros(2), G=[[1.0, 0.0], [-1.0, 0.0]], h=[0.0, -1.0]),
            SolveStatus.PRIMAL_INFEASIBLE,
        ),
        (QP(np.zeros((2, 2)), [1.0, 1.0], lb=[0.0, -np.inf]), SolveStatus.DUAL_INFEASIBLE),
        (QP(np.diag([1.0, 0.0]), [0.0, 1.0], ub=np.ones(2)), SolveStatus.DUAL_INFEASIBLE),
    ],
    ids=["budget over caps", "contradictory rows", "unbounded LP", "unbounded QP"],
)
def test_infeasible_problems_are_told_apart(name, problem, status):
    solution = solve(name, problem)
    assert solution.status is status and np.isnan(solution.kkt_norm)


@EACH_SOLVER
def test_no_solver_calls_an_indefinite_problem_solved(name):
    solution = solve(name, QP(-10 * np.eye(2), np.ones(2)))
    assert not solution.status.usable


def stopped_problem():
    """One that no solver solves in a step."""
    rng = np.random.default_rng(0)
    n = 20
    X = rng.normal(size=(n, n))
    return QP(X @ X.T, rng.normal(size=n), np.ones((1, n)), [1.0], lb=np.zeros(n))


@EACH_SOLVER
def test_a_stopped_solve_is_not_called_solved(name):
    problem = stopped_problem()
    solution = solve(name, problem, max_iterations=1, polish=False)
    assert solution.status is SolveStatus.ITERATION_LIMIT
    # HiGHS counts the step in which it notices the limit.
    assert solution.kkt_norm > 1e-4 and 1 <= solution.iterations <= 2
    assert solve(name, problem).status is SolveStatus.SOLVED


@EACH_SOLVER
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_small_and_large_objectives_are_solved_alike(name, scale):
    p = SIMPLEX.problem
    scaled = QP(p.P * scale, p.q * scale, p.A, p.b, lb=p.lb)
    np.testing.assert_allclose(
        solve(name, scaled, polish=False).z, solve(name, p, polish=False).z, rtol=0, atol=1e-9
    )


@EACH_SOLVER
def test_threads_share_a_solver(name):
    solver = get_solver(name)
    problems = [r.problem for r in REFERENCES] * 3
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda p: solver.solve(p, options=SolverOptions()).z, problems))
    for z, problem in zip(threaded, problems, strict=True):
        np.testing.assert_array_equal(z, solver.solve(problem, options=SolverOptions()).z)


@pytest.mark.parametrize(
    ("name", "good", "bad", "nearest"),
    [
        ("osqp", {"check_termination": 5}, {"eps_abss": 1.0}, "eps_abs"),
        ("clarabel", {"equilibrate_enable": False}, {"tol_fees": 1.0}, "tol_feas"),
        ("piqp", {"preconditioner_iter": 3}, {"max_iters": 1}, "max_iter"),
        ("proxqp", {"default_rho": 1e-5}, {"defaultrho": 1.0}, "default_rho"),
        ("daqp", {"pivot_tol": 1e-7}, {"primal_to": 1.0}, "primal_tol"),
        ("highs", {"presolve": "off"}, {"presolv": "off"}, "presolve"),
    ],
)
def test_native_settings(name, good, bad, nearest):
    if name not in available_solvers("qp"):
        pytest.skip(f"{name} is not installed")
    assert solve(name, SIMPLEX.problem, native=good).status is SolveStatus.SOLVED
    with pytest.raises(ConfigError, match=f"{name}: unknown key .*{nearest}"):
        solve(name, SIMPLEX.problem, native=bad)


def test_native_settings_win():
    assert solve("osqp", SIMPLEX.problem, native={"max_iter": 7}).iterations == 7


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("osqp", "eps_abs"),
        ("clarabel", "max_iter"),
        ("piqp", "max_iter"),
        ("proxqp", "max_iter"),
        ("daqp", "iter_limit"),
        ("highs", "simplex_iteration_limit"),
    ],
)
def test_settings_of_a_wrong_type_are_refused(name, key):
    if name not in available_solvers("qp"):
        pytest.skip(f"{name} is not installed")
    with pytest.raises(ConfigError, match=f"{name}: .*{key}.*'many'.* not accepted"):
        solve(name, SIMPLEX.problem, native={key: "many"})


@EACH_SOLVER
def test_bounds_of_native_settings_win(name):
    if name in ("auto", "dense"):
        pytest.skip("has no native settings")
    key = {"daqp": "iter_limit", "highs": "qp_iteration_limit"}.get(name, "max_iter")
    options = {"native": {key: 1}, "max_iterations": 50, "polish": False}
    assert solve(name, stopped_problem(), **options).status is SolveStatus.ITERATION_LIMIT


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": "a"}, {"max_iterations": 0}])
def test_options_are_checked(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SolverOptions(**options)


@EACH_SOLVER
def test_nothing_is_printed(name, capfd):
    for reference in REFERENCES:
        solve(name, reference.problem)
    out = capfd.readouterr()
    assert out.out == "" and out.err == ""


@EACH_SOLVER
def test_equal_bounds_have_one_dual(name):
    problem = QP(np.eye(2), [0.0, -5.0], lb=[2.0, -3.0], ub=[2.0, -3.0])
    solution = solve(name, problem, polish=False)
    np.testing.assert_allclose(solution.lam_lb, [2.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(solution.lam_ub, [0.0, 8.0], atol=1e-6)


def test_osqp_gets_out_of_its_own_cycles():
    """With these settings its step size alternates between two values for ever."""
    problem = QP(
        [[0.4090, 1.1982], [1.1982, 6.2314]],
        [-0.0325, 0.0774],
        [[1.0, 1.0]],
        [1.0],
        lb=[0.0, 0.0],
        ub=[0.7864, 1.0],
    )
    cycling = {"rho": 0.1, "adaptive_rho_tolerance": 5.0}
    stopped = solve("osqp", problem, polish=False, native=cycling, max_iterations=4000)
    assert stopped.status is SolveStatus.ITERATION_LIMIT and stopped.iterations == 4000
    solution = solve("osqp", problem, polish=False, native=cycling)
    assert solution.status is SolveStatus.SOLVED and solution.iterations > 4000
    np.testing.assert_allclose(solution.z, [0.7864, 0.2136], atol=1e-6)


def test_highs_has_limits(monkeypatch):
    # Its QP solver cycled for ever on some problems of eight variables.
    highs = pytest.importorskip("bpqp_portfolio.solvers.qp.highs")
    rng = np.random.default_rng(0)
    B, one = rng.normal(size=(40, 40)), np.ones(40)
    problem = QP(B @ B.T, rng.normal(size=40), lb=-0.01 * one, ub=0.01 * one)
    options = SolverOptions(polish=False)
    assert highs.HiGHSSolver().solve(problem, options=options).status is SolveStatus.SOLVED
    for name, limit in (("_QP_ITERATIONS", 3), ("_SECONDS", 0.0)):
        with monkeypatch.context() as patch:
            patch.setattr(highs, name, limit)
            stopped = highs.HiGHSSolver().solve(problem, options=options)
            assert stopped.status is SolveStatus.ITERATION_LIMIT
