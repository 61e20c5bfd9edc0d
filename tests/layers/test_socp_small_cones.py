"""Cones that are small beside z, and norms near their kink: points and gradients in closed form."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from bpqp_portfolio import SOCPLayer, SolveStatus, from_cvxpy
from bpqp_portfolio.solvers.registry import available_solvers

D = torch.float64
EACH_SOLVER = pytest.mark.parametrize("name", available_solvers("cone"))
WEIGHT = torch.tensor([0.3, -1.0, 0.7], dtype=D)
POINT = torch.tensor([0.3, 0.2, 0.1], dtype=D)
FORCE = torch.tensor([1.0, 2.0, -2.0], dtype=D)
# On both sides of the kink, relative to λ.
BESIDE = [s * 10.0**-k for s in (1, -1) for k in (0.3, 1, 2, 4, 6, 8)]


def leaves(*values):
    return [torch.as_tensor(v, dtype=D).clone().requires_grad_() for v in values]


def assert_near(found, expected, rtol=1e-6, atol=0.0):
    size = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0.0, atol=rtol * size + atol)


@EACH_SOLVER
@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize("power", np.arange(0.0, 12.5, 0.5))
def test_a_ball_of_any_radius(name, matrix, power):
    # min qᵀz, ‖z − a‖ ≤ r: z = a − r q/‖q‖.
    q, r, a = leaves(FORCE, 10.0**-power, POINT)
    F = torch.eye(3, dtype=D) if matrix else None
    s = SOCPLayer(name).solve(None, q, cones=[(F, -a, None, r)])
    exact = a - r * q / q.norm()
    assert s.status is SolveStatus.SOLVED
    torch.testing.assert_close(s.z, exact, rtol=0, atol=1e-15)
    for found, expected in zip(
        torch.autograd.grad(s.z @ WEIGHT, (q, r, a)),
        torch.autograd.grad(exact @ WEIGHT, (q, r, a)),
        strict=True,
    ):
        assert_near(found, expected)


@EACH_SOLVER
@pytest.mark.parametrize("power", [0, 2, 4, 6, 8, 10])
def test_a_ball_of_any_radius_in_cvxpy(name, power):
    z, q, r = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(q @ z), [cp.norm(z - POINT.numpy()) <= r])
    layer = from_cvxpy(problem, [q, r], [z], name)
    own = leaves(FORCE, 10.0**-power)
    (found,) = layer(*own)
    exact = POINT - own[1] * own[0] / own[0].norm()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-15)
    for a, b in zip(
        torch.autograd.grad(found @ WEIGHT, own),
        torch.autograd.grad(exact @ WEIGHT, own),
        strict=True,
    ):
        assert_near(a, b)


def soft_threshold(p, weight):
    """The minimiser of ½‖x − p‖² + λ‖x‖."""
    return p * (1 - weight / p.norm()).clamp_min(0.0)


def near_the_kink(size, beside):
    direction = torch.tensor([1.0, 2.0, 2.0], dtype=D) / 3
    return leaves(size * direction, size * (1.0 - beside))


@EACH_SOLVER
@pytest.mark.parametrize("size", [1e-8, 9e-6, 1.0, 1e6])
@pytest.mark.parametrize("beside", BESIDE)
def test_the_proximal_map_of_a_norm_around_its_kink(name, size, beside):
    p, weight = near_the_kink(size, beside)
    c = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=D)
    P = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=D))
    cone = (torch.eye(3, 4, dtype=D), None, c, 0.0)
    s = SOCPLayer(name).solve(P, torch.cat([-p, weight.reshape(1)]), cones=[cone])
    exact = soft_threshold(p, weight)
    torch.testing.assert_close(s.z[:3], exact, rtol=1e-7, atol=1e-15 * size)
    for a, b in zip(
        torch.autograd.grad(s.z[:3] @ WEIGHT, (p, weight)),
        torch.autograd.grad(exact @ WEIGHT, (p, weight)),
        strict=True,
    ):
        assert_near(a, b, atol=1e-9)


@EACH_SOLVER
@pytest.mark.parametrize("size", [9e-6, 1.0])
@pytest.mark.parametrize("beside", [0.5, 1e-4, -1e-4, -0.5])
def test_the_proximal_map_in_cvxpy(name, size, beside):
    x, p, weight = cp.Variable(3), cp.Parameter(3), cp.Parameter(nonneg=True)
    cost = 0.5 * cp.sum_squares(x - p) + weight * cp.norm(x)
    layer = from_cvxpy(cp.Problem(cp.Minimize(cost)), [p, weight], [x], name)
    own = near_the_kink(size, beside)
    (found,), exact = layer(*own), soft_threshold(*own)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-14 * size)
    for a, b in zip(
        torch.autograd.grad(found @ WEIGHT, own),
        torch.autograd.grad(exact @ WEIGHT, own),
        strict=True,
    ):
        assert_near(a, b, atol=1e-8)


@EACH_SOLVER
@pytest.mark.parametrize("seed", range(12))
def test_norms_of_different_sizes_in_one_program(name, seed):
    # A sum of proximal problems; the smallest is 10⁻⁴ of the largest.
    rng = np.random.default_rng(seed)
    count = 3
    sizes = 10.0 ** np.array([0.0, *rng.uniform(-4, 0, count - 1)])
    beside = rng.choice([-1, 1], count) * 10.0 ** rng.uniform(-3, -0.3, count)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    p, weights = leaves(sizes[:, None] * directions, sizes * (1.0 - beside))
    n, cones = 4 * count, []
    for i in range(count):
        F, c = torch.zeros(3, n, dtype=D), torch.zeros(n, dtype=D)
        F[:, 3 * i : 3 * i + 3], c[3 * count + i] = torch.eye(3), 1.0
        cones.append((F, None, c, 0.0))
    P = torch.cat([torch.ones(3 * count), torch.zeros(count)]).to(D)
    s = SOCPLayer(name).solve(P, torch.cat([-p.reshape(-1), weights]), cones=cones)
    found = s.z[: 3 * count].reshape(count, 3)
    exact = torch.stack([soft_threshold(*own) for own in zip(p, weights, strict=True)])
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-13)
    loss = torch.tensor(rng.normal(size=(count, 3)), dtype=D)
    for a, b in zip(
        torch.autograd.grad((found * loss).sum(), (p, weights)),
        torch.autograd.grad((exact * loss).sum(), (p, weights)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in available_solvers("cone") if n != "scs"])
@pytest.mark.parametrize("power", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_tracking_error_among_other_constraints(name, power, seed):
    # min qᵀw, 1ᵀw = 1, ‖Lᵀ(w − w₀)‖ ≤ σ: w − w₀ = −σ Σ⁻¹m/√(mᵀΣ⁻¹m), m = q less its Σ⁻¹-mean.
    rng = np.random.default_rng(seed)
    n = 4
    L, base = torch.tensor(rng.normal(size=(n, n)), dtype=D), torch.full((n,), 0.25, dtype=D)
    q, sigma = leaves(rng.normal(size=n), 10.0**-power)
    G = torch.tensor(rng.normal(size=(2, n)), dtype=D)
    s = SOCPLayer(name).solve(
        torch.zeros(n, n, dtype=D),
        q,
        cones=[(L.T, -L.T @ base, None, sigma)],
        A=torch.ones(1, n, dtype=D),
        b=torch.ones(1, dtype=D),
        G=G,
        h=G @ base + 1.0,
        lb=torch.full((n,), -5.0, dtype=D),
    )
    inverse = torch.linalg.inv(L @ L.T)
    m = q - (inverse @ q).sum() / inverse.sum()
    exact = base - sigma * inverse @ m / (m @ inverse @ m).sqrt()
    torch.testing.assert_close(s.z, exact, rtol=0, atol=1e-13)
    loss = torch.arange(1.0, n + 1, dtype=D)
    # The rounding of z is not small beside σ: it is 10⁻⁴ of the smallest.
    for a, b in zip(
        torch.autograd.grad(s.z @ loss, (q, sigma)),
        torch.autograd.grad(exact @ loss, (q, sigma)),
        strict=True,
    ):
        assert_near(a, b, rtol=max(1e-8, 1e-14 / 10.0**-power))


def test_a_cone_of_size_zero_stays_at_its_apex():
    q, r = leaves(FORCE, 0.0)
    s = SOCPLayer("clarabel").solve(None, q, cones=[(None, -POINT, None, r)])
    torch.testing.assert_close(s.z, POINT, rtol=0, atol=1e-15)
    in_q, _ = torch.autograd.grad(s.z @ WEIGHT, (q, r))
    assert (in_q.abs() <= 1e-12).all()
