"""ConvexLayer: closed forms, gradcheck, QPLayer's gradients, batches, dtypes and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from bpqp_portfolio import ConvexLayer, QPLayer, SolveStatus
from bpqp_portfolio.solvers.registry import available_solvers

F64 = torch.float64
# trust-constr steps outside the domain of a logarithm.
IN_DOMAIN = ("sqp", "slsqp")


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def budget(z, *_):
    return (z.sum() - 1).reshape(1)


def entropy(z, c, t):
    return c @ z + t * torch.special.xlogy(z, z).sum()


def logistic(w, X, y, decay):
    return torch.nn.functional.softplus(-y * (X @ w)).sum() + 0.5 * decay * w @ w


def distance(z, c, *_):
    return 0.5 * (z - c) @ (z - c)


def ball(z, c, radius):
    return (z @ z - radius**2).reshape(1)


@pytest.mark.parametrize("forward", IN_DOMAIN)
def test_entropy_on_the_simplex_is_softmax(forward):
    c = rand(6).requires_grad_()
    t = torch.tensor(0.7, dtype=F64, requires_grad=True)
    layer = ConvexLayer(entropy, budget, forward=forward)
    z = layer(torch.full((6,), 1 / 6, dtype=F64), c, t)
    expected = torch.softmax(-c / t, 0)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-12)
    for r in torch.eye(6, dtype=F64):
        found = torch.autograd.grad(z, (c, t), r, retain_graph=True)
        exact = torch.autograd.grad(expected, (c, t), r, retain_graph=True)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("forward", available_solvers("smooth"))
def test_projection_on_a_ball(forward):
    """z = r c/‖c‖ outside, with λ = (‖c‖/r − 1)/2; the identity inside."""
    layer = ConvexLayer(distance, None, ball, forward=forward)
    start = torch.zeros(4, dtype=F64)
    radius = torch.tensor(0.8, dtype=F64, requires_grad=True)
    c = rand(4).requires_grad_()
    s = layer.solve(start, c, radius)
    expected = radius * c / c.norm(), ((c.norm() / radius - 1) / 2).reshape(1)
    torch.testing.assert_close((s.z, s.lam), expected, rtol=0, atol=1e-10)
    found = torch.autograd.grad((s.z @ rand(4, seed=1) + s.lam.sum()), (c, radius))
    exact = torch.autograd.grad(expected[0] @ rand(4, seed=1) + expected[1].sum(), (c, radius))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)

    inside = torch.full((4,), 0.1, dtype=F64, requires_grad=True)
    s = layer.solve(start, inside, radius)
    torch.testing.assert_close(s.z, inside, rtol=0, atol=1e-10)
    assert s.lam.item() == 0
    found = torch.autograd.grad(s.z.sum(), (inside, radius))
    torch.testing.assert_close(found, (torch.ones(4, dtype=F64), radius * 0))


@pytest.mark.parametrize("forward", available_solvers("smooth"))
def test_logistic_regression_against_the_implicit_function_theorem(forward):
    X, y = rand(30, 4), torch.sign(rand(30, seed=1))
    decay = torch.tensor(0.5, dtype=F64, requires_grad=True)
    w = ConvexLayer(logistic, forward=forward)(torch.zeros(4, dtype=F64), X, y, decay)
    (found,) = torch.autograd.grad(w.sum(), decay)
    w = w.detach().requires_grad_()
    (slope,) = torch.autograd.grad(logistic(w, X, y, decay), w, create_graph=True)
    assert slope.abs().max() < 1e-9
    H = torch.autograd.functional.hessian(lambda v: logistic(v, X, y, decay.detach()), w.detach())
    torch.testing.assert_close(found, -torch.linalg.solve(H, w.detach()).sum(), rtol=1e-9, atol=0)


def qp_data(seed=27):
    """n = 6, two equalities, eight inequalities of which some are active."""
    n = 6
    X, A, G, inside = (rand(n, n, seed=seed), rand(2, n, seed=1), rand(8, n, seed=2), rand(n) / 3)
    P = X @ X.mT + 0.5 * torch.eye(n, dtype=F64)
    room = torch.tensor([0.01, 0.1, 5.0, 0.3, 0.02, 2.0, 0.5, 1.0], dtype=F64)
    data = (P, 3 * rand(n, seed=3), A, A @ inside, G, G @ inside + room)
    return tuple(v.clone().requires_grad_() for v in data)


QP = (
    lambda z, P, q, *_: 0.5 * z @ P @ z + q @ z,
    lambda z, P, q, A, b, *_: A @ z - b,
    lambda z, P, q, A, b, G, h: G @ z - h,
)


@pytest.mark.parametrize("backward", ["kkt", "osqp", "clarabel"])
@pytest.mark.parametrize("forward", available_solvers("smooth"))
def test_a_qp_has_qplayers_solution_and_gradients(forward, backward):
    data = qp_data()
    s = ConvexLayer(*QP, forward=forward, backward=backward).solve(torch.zeros(6, dtype=F64), *data)
    e = QPLayer("clarabel").solve(*data)
    assert (s.lam > 1e-2).any() and (s.lam == 0).any()
    torch.testing.assert_close((s.z, s.nu, s.lam), (e.z, e.nu, e.lam), rtol=1e-9, atol=1e-9)
    weights = [rand(k, seed=k) for k in (6, 2, 8)]
    found, exact = (
        torch.autograd.grad(
            sum(w @ v for w, v in zip(weights, (p.z, p.nu, p.lam), strict=True)), data
        )
        for p in (s, e)
    )
    tolerance = 1e-8 if backward == "kkt" else 1e-5
    for i, (f, g) in enumerate(zip(found, exact, strict=True)):
        f = 0.5 * (f + f.mT) if i == 0 else f  # QPLayer's gradient in P is symmetric
        torch.testing.assert_close(f, g, rtol=tolerance, atol=tolerance)


def test_gradcheck_with_curved_constraints_and_duals():
    def objective(z, c, w, s):
        return distance(z, c) + torch.logsumexp(w @ z, 0)

    def inequalities(z, c, w, s):
        return torch.stack([z @ (w.mT @ w) @ z - s, torch.exp(z[0]) + z[1] - 2 * s, -z[4] - s])

    def equalities(z, c, w, s):
        return (z[3] ** 3 + z[3] - s * z[4]).reshape(1)

    layer = ConvexLayer(objective, equalities, inequalities)
    data = (2 * rand(5), rand(3, 5, seed=1), torch.tensor(0.6, dtype=F64))
    data = tuple(v.requires_grad_() for v in data)
    start = torch.full((5,), 0.1, dtype=F64)
    s = layer.solve(start, *data)
    assert (s.lam > 1e-2).sum() >= 1 and (s.lam == 0).sum() >= 1

    def fields(*data):
        s = layer.solve(start, *data)
        return s.z, s.nu, s.lam

    assert gradcheck(fields, data, eps=1e-6, atol=1e-5, rtol=1e-5)


def test_a_batch_is_its_items():
    layer = ConvexLayer(distance, budget, ball, batched=(True, False))
    start = torch.zeros(2, 3, 4, dtype=F64)
    c, radius = rand(2, 3, 4).requires_grad_(), torch.tensor(0.7, dtype=F64, requires_grad=True)
    r = rand(2, 3, 4, seed=1)
    s = layer.solve(start, c, radius)
    assert s.z.shape == (2, 3, 4) and s.nu.shape == (2, 3, 1) and s.kkt_norm.shape == (2, 3)
    assert (s.status == SolveStatus.SOLVED).all()
    found = torch.autograd.grad(s.z, (c, radius), r)
    one = ConvexLayer(distance, budget, ball)
    total = torch.zeros((), dtype=F64)
    for i in np.ndindex(2, 3):
        z = one(start[i], c[i], radius)
        torch.testing.assert_close(z, s.z[i])
        own = torch.autograd.grad(z, (c, radius), r[i])
        torch.testing.assert_close(own[0][i], found[0][i])
        total += own[1]
    torch.testing.assert_close(total, found[1])


def test_gradients_of_a_batch_that_is_not_contiguous():
    layer = ConvexLayer(distance, budget, batched=(True,))
    c = rand(4, 3).requires_grad_()
    z = layer(torch.zeros(3, 4, dtype=F64), c.mT)
    r = rand(3, 4, seed=1)
    (found,) = torch.autograd.grad(z, c, r)
    torch.testing.assert_close(found, (r - r.mean(1, keepdim=True)).mT)


def test_float32_in_float32_out():
    layer = ConvexLayer(distance, budget, ball)
    c = rand(4).float().requires_grad_()
    radius = torch.tensor(0.7, requires_grad=True)
    s = layer.solve(torch.zeros(4), c, radius)
    assert s.z.dtype == s.lam.dtype == torch.float32 and s.kkt_norm.dtype == F64
    assert s.kkt_norm < 1e-8
    found = torch.autograd.grad(s.z[0], (c, radius))
    c, radius = (v.detach().double().requires_grad_() for v in (c, radius))
    z = layer(torch.zeros(4, dtype=F64), c, radius)
    exact = torch.autograd.grad(z[0], (c, radius))
    assert [g.dtype for g in found] == [torch.float32] * 2
    torch.testing.assert_close([g.double() for g in found], list(exact), rtol=1e-6, atol=1e-6)


def test_integer_parameters_pass_through():
    def objective(z, c, index):
        return distance(z, c[index])

    c = rand(6).requires_grad_()
    index = torch.tensor([4, 1])
    z = ConvexLayer(objective)(torch.zeros(2, dtype=F64), c, index)
    torch.testing.assert_close(z, c[index])
    (found,) = torch.autograd.grad(z.sum(), c)
    assert found.tolist() == [0, 1, 0, 0, 1, 0]


def test_no_grad_and_a_second_backward():
    layer, start = ConvexLayer(distance, budget), torch.zeros(4, dtype=F64)
    c = rand(4).requires_grad_()
    with torch.no_grad():
        assert not layer(start, c).requires_grad
    z = layer(start, c)
    first = torch.autograd.grad(z[0], c, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(z[0], c), first)


def test_threads_agree_with_one():
    layer, start = ConvexLayer(distance, budget, ball), torch.zeros(5, dtype=F64)
    radius = torch.tensor(0.7, dtype=F64)

    def job(seed):
        c = rand(5, seed=seed).requires_grad_()
        z = layer(start, c, radius)
        return z.detach(), torch.autograd.grad(z[0], c)[0]

    alone = [job(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(job, range(12)))
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
