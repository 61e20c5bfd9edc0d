"""The dense solver: closed forms, Clarabel's answers, degenerate data, certificates, entries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.problems import QP, SolveStatus, kkt_residuals, reference_problems
from bpqp_portfolio.solvers import SolverOptions, get_solver
from bpqp_portfolio.solvers.common.cache import CacheEntry
from bpqp_portfolio.solvers.qp.dense import DenseSolver
from bpqp_portfolio.solvers.qp.dense_factors import Factors

DENSE = DenseSolver()
FIELDS = ("z", "nu", "lam", "lam_lb", "lam_ub")


def made(seed, n=8, rank=8, p=2, m=6, scale=1.0, tripled=False):
    """Feasible and bounded by a box; half of the rows are met exactly by a point inside."""
    rng = np.random.default_rng(seed)
    B, z = rng.normal(size=(n, rank)), rng.normal(size=n)
    A, G = rng.normal(size=(p, n)), rng.normal(size=(m, n))
    h = G @ z + np.where(rng.random(m) < 0.5, 0.0, rng.random(m))
    if tripled:
        A, G = np.concatenate([A, 2 * A]), np.concatenate([G, 0.5 * G, A[:1]])
        h = np.concatenate([h, 0.5 * h, A[:1] @ z])
    lb, ub = z - 1.0, z + 1.0
    fixed, free = rng.random(n) < 0.1, rng.random(n) < 0.1
    lb, ub = np.where(fixed, z, lb), np.where(fixed, z, np.where(free, np.inf, ub))
    return QP(scale * (B @ B.T), scale * rng.normal(size=n), A, A @ z, G, h, lb, ub)


@pytest.mark.parametrize("reference", reference_problems(), ids=lambda r: r.name)
def test_closed_forms(reference):
    s = DENSE.solve(reference.problem)
    assert s.status is SolveStatus.SOLVED and s.kkt_norm <= 1e-9
    assert reference.problem.objective(s.z) == pytest.approx(reference.objective, abs=1e-9)
    for name in ("z", "nu", "lam"):
        if getattr(reference, name) is not None:
            np.testing.assert_allclose(getattr(s, name), getattr(reference, name), atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 10),
    st.integers(0, 3),
    st.integers(0, 12),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.booleans(),
)
def test_what_it_calls_solved_is_what_clarabel_finds(seed, rank, p, m, scale, tripled):
    """Singular P and P = 0 among them, redundant rows, fixed and free coordinates, any scale."""
    p = max(p, 1) if tripled else p
    problem = made(seed, rank=rank, p=p, m=m, scale=scale, tripled=tripled)
    s, other = DENSE.solve(problem), get_solver("clarabel").solve(problem)
    if s.status is SolveStatus.ITERATION_LIMIT:  # rare, and "auto" then asks another
        assert s.kkt_norm > 1e-4
        return
    assert s.status is other.status
    if s.status is SolveStatus.DUAL_INFEASIBLE:
        assert rank < 8 and problem.q @ s.z < 0
        return
    assert s.status is SolveStatus.SOLVED
    assert kkt_residuals(problem, *(getattr(s, f) for f in FIELDS)).norm <= 1e-7
    best = problem.objective(other.z)
    assert abs(problem.objective(s.z) - best) <= 1e-6 * max(scale, abs(best))


@pytest.mark.parametrize("share", [True, False])
def test_many_are_as_each_alone(share):
    problems = [made(seed) for seed in range(5)]
    if share:
        first = problems[0]
        rows = (first.A, first.b, first.G, first.h, first.lb, first.ub)
        problems = [QP(first.P, p.q, *rows) for p in problems]
    for found, one in zip(DENSE.solve_stack(problems), problems, strict=True):
        alone = DENSE.solve(one)
        assert found.status is alone.status is SolveStatus.SOLVED
        np.testing.assert_allclose(found.z, alone.z, rtol=0, atol=1e-9)


def counted(monkeypatch):
    made, real = [], Factors.of.__func__
    monkeypatch.setattr(
        Factors, "of", classmethod(lambda cls, *args: made.append(1) or real(cls, *args))
    )
    return made


def test_shared_matrices_are_factored_once(monkeypatch):
    calls, first = counted(monkeypatch), made(0)
    rows = (first.A, first.b, first.G, first.h, first.lb, first.ub)
    DENSE.solve_stack([QP(first.P, k * first.q, *rows) for k in (1.0, 2.0, 3.0)])
    assert len(calls) == 1


def test_a_slot_saves_the_factorisation_and_steps(monkeypatch):
    calls, entry, problem = counted(monkeypatch), CacheEntry(), made(3, n=20, m=20)
    cold = DENSE.solve(problem, entry=entry)
    warm = DENSE.solve(problem, entry=entry)
    assert len(calls) == 1 and warm.iterations <= cold.iterations
    np.testing.assert_allclose(warm.z, cold.z, rtol=0, atol=1e-10)


def test_indefinite_P_is_bad_data_and_does_not_spoil_the_others():
    bad, good = QP(np.diag([1.0, -1.0]), np.ones(2)), QP(np.eye(2), np.ones(2))
    found = DENSE.solve_stack([good, bad])
    assert [s.status for s in found] == [SolveStatus.SOLVED, SolveStatus.BAD_DATA]


def test_certificates():
    infeasible = QP(np.eye(2), np.ones(2), [[1.0, 1.0]], [3.0], lb=np.zeros(2), ub=np.ones(2))
    assert DENSE.solve(infeasible).status is SolveStatus.PRIMAL_INFEASIBLE
    unbounded = QP(np.diag([1.0, 0.0]), [0.0, -1.0], lb=np.zeros(2))
    ray = DENSE.solve(unbounded)
    assert ray.status is SolveStatus.DUAL_INFEASIBLE and ray.z[1] > 0 and abs(ray.z[0]) < 1e-9


def test_the_iteration_limit_is_kept():
    limited = DENSE.solve(made(3, n=20, m=20), options=SolverOptions(max_iterations=1))
    assert limited.iterations <= 1
    norm = kkt_residuals(made(3, n=20, m=20), *(getattr(limited, f) for f in FIELDS)).norm
    assert limited.kkt_norm == pytest.approx(norm)
    assert (limited.status is SolveStatus.SOLVED) == (norm <= 1e-7)
