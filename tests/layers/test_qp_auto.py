"""forward="auto" and backward="auto": the rule, the fallback, threads, caches and accuracy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest
import torch
from scipy import linalg, sparse
from threadpoolctl import threadpool_info, threadpool_limits

from bpqp_portfolio.layers import QPLayer
from bpqp_portfolio.problems import QP, Solution, SolveStatus, reference_problems
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.problems.qp import ARGUMENTS
from bpqp_portfolio.solvers import auto, get_solver, solver_names
from bpqp_portfolio.solvers.common import parallel
from bpqp_portfolio.solvers.common.cache import SolverCache
from bpqp_portfolio.solvers.qp.dense import DenseSolver
from bpqp_portfolio.solvers.qp.dense_factors import Factors

REFERENCES = reference_problems()
FIELDS = ("z", "nu", "lam", "lam_lb", "lam_ub")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def problem(n, kind="dense", *, bounded=False):
    P = {
        "dense": np.eye(n),
        "diagonal": FactorMatrix(np.zeros((n, 0)), np.ones(n)),
        "factor": FactorMatrix(np.ones((n, 1)), np.ones(n)),
        "sparse": sparse.eye_array(n, format="csr"),
    }[kind]
    return QP(P, np.ones(n), lb=np.zeros(n) if bounded else None)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (problem(30), "dense"),
        (problem(30, "diagonal"), "daqp"),
        (problem(30, bounded=True), "daqp"),
        (problem(31), "dense"),
        (problem(31, "diagonal"), "dense"),
        (problem(31, bounded=True), "piqp"),
        (problem(5, "factor"), "piqp"),
        (problem(5, "sparse"), "piqp"),
        (QP(np.eye(2), np.ones(2), sparse.csr_array([[1.0, 0.0]]), [1.0]), "piqp"),
    ],
)
def test_the_rule(case, expected, monkeypatch):
    everything = tuple(solver_names())
    monkeypatch.setattr(auto, "available_solvers", lambda kind: everything)
    assert auto.choose(case) == expected


def test_the_rule_without_extras(monkeypatch):
    monkeypatch.setattr(auto, "available_solvers", lambda kind: ("dense", "osqp", "clarabel"))
    assert auto.choose(problem(5)) == "dense"
    assert auto.choose(problem(50, bounded=True)) == "clarabel"
    assert auto.choose(problem(5, "sparse")) == "clarabel"


@pytest.mark.parametrize("kind", ["dense", "diagonal", "factor", "sparse"])
def test_the_solution_names_the_solver_that_answered(kind):
    one = problem(40, kind)
    assert get_solver("auto").solve(one).solver == auto.choose(one)


class StopsShort:
    """Solves every second problem only, and marks it."""

    name = "stopped"
    status = SolveStatus.ITERATION_LIMIT

    def solve_stack(self, problems, *, options, entries=None):
        found = DenseSolver().solve_stack(problems)
        return [
            s if i % 2 == 0 else Solution.failed(p, self.status, iterations=7, solver=self.name)
            for i, (p, s) in enumerate(zip(problems, found, strict=True))
        ]


@pytest.fixture
def stopping(monkeypatch):
    """ "auto" whose first solver stops short."""
    monkeypatch.setattr(auto, "choose", lambda problem: "dense")
    real = auto.get_solver
    stops = StopsShort()
    monkeypatch.setattr(auto, "get_solver", lambda k: stops if k == "dense" else real(k))
    return stops


def stacked(T=4, n=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(T, n, n, generator=g, dtype=torch.float64)
    q = torch.randn(T, n, generator=g, dtype=torch.float64)
    G = torch.randn(n // 2, n, generator=g, dtype=torch.float64)
    h = torch.rand(n // 2, generator=g, dtype=torch.float64)
    return {"P": X @ X.mT + torch.eye(n).double(), "q": q, "G": G, "h": h}


def test_clarabel_answers_where_the_first_stops_short(stopping):
    data = stacked()
    data["q"].requires_grad_()
    s = QPLayer().solve(**data)
    assert s.solver.tolist() == ["dense", "clarabel"] * 2
    assert (s.status == SolveStatus.SOLVED).all()
    s.z.square().sum().backward()
    q = data["q"].detach().clone().requires_grad_()
    z = QPLayer("clarabel", "kkt")(**{**data, "q": q})
    z.square().sum().backward()
    torch.testing.assert_close(s.z, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(data["q"].grad, q.grad, rtol=1e-7, atol=1e-9)


def test_a_verdict_is_not_asked_for_twice(stopping, monkeypatch):
    monkeypatch.setattr(stopping, "status", SolveStatus.PRIMAL_INFEASIBLE, raising=False)
    s = QPLayer(on_failure="nan").solve(**stacked())
    assert s.solver.tolist() == ["dense", "stopped"] * 2
    assert s.status[1] is SolveStatus.PRIMAL_INFEASIBLE and s.z[1].isnan().all()


@pytest.mark.parametrize("forward", ["auto", "dense"])
@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: r.name)
def test_backward_auto_is_kkt(forward, reference):
    grads = []
    for backward in ("auto", "kkt"):
        data = {k: torch.tensor(getattr(reference.problem, k)) for k in ARGUMENTS}
        data = {k: v.requires_grad_() for k, v in data.items()}
        s = QPLayer(forward, backward).solve(**data)
        weight = torch.arange(1.0, 1.0 + len(s.z), dtype=torch.float64)
        (
            weight @ s.z + s.nu.sum() + s.lam.sum() + (weight * (s.lam_lb - s.lam_ub)).sum()
        ).backward()
        grads.append([v.grad for v in data.values()])
    for one, other in zip(*grads, strict=True):
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7 * scale)


def run(layer, data, cache=None):
    data = {k: v.detach().clone().requires_grad_() for k, v in data.items()}
    s = layer.solve(**data, cache=cache)
    sum((getattr(s, f).sin()).sum() for f in FIELDS).backward()
    return [getattr(s, f).detach() for f in FIELDS] + [v.grad for v in data.values()]


def assert_alike(found, expected, atol=1e-9):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=atol)


def test_two_threads_across_items_are_as_one(two_threads, monkeypatch):
    data, layer = stacked(T=5), QPLayer("dense")
    found = []
    for worth in (0, 1 << 60):
        monkeypatch.setattr(parallel, "_WORTH", worth)
        found.append(run(layer, data))
    assert_alike(*found)


def test_items_with_bounds_at_different_places_on_two_threads(two_threads, monkeypatch):
    """The halves of the batch have other rows: their factors cannot be stacked."""
    monkeypatch.setattr(parallel, "_WORTH", 0)
    data = stacked(T=4)
    lb = torch.full((4, 40), -np.inf, dtype=torch.float64)
    lb[:2, 0], lb[2:, 1] = 0.05, 0.05
    lb[:2, 2], lb[2:, 3] = -0.05, -0.05
    data["lb"] = lb
    together = run(QPLayer("dense"), data)
    assert_alike(together, run(QPLayer("dense", "kkt"), data))


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_overlapping_batches_leave_the_number_of_blas_threads():
    """The first to enter leaves first: the other must not restore what it found on entering."""
    single = parallel._SingleBlas()
    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        single.__enter__()
        single.__enter__()
        assert set(blas_threads()) == {1}
        single.__exit__()
        assert set(blas_threads()) == {1}
        single.__exit__()
        assert blas_threads() == before


@pytest.mark.parametrize("forward", ["auto", "dense"])
def test_python_threads_may_share_a_layer(forward, two_threads, monkeypatch):
    monkeypatch.setattr(parallel, "_WORTH", 0)
    layer, inputs = QPLayer(forward), [stacked(T=3, seed=seed) for seed in range(6)]
    expected = [run(layer, data) for data in inputs]
    with ThreadPoolExecutor(3) as pool:
        for found, wanted in zip(pool.map(lambda d: run(layer, d), inputs), expected, strict=True):
            assert_alike(found, wanted)


@pytest.mark.parametrize("forward", ["auto", "dense", "osqp"])
def test_a_handle_changes_no_answer(forward):
    """Through new vectors, new matrices (also in place), other sizes and a failure."""
    layer, cache = QPLayer(forward, on_failure="nan"), SolverCache()
    data = stacked()
    steps = [{}, {"q": 2 * data["q"]}, {"h": data["h"] + 0.5}, {"P": 3 * data["P"]}, {}]
    tolerance = 1e-6 if forward == "osqp" else 1e-9
    for changed in steps:
        given = {**data, **changed}
        assert_alike(run(layer, given, cache), run(layer, given), tolerance)
    for name in ("P", "G"):
        data[name].mul_(1.5)
        assert_alike([layer(**data, cache=cache)], [layer(**data)], tolerance)
    small = {k: v[:2] if k in ("P", "q") else v for k, v in data.items()}
    assert_alike([layer(**small, cache=cache)], [layer(**small)], tolerance)
    bad = {**data, "G": torch.zeros_like(data["G"]), "h": data["h"] - 9.0}
    assert layer(**bad, cache=cache).isnan().all()
    assert_alike([layer(**data, cache=cache)], [layer(**data)], tolerance)


def test_a_handle_saves_the_factorisation(monkeypatch):
    made = []
    real = Factors.of.__func__
    counted = classmethod(lambda cls, *args: made.append(1) or real(cls, *args))
    monkeypatch.setattr(Factors, "of", counted)
    layer, cache, data = QPLayer("dense"), SolverCache(), stacked()
    for factor in (1.0, 2.0, 3.0):
        layer(**{**data, "q": factor * data["q"], "h": factor * data["h"]}, cache=cache)
    assert len(made) == 4
    layer(**{**data, "P": 2 * data["P"]}, cache=cache)
    assert len(made) == 8
    cache.clear()
    layer(**data, cache=cache)
    assert len(made) == 12


def instance(n, p, m, seed):
    """method: P = RRᵀ + 1e-6 I, q, A, G uniform; b and h make a random point feasible."""
    rng = np.random.default_rng([n, seed])
    R, z = rng.random((n, n)), rng.random(n)
    A, G = rng.random((p, n)), rng.random((m, n))
    return {
        "P": R.T @ R + 1e-6 * np.eye(n), "q": rng.random(n),
        "A": A, "b": A @ z, "G": G, "h": G @ z,
    }  # fmt: skip


def layer_gradient(data):
    data = {k: torch.tensor(v).requires_grad_(k == "q") for k, v in data.items()}
    s = QPLayer().solve(**data)
    s.z.sum().backward()
    active = (s.lam > 0).detach().numpy()
    return data["q"].grad.numpy(), active, s.z.detach().numpy()


def assert_accurate(found, exact):
    assert np.linalg.norm(found - exact) <= 1e-6 * np.linalg.norm(exact)
    assert found @ exact >= 0.999999 * np.linalg.norm(found) * np.linalg.norm(exact)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_against_fifty_digits(seed):
    data = instance(10, 5, 5, seed)
    found, active, z = layer_gradient(data)
    C = np.concatenate([data["A"], data["G"][active]])
    n, p = 10, len(C)
    with mpmath.workdps(50):
        K = mpmath.zeros(n + p)
        for i in range(n):
            for j in range(n):
                K[i, j] = mpmath.mpf(float(data["P"][i, j]))
        for i in range(p):
            for j in range(n):
                K[n + i, j] = K[j, n + i] = mpmath.mpf(float(C[i, j]))
        ends = np.concatenate([data["b"], data["h"][active]])
        point = mpmath.lu_solve(K, mpmath.matrix([float(v) for v in (*-data["q"], *ends)]))
        adjoint = mpmath.lu_solve(K, mpmath.matrix([-1.0] * n + [0.0] * p))
    point = np.array([float(v) for v in point])
    # The active set is the right one: the exact point on it meets the KKT conditions.
    assert (point[n + 5 :] > 0).all() and (data["G"] @ point[:n] <= data["h"] + 1e-9).all()
    np.testing.assert_allclose(z, point[:n], rtol=0, atol=1e-8)
    if n > p:
        assert_accurate(found, np.array([float(v) for v in adjoint[:n]]))


@pytest.mark.parametrize(("n", "p", "m"), [(50, 10, 10), (100, 20, 20)])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_against_the_exact_kkt_system(n, p, m, seed):
    data = instance(n, p, m, seed)
    found, active, _ = layer_gradient(data)
    C = np.concatenate([data["A"], data["G"][active]])
    K = np.block([[data["P"], C.T], [C, np.zeros((len(C), len(C)))]]).astype(np.longdouble)
    rhs = np.concatenate([-np.ones(n), np.zeros(len(C))]).astype(np.longdouble)
    factors = linalg.lu_factor(K.astype(float))
    t = np.zeros_like(rhs)
    for _ in range(10):
        t = t + linalg.lu_solve(factors, (rhs - K @ t).astype(float))
    assert np.abs(rhs - K @ t).max() < 1e-12
    assert_accurate(found, t[:n].astype(float))
