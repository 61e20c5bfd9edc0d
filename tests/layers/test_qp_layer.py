"""QPLayer as a module: shapes, broadcasting, dtypes, state, threads and what it refuses."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.layers import qp as qp_module

T, n, p, m = 4, 5, 1, 2


def random_batch(seed=0, batch=(T,), dtype=torch.float64):
    """A batch of feasible QPs with a budget, two rows and a box."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.randn(*batch, *shape, generator=g, dtype=torch.float64)

    X = rand(n, n)
    inside = torch.full((*batch, n), 1 / n, dtype=torch.float64)
    G = rand(m, n)
    out = {
        "P": X @ X.mT + 0.1 * torch.eye(n, dtype=torch.float64),
        "q": 3 * rand(n),
        "A": torch.ones(*batch, p, n, dtype=torch.float64),
        "b": torch.ones(*batch, p, dtype=torch.float64),
        "G": G,
        "h": (G @ inside.unsqueeze(-1)).squeeze(-1) + 0.05,
        "lb": torch.zeros(*batch, n, dtype=torch.float64),
        "ub": torch.full((*batch, n), 0.6, dtype=torch.float64),
    }
    return {k: v.to(dtype) for k, v in out.items()}


def test_public_names_and_settings():
    assert set(bp.available_solvers("qp")) >= {"osqp", "clarabel"}
    layer = bp.QPLayer("clarabel", tolerance=1e-9)
    assert "forward='clarabel', backward='auto', tolerance=1e-09" in repr(layer)
    with pytest.raises(bp.ConfigError, match=r"unknown solver 'oqsp'. Did you mean 'osqp'"):
        bp.QPLayer("oqsp")
    with pytest.raises(bp.ConfigError, match=r"unknown backward solver"):
        bp.QPLayer(backward="inverse")
    with pytest.raises(bp.ConfigError, match=r"tolerance"):
        bp.QPLayer(tolerance=-1.0)
    with pytest.raises(bp.ConfigError, match=r"osqp: unknown key 'rhoo'"):
        bp.QPLayer("osqp", options={"rhoo": 1.0})(**random_batch())
    with pytest.raises(AttributeError, match=r"no_such_name"):
        bp.no_such_name  # noqa: B018
    assert all(getattr(bp, name) is not None for name in bp.__all__)


def test_solution_of_a_batch():
    data = random_batch()
    solution = bp.QPLayer().solve(**data)
    assert solution.z.shape == solution.lam_lb.shape == solution.lam_ub.shape == (T, n)
    assert solution.nu.shape == (T, p) and solution.lam.shape == (T, m)
    assert solution.kkt_norm.shape == solution.iterations.shape == solution.status.shape == (T,)
    assert (solution.status == bp.SolveStatus.SOLVED).all()
    assert solution.solver in {"daqp", "piqp", "clarabel"}
    assert (solution.iterations > 0).all() and (solution.kkt_norm < 1e-8).all()
    stationarity = (data["P"] @ solution.z.unsqueeze(-1)).squeeze(-1) + data["q"]
    stationarity = stationarity + (data["A"].mT @ solution.nu.unsqueeze(-1)).squeeze(-1)
    stationarity = stationarity + (data["G"].mT @ solution.lam.unsqueeze(-1)).squeeze(-1)
    stationarity = stationarity - solution.lam_lb + solution.lam_ub
    torch.testing.assert_close(stationarity, torch.zeros_like(stationarity), rtol=0, atol=1e-9)


def test_one_problem_has_no_batch_dimension():
    data = {k: v[0] for k, v in random_batch().items()}
    solution = bp.QPLayer().solve(**data)
    assert solution.z.shape == (n,) and solution.kkt_norm.shape == ()
    assert solution.status is bp.SolveStatus.SOLVED


