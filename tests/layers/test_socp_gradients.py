"""SOCPLayer's gradients: closed forms, gradcheck in every parameter, and degenerate points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio import SecondOrderCone, SOCPLayer, SolveStatus

D = torch.float64
NAMES = ("q", "A", "b", "G", "h", "lb", "ub", "P")


def general(seed: int, *, quadratic: bool = True) -> dict[str, torch.Tensor]:
    """A program with every kind of constraint; "F0", "g0", … are the parts of its cones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=D, generator=generator)

    n, inside = 6, normal(6)
    B = normal(n, n)
    data = {"P": B @ B.T} if quadratic else {}
    for i, r in enumerate((3, n, 4)):
        F = None if r == n else normal(r, n)
        g, c = normal(r), 0.3 * normal(n)
        norm = ((inside if F is None else F @ inside) + g).norm()
        data |= {f"g{i}": g, f"c{i}": c, f"d{i}": norm - c @ inside + 0.2}
        if F is not None:
            data[f"F{i}"] = F
    A, G = normal(1, n), normal(2, n)
    data |= {"q": 3 * normal(n), "A": A, "b": A @ inside, "G": G, "h": G @ inside + 0.1}
    return data | {"lb": inside - 0.6, "ub": inside + 0.5}


def solve(data, layer=None):
    """Every differentiable field of the solution."""
    cones = [tuple(data.get(f"{part}{i}") for part in "Fgcd") for i in range(3)]
    rest = {k: data[k] for k in NAMES if k in data}
    if "P" in rest:
        rest["P"] = 0.5 * (rest["P"] + rest["P"].mT)
    return (layer or SOCPLayer()).solve(cones=cones, **{"P": None, **rest})


def fields(s):
    return (s.z, s.nu, s.lam, s.lam_lb, s.lam_ub, *s.cone_duals)


def test_the_general_programs_bind_in_every_way():
    binding = np.zeros(3, dtype=bool)
    for seed in (0, 1):
        s = solve(general(seed, quadratic=seed > 0))
        binding |= [bool(dual[0] > 0.01) for dual in s.cone_duals]
        assert (s.lam > 0.01).any()
    assert binding.all()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(general(0)))
def test_gradcheck_in_every_parameter(name, seed):
    data = general(seed)
    value = data[name].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: fields(solve({**data, name: v})), (value,), eps=1e-6, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(2, 8))
