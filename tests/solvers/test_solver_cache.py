"""A entry: the answers of a solver that keeps something are those of one that keeps nothing."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import bpqp_portfolio as bp
from bpqp_portfolio.problems import QP, SolveStatus
from bpqp_portfolio.problems.matrices import FactorMatrix
from bpqp_portfolio.solvers import SolverOptions, available_solvers, get_solver
from bpqp_portfolio.solvers.common.cache import CacheEntry, SolverCache

EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("qp"))
BACKENDS = [
    name
    for name in ("osqp", "clarabel", "piqp", "proxqp", "daqp", "highs")
    if name in available_solvers("qp")
]
N, FORMS = 20, ("dense", "sparse", "factors", "diagonal", "linear")


def matrices(form, seed=0):
    """P, A and G in one of the forms that a problem takes."""
    rng = np.random.default_rng(seed)
    B = rng.normal(size=(N, 3))
    A, G = np.ones((1, N)), rng.normal(size=(4, N))
    match form:
        case "factors":
            return FactorMatrix(B, 0.5 + rng.random(N)), A, G
        case "diagonal":
            return FactorMatrix(np.zeros((N, 0)), 0.5 + rng.random(N)), A, G
        case "linear":
            return np.zeros((N, N)), A, G
        case "sparse":
            P = sparse.diags_array([0.3, 2.0, 0.3], offsets=[-1, 0, 1], shape=(N, N))
            return sparse.csr_array(P), sparse.csr_array(A), sparse.csr_array(np.round(G))
    return B @ B.T + np.eye(N), A, G


def vectors(seed):
    rng = np.random.default_rng([7, seed])
    return {
        "q": rng.normal(size=N),
        "b": [1.0 + 0.1 * rng.random()],
        "h": 0.5 + rng.random(4),
        "lb": -0.1 * rng.random(N),
        "ub": 0.2 + 0.1 * rng.random(N),
    }


def problem(matrices, vectors):
    P, A, G = matrices
    v = vectors
    return QP(P, v["q"], A, v["b"], G, v["h"], v["lb"], v["ub"])


def assert_same(found, expected, tolerance=1e-8):
    assert found.status is expected.status is SolveStatus.SOLVED
    for field in ("z", "nu", "lam", "lam_lb", "lam_ub"):
        np.testing.assert_allclose(
            getattr(found, field), getattr(expected, field), rtol=0, atol=tolerance, err_msg=field
        )


@EACH_SOLVER
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("polish", [True, False])
def test_a_slot_changes_no_answer(name, form, polish):
    solver, entry, given = get_solver(name), CacheEntry(), matrices(form)
    options = SolverOptions(polish=polish)
    for seed in range(6):
        one = problem(given, vectors(seed))
        found = solver.solve(one, options=options, entry=entry)
        tolerance = 1e-8 if polish else 1e-4
        assert_same(found, solver.solve(one, options=options), tolerance)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_new_vectors_need_no_new_setup(name, form):
    solver, entry, given = get_solver(name), CacheEntry(), matrices(form)
    solver.solve(problem(given, vectors(0)), entry=entry)
    native = entry.state.native
    for seed in range(1, 4):
        # Equal matrices, though other objects.
        assert solver.solve(problem(matrices(form), vectors(seed)), entry=entry).status.usable
        assert entry.state.native is native


@pytest.mark.parametrize("name", ["osqp", "daqp", "proxqp"])
def test_the_last_solution_is_the_start(name):
    if name not in available_solvers("qp"):
        pytest.skip(f"{name} is not installed")
    solver, entry, options = get_solver(name), CacheEntry(), SolverOptions(polish=False)
    one = problem(matrices("dense"), vectors(0))
    cold = solver.solve(one, options=options, entry=entry)
    warm = solver.solve(one, options=options, entry=entry)
    assert warm.iterations < cold.iterations


@EACH_SOLVER
@pytest.mark.parametrize("form", ["dense", "factors"])
def test_other_problems_are_set_up_anew(name, form):
    solver, entry, given = get_solver(name), CacheEntry(), matrices(form)
    P, A, G = given
    v = vectors(0)
    pinned = np.arange(N) == 3
    others = [
        problem(given, v),
        problem((P, A, 2.0 * G), v),
        problem((P, A[:, ::-1] * 1.5, G), v),
        problem(matrices(form, seed=1), v),
        problem(given, {**v, "lb": np.where(pinned, -np.inf, v["lb"])}),
        problem(given, {**v, "lb": np.where(pinned, v["ub"], v["lb"])}),
        problem(given, {**v, "q": 1e6 * v["q"]}),
        problem(given, {**v, "q": 1e-3 * v["q"]}),
        QP(P, v["q"], lb=v["lb"]),
        QP(np.eye(3), np.ones(3), np.ones((1, 3)), [1.0]),
    ]
    for one in others:
        scale = max(1.0, np.abs(one.q).max())
        assert_same(solver.solve(one, entry=entry), solver.solve(one), 1e-8 * scale)


@EACH_SOLVER
def test_a_failure_leaves_the_next_solve_alone(name):
    solver, entry, given = get_solver(name), CacheEntry(), matrices("dense")
    good, v = problem(given, vectors(0)), vectors(1)
    infeasible = problem(given, {**v, "b": [100.0]})
    solver.solve(good, entry=entry)
    assert solver.solve(infeasible, entry=entry).status is SolveStatus.PRIMAL_INFEASIBLE
    assert_same(solver.solve(good, entry=entry), solver.solve(good))
    assert solver.solve(infeasible, entry=entry).status is SolveStatus.PRIMAL_INFEASIBLE


@EACH_SOLVER
def test_other_options_are_obeyed(name):
    solver, entry = get_solver(name), CacheEntry()
    one = problem(matrices("dense"), vectors(0))
    loose = SolverOptions(tolerance=1e-3, polish=False)
    solver.solve(one, options=loose, entry=entry)
    tight = replace(loose, tolerance=1e-10)
    assert solver.solve(one, options=tight, entry=entry).kkt_norm <= 1e-9


@pytest.mark.parametrize("name", BACKENDS)
def test_items_of_a_batch_have_slots_of_their_own(name):
    cache, solver = SolverCache(), get_solver(name)
    for seed in range(2):
        solver.solve(problem(matrices("dense", seed), vectors(seed)), entry=cache.entry(name, seed))
    assert cache.entry(name, 0).state is not cache.entry(name, 1).state
    cache.clear()
    assert cache.entry(name, 0).state is None


class Model(torch.nn.Module):
    """A user's model that keeps a cache."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(N, dtype=torch.float64))
        self.cache = SolverCache()
        self.layer = bp.QPLayer(BACKENDS[0])

    def forward(self, scale=1.0):
        G = torch.eye(N, dtype=torch.float64)
        limit = scale * self.weight
        return self.layer(G, -2.0 * self.weight, G=G, h=limit, cache=self.cache)