def test_two_batch_dimensions_equal_single_calls():
    data = random_batch(batch=(2, 3))
    layer = bp.QPLayer()
    z = layer(**data)
    assert z.shape == (2, 3, n)
    for i in range(2):
        for j in range(3):
            single = layer(**{k: v[i, j] for k, v in data.items()})
            torch.testing.assert_close(z[i, j], single, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shared", ["P", "q", "A", "b", "G", "h", "lb", "ub"])
def test_each_argument_broadcasts_forward_and_backward(shared):
    data = random_batch()
    single = data[shared][0].clone().requires_grad_()
    expanded = single.detach().expand(data[shared].shape).clone().requires_grad_()
    layer, weight = bp.QPLayer(), torch.arange(T * n).reshape(T, n).double()
    grads = []
    for value in (single, expanded):
        z = layer(**{**data, shared: value})
        (weight * z).sum().backward()
        grads.append(value.grad)
    torch.testing.assert_close(grads[0], grads[1].sum(0))


def test_broadcasting_across_different_dimensions():
    data = random_batch()
    q = torch.randn(3, 1, n, generator=torch.Generator().manual_seed(5)).double()
    assert bp.QPLayer()(**{**data, "q": q}).shape == (3, T, n)


def test_an_empty_batch():
    data = {k: v[:0] for k, v in random_batch().items()}
    data["q"].requires_grad_()
    z = bp.QPLayer()(**data)
    assert z.shape == (0, n)
    z.sum().backward()
    assert data["q"].grad.shape == (0, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_inputs(dtype):
    data = {k: v.requires_grad_() for k, v in random_batch(dtype=dtype).items()}
    solution = bp.QPLayer().solve(**data)
    assert solution.z.dtype == solution.nu.dtype == solution.lam_ub.dtype == dtype
    solution.z.square().sum().backward()
    assert all(v.grad.dtype == dtype for v in data.values())
    assert solution.kkt_norm.dtype == torch.float64


def test_mixed_dtypes_are_promoted_and_gradients_keep_their_own():
    data = random_batch(dtype=torch.float32)
    data["q"] = data["q"].double().requires_grad_()
    data["P"].requires_grad_()
    z = bp.QPLayer()(**data)
    assert z.dtype == torch.float64
    z.square().sum().backward()
    assert data["P"].grad.dtype == torch.float32 and data["q"].grad.dtype == torch.float64


def test_no_grad_leaves_no_graph():
    data = random_batch()
    data["q"].requires_grad_()
    with torch.no_grad():
        solution = bp.QPLayer().solve(**data)
    assert solution.z.grad_fn is None and not solution.z.requires_grad


def test_no_adjoint_without_need(monkeypatch):
    calls = []
    real = qp_module.adjoint_stack
    monkeypatch.setattr(
        qp_module, "adjoint_stack", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    data = random_batch()
    bp.QPLayer()(**data)
    assert not calls
    data["q"].requires_grad_()
    z = bp.QPLayer()(**data)
    assert not calls
    z.square().sum().backward()
    assert len(calls) == 1


def test_the_graph_can_be_used_twice_and_an_argument_changed_in_place_is_noticed():
    data = random_batch()
    data["q"].requires_grad_()
    z = bp.QPLayer()(**data)
    (first,) = torch.autograd.grad(z.square().sum(), data["q"], retain_graph=True)
    (second,) = torch.autograd.grad(z.square().sum(), data["q"], retain_graph=True)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    data["P"].add_(1.0)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation"):
        z.square().sum().backward()


def test_second_derivatives():
    data = random_batch()

    def z(q):
        return bp.QPLayer()(**{**data, "q": q})

    q = data["q"].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(z, q, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_inputs_are_not_changed_and_the_layer_keeps_nothing():
    data = random_batch()
    before = {k: v.clone() for k, v in data.items()}
    layer = bp.QPLayer()
    state = dict(vars(layer))
    first = layer(**data)
    layer(**random_batch(seed=1))
    torch.testing.assert_close(layer(**data), first, rtol=0, atol=0)
    assert vars(layer) == state and not list(layer.parameters()) and not layer.state_dict()
    for k, v in data.items():
        torch.testing.assert_close(v, before[k], rtol=0, atol=0)


def test_copies_and_pickles():
    data, layer = random_batch(), bp.QPLayer("clarabel", "osqp")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(**data), layer(**data), rtol=0, atol=0)


def test_several_threads_share_a_layer():
    layer = bp.QPLayer()
    batches = [random_batch(seed) for seed in range(8)]

    def gradient(data):
        q = data["q"].clone().requires_grad_()
        layer(**{**data, "q": q}).square().sum().backward()
        return q.grad

    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(gradient, batches))
    for grad, data in zip(threaded, batches, strict=True):
        torch.testing.assert_close(grad, gradient(data), rtol=0, atol=1e-14)


def test_shapes_are_refused_by_name():
    data = random_batch()
    with pytest.raises(bp.ProblemError, match=r"^lb: expected shape \(..., 5\).*got \(4, 3\)"):
        bp.QPLayer()(**{**data, "lb": torch.zeros(T, 3)})
    with pytest.raises(bp.ProblemError, match=r"^h: missing; give both G and h"):
        bp.QPLayer()(**{**data, "h": None})
    with pytest.raises(bp.ProblemError, match=r"do not broadcast.*q \(3,\)"):
        bp.QPLayer()(**{**data, "q": torch.zeros(3, n)})
    with pytest.raises(bp.ProblemError, match=r"^q: expected a tensor of floating point.*ndarray"):
        bp.QPLayer()(**{**data, "q": np.zeros((T, n))})
    with pytest.raises(bp.ProblemError, match=r"^ub: expected a tensor.*int64"):
        bp.QPLayer()(**{**data, "ub": torch.ones(n, dtype=torch.int64)})
    with pytest.raises(bp.ProblemError, match=r"several devices"):
        bp.QPLayer()(**{**data, "q": torch.zeros(n, device="meta")})