def test_gradcheck_in_all_parameters_at_once(seed):
    data = general(seed, quadratic=seed % 2 == 0)
    names = sorted(data)
    values = [data[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        lambda *v: fields(solve(dict(zip(names, v, strict=True)))),
        values,
        eps=1e-6,
        atol=1e-6,
        rtol=1e-5,
        fast_mode=True,
    )


@pytest.mark.parametrize("forward", ["clarabel", "scs"])
@pytest.mark.parametrize("backward", ["kkt", "osqp", "clarabel"])
def test_every_pair_of_solvers(forward, backward):
    pytest.importorskip("scs")
    data = {k: v.clone().requires_grad_() for k, v in general(1).items()}
    expected = torch.autograd.grad(solve(data).z.sin().sum(), list(data.values()))
    layer = SOCPLayer(forward, backward)
    found = torch.autograd.grad(solve(data, layer).z.sin().sum(), list(data.values()))
    for name, a, b in zip(data, found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("n", [5, 60])
def test_cosine_and_relative_error_against_finite_differences(n):
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(8, n, dtype=D, generator=generator) / n**0.5
    b = 1 + torch.rand(8, dtype=D, generator=generator)
    q = -(a[:3].sum(0) + 0.1 * torch.randn(n, dtype=D, generator=generator))
    weight = torch.randn(n, dtype=D, generator=generator)
    layer = SOCPLayer()

    def loss(q, a, b):
        cones = [SecondOrderCone(None, None, -row, d) for row, d in zip(a, b, strict=True)]
        return weight @ layer(None, q, cones=cones)

    values = [v.requires_grad_() for v in (q, a, b)]
    found = torch.autograd.grad(loss(*values), values)
    with torch.no_grad():
        step, numeric = 1e-5, []
        for i, value in enumerate(values):
            flat, grads = value.reshape(-1), []
            for j in range(0, flat.numel(), max(1, flat.numel() // 25)):
                move = torch.zeros_like(flat)
                move[j] = step
                pairs = []
                for sign in (1, -1):
                    trial = list(values)
                    trial[i] = (flat + sign * move).reshape(value.shape)
                    pairs.append(loss(*trial))
                grads.append(((pairs[0] - pairs[1]) / (2 * step)).item())
            exact = found[i].reshape(-1)[:: max(1, flat.numel() // 25)]
            numeric.append((torch.tensor(grads, dtype=D), exact))
    left, right = (torch.cat(parts) for parts in zip(*numeric, strict=True))
    assert torch.cosine_similarity(left, right, dim=0) > 1 - 1e-9
    assert (left - right).norm() <= 1e-6 * right.norm()


def test_closed_form_linear_objective_on_a_ball():
    q = torch.tensor([1.0, -2.0, 2.0], dtype=D, requires_grad=True)
    radius = torch.tensor(1.5, dtype=D, requires_grad=True)
    w = torch.tensor([0.3, -1.0, 0.7], dtype=D)
    z = SOCPLayer()(None, q, cones=[(None, None, None, radius)])
    exact = -radius * q / q.norm()
    torch.testing.assert_close(z, exact, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(z @ w, (q, radius)),
        torch.autograd.grad(exact @ w, (q, radius)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [0.5, 2.0])
def test_closed_form_projection_on_a_ball(length):
    point = torch.tensor([2.0, -1.0, 2.0], dtype=D) * length / 3
    point.requires_grad_()
    z = SOCPLayer()(torch.eye(3, dtype=D), -point, cones=[(None, None, None, 1.0)])
    exact = point / point.norm().clamp_min(1.0)
    w = torch.tensor([1.0, 2.0, 3.0], dtype=D)
    torch.testing.assert_close(z, exact, rtol=1e-12, atol=1e-12)
    (found,), (expected,) = (torch.autograd.grad(v @ w, point) for v in (z, exact))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_tracking_error():
    # max μᵀw s.t. 1ᵀw = 1, ‖Lᵀ(w − w₀)‖ ≤ σ: w − w₀ = σ Σ⁻¹m/√(mᵀΣ⁻¹m), m = μ less its Σ⁻¹-mean.
    generator = torch.Generator().manual_seed(0)
    L = torch.randn(5, 5, dtype=D, generator=generator).requires_grad_()
    mu = torch.randn(5, dtype=D, generator=generator).requires_grad_()
    base = torch.full((5,), 0.2, dtype=D)
    sigma = torch.tensor(0.3, dtype=D, requires_grad=True)
    ones = torch.ones(1, 5, dtype=D)
    cone = SecondOrderCone(L.T, -L.T @ base, None, sigma)
    w = SOCPLayer()(None, -mu, cones=[cone], A=ones, b=torch.ones(1, dtype=D))
    inverse = torch.linalg.inv(L @ L.T)
    m = mu - (inverse @ mu).sum() / inverse.sum()
    exact = base + sigma * inverse @ m / (m @ inverse @ m).sqrt()
    torch.testing.assert_close(w, exact, rtol=1e-9, atol=1e-9)
    loss = torch.randn(5, dtype=D, generator=generator)
    inputs = (L, mu, sigma)
    for a, b in zip(
        torch.autograd.grad(w @ loss, inputs),
        torch.autograd.grad(exact @ loss, inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def group_lasso(p, weight, F=None):
    """min ½‖x − p‖² + weight·t s.t. ‖x‖ ≤ t."""
    F = torch.eye(3, 4, dtype=D) if F is None else F
    c = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=D)
    P = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=D))
    q = torch.cat([-p, weight.reshape(1)])
    return SOCPLayer().solve(
        P, q, cones=[(F, torch.zeros(3, dtype=D), c, torch.zeros((), dtype=D))]
    )


def test_at_the_apex_z_stays_and_the_dual_moves():
    p = torch.tensor([0.3, -0.2, 0.1], dtype=D, requires_grad=True)
    weight = torch.tensor(1.0, dtype=D, requires_grad=True)
    s = group_lasso(p, weight)
    assert s.z.detach().abs().max() < 1e-9
    for grad in torch.autograd.grad(
        s.z @ torch.arange(4.0, dtype=D), (p, weight), retain_graph=True
    ):
        assert grad.abs().max() < 1e-9
    # t = weight and w = −p.
    a, b = torch.autograd.grad(s.cone_duals[0] @ torch.arange(1.0, 5.0, dtype=D), (p, weight))
    torch.testing.assert_close(a, -torch.arange(2.0, 5.0, dtype=D), rtol=1e-9, atol=1e-9)
    assert b == pytest.approx(1.0)


def test_gradcheck_at_the_apex_in_the_cone_itself():
    p, weight = torch.tensor([0.3, -0.2, 0.1], dtype=D), torch.tensor(1.0, dtype=D)
    n = 4
    parts = [
        torch.eye(3, n, dtype=D),
        torch.zeros(3, dtype=D),
        torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=D),
        torch.zeros((), dtype=D),
    ]
    P = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=D))
    q = torch.cat([-p, weight.reshape(1)])
    layer = SOCPLayer()

    def run(*cone):
        s = layer.solve(P, q, cones=[cone])
        return s.z, s.cone_duals[0]

    values = [v.requires_grad_() for v in parts]
    assert torch.autograd.gradcheck(run, values, eps=1e-6, atol=1e-6)


def test_an_inactive_cone_has_no_gradient():
    p = torch.tensor([0.3, 0.4], dtype=D, requires_grad=True)
    parts = [torch.eye(2, dtype=D), torch.zeros(2, dtype=D), torch.zeros(2, dtype=D)]
    parts = [v.requires_grad_() for v in (*parts, torch.ones((), dtype=D))]
    z = SOCPLayer()(torch.eye(2, dtype=D), -p, cones=[tuple(parts)])
    (z * torch.tensor([1.0, 2.0], dtype=D)).sum().backward()
    assert p.grad.tolist() == pytest.approx([1.0, 2.0])
    assert all((v.grad == 0).all() for v in parts)


def test_a_weakly_active_cone_is_differentiated_as_inactive():
    # The minimiser (0.6, 0.8) is on the sphere by itself: slack and dual are zero.
    p = torch.tensor([0.6, 0.8], dtype=D, requires_grad=True)
    radius = torch.ones((), dtype=D, requires_grad=True)
    s = SOCPLayer().solve(torch.eye(2, dtype=D), -p, cones=[(None, None, None, radius)])
    assert s.status is SolveStatus.SOLVED
    (s.z @ torch.tensor([1.0, 2.0], dtype=D)).backward()
    torch.testing.assert_close(p.grad, torch.tensor([1.0, 2.0], dtype=D), rtol=0, atol=1e-6)
    assert radius.grad == 0


@pytest.mark.parametrize("radius", [0.0, 1e-12, 1.0])
def test_gradients_are_never_nan(radius):
    q = torch.tensor([1.0, 1.0, 0.0], dtype=D, requires_grad=True)
    d = torch.tensor(radius, dtype=D, requires_grad=True)
    # The same cone twice, an equality that is implied, and bounds that touch the sphere.
    cones = [(None, None, None, d), (torch.eye(3, dtype=D), None, None, d)]
    s = SOCPLayer(on_failure="nan").solve(
        None,
        q,
        cones=cones,
        A=torch.zeros(1, 3, dtype=D),
        b=torch.zeros(1, dtype=D),
        lb=-d.detach() * torch.ones(3, dtype=D),
    )
    total = s.z.sum() + sum(dual.sum() for dual in s.cone_duals)
    for grad in torch.autograd.grad(total, (q, d)):
        assert grad.isfinite().all()


def test_cones_that_share_a_norm_have_the_gradients_of_separate_ones():
    generator = torch.Generator().manual_seed(3)
    n = 5
    q = torch.randn(n, dtype=D, generator=generator)
    rows = 0.3 * torch.randn(3, n, dtype=D, generator=generator)
    d = torch.tensor([1.0, 1.1, 0.9], dtype=D)
    F = torch.eye(n, dtype=D) + 0.1 * torch.randn(n, n, dtype=D, generator=generator)
    # A factor of 1 + 1e-16·k is none; 1 and 2 as factors of the whole cone make them different.
    grads, points = [], []
    for factors in ((1.0, 1.0, 1.0), (1.0, 2.0, 3.0)):
        own = [F.clone().requires_grad_() for _ in range(3)]
        ds = d.clone().requires_grad_()
        cones = [(f * own[i], None, f * rows[i], f * ds[i]) for i, f in enumerate(factors)]
        z = SOCPLayer()(None, q, cones=cones)
        points.append(z.detach())
        grads.append(torch.autograd.grad(z.square().sum(), (*own, ds)))
    torch.testing.assert_close(*points, rtol=1e-9, atol=1e-9)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