@pytest.mark.parametrize("how", ["deepcopy", "copy", "pickle", "save"])
def test_a_model_with_a_used_handle_is_copied_and_saved(how, tmp_path):
    model = Model()
    model().sum().backward()
    assert model.cache.entries
    if how == "save":
        torch.save(model, tmp_path / "model.pt")
        other = torch.load(tmp_path / "model.pt", weights_only=False)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        other = getattr(copy, how)(model)
        if how == "copy":
            other.cache = copy.copy(model.cache)
    assert model.cache.entries and not other.cache.entries
    assert torch.equal(other(0.5), model(0.5)) and other.cache.entries
    assert copy.deepcopy(next(iter(model.cache.entries.values()))).state is None


@pytest.mark.parametrize("name", available_solvers("qp"))
def test_threads_may_share_a_handle(name):
    cache, layer = SolverCache(), bp.QPLayer(name)
    one = problem(matrices("dense"), vectors(0))
    P, A, G, b, ub = (torch.as_tensor(v) for v in (one.P, one.A, one.G, one.b, one.ub))
    q = [torch.as_tensor(vectors(seed)["q"]) for seed in range(8)]
    h = torch.as_tensor(one.h)

    def solve(q, cache=None):
        q = q.clone().requires_grad_()
        z = layer(P, q, A, b, G, h, -ub, ub, cache=cache)
        z.square().sum().backward()
        return z.detach(), q.grad

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda v: solve(v, cache), q * 6))
    for v, (z, gradient) in zip(q * 6, found, strict=True):
        expected = solve(v)
        torch.testing.assert_close(z, expected[0], rtol=0, atol=1e-8)
        torch.testing.assert_close(gradient, expected[1], rtol=0, atol=1e-6)


def test_threads_may_share_a_handle_of_cones():
    cache, layer = SolverCache(), bp.SOCPLayer("clarabel")
    q = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    F = torch.eye(5, dtype=torch.float64)[:3]
    cones = [(F, None, None, 1.0), (None, None, None, 2.0)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: layer(None, q[i % 8], cones=cones, cache=cache), range(40)))
    for i, z in enumerate(found):
        torch.testing.assert_close(z, layer(None, q[i % 8], cones=cones), rtol=0, atol=1e-7)
