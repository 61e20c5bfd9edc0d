"""QPLayer's gradients: closed forms, gradcheck in every parameter, and degenerate points."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.autograd import gradcheck

import bpqp_portfolio as bp
from bpqp_portfolio.problems import reference_problems
from bpqp_portfolio.problems.qp import ARGUMENTS

SOLVERS = bp.available_solvers("qp")
PAIRS = list(itertools.product(SOLVERS, ("kkt", *SOLVERS)))
REFERENCES = reference_problems()


def tensors(problem):
    """A reference problem's arguments; absent constraints have zero rows, absent bounds are inf."""
    return {k: torch.tensor(getattr(problem, k)).requires_grad_() for k in ARGUMENTS}


def general(seed=27):
    """n = 6 with two equalities, three rows and a box; every kind of constraint is active."""
    g = torch.Generator().manual_seed(seed)
    n = 6

    def rand(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    X, A, G, inside = rand(n, n), rand(2, n), rand(3, n), 0.3 * rand(n)
    return {
        "P": X @ X.mT + 0.5 * torch.eye(n, dtype=torch.float64),
        "q": 3 * rand(n),
        "A": A,
        "b": A @ inside,
        "G": G,
        "h": G @ inside + torch.tensor([0.01, 0.1, 5.0], dtype=torch.float64),
        "lb": inside - 0.5,
        "ub": inside + torch.tensor([0.05, 0.5, 0.5, 0.5, 0.5, 5.0], dtype=torch.float64),
    }


def test_the_general_problem_has_every_kind_of_constraint():
    s = bp.QPLayer().solve(**general())
    for dual in (s.lam, s.lam_lb, s.lam_ub):
        assert (dual > 1e-1).any() and (dual == 0).any()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_gradcheck_in_every_parameter(name):
    layer, data = bp.QPLayer(), general()

    def fields(value):
        if name == "P":
            value = 0.5 * (value + value.mT)
        s = layer.solve(**{**data, name: value})
        return s.z, s.nu, s.lam, s.lam_lb, s.lam_ub

    assert gradcheck(fields, data[name].clone().requires_grad_(), eps=1e-6, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_gradcheck_for_every_pair(forward, backward):
    """Along random directions, in all parameters at once."""
    layer = bp.QPLayer(forward, backward, tolerance=1e-10)

    def fields(P, *rest):
        s = layer.solve(0.5 * (P + P.mT), *rest)
        return s.z, s.nu, s.lam, s.lam_lb, s.lam_ub

    inputs = tuple(v.requires_grad_() for v in general().values())
    assert gradcheck(fields, inputs, eps=1e-5, atol=1e-5, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("seed", range(1, 6))
def test_gradcheck_on_other_problems_in_all_parameters_at_once(seed):
    data, layer = general(seed), bp.QPLayer()
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)).double()

    def loss(P, *rest):
        s = layer.solve(0.5 * (P + P.mT), *rest)
        value = weights[0] @ s.z.sin() + weights[1, :2] @ s.nu + weights[1, 2:5] @ s.lam
        return value + weights[2] @ s.lam_lb + weights[3] @ s.lam_ub

    inputs = tuple(v.requires_grad_() for v in data.values())
    assert gradcheck(loss, inputs, eps=1e-6, atol=1e-5, rtol=1e-5)


def test_gradients_of_a_batch_with_shared_parameters():
    data = general()
    q = data["q"] + 0.1 * torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).double()
    layer = bp.QPLayer()

    def z(P, q, A, ub):
        return layer(0.5 * (P + P.mT), q, A, data["b"], data["G"], data["h"], data["lb"], ub)

    inputs = (data["P"], q, data["A"], data["ub"])
    assert gradcheck(z, tuple(v.requires_grad_() for v in inputs), eps=1e-6, atol=1e-5)


def test_gradient_in_P_is_symmetric():
    data = general()
    data["P"].requires_grad_()
    bp.QPLayer()(**data).sum().backward()
    torch.testing.assert_close(data["P"].grad, data["P"].grad.mT, rtol=0, atol=1e-15)


def test_closed_form_unconstrained():
    data = general()
    P, q = data["P"].requires_grad_(), data["q"].requires_grad_()
    z = bp.QPLayer()(P, q)
    torch.testing.assert_close(z, -torch.linalg.solve(P, q))
    z[0].backward()
    torch.testing.assert_close(q.grad, -torch.linalg.inv(P)[0].detach())


def test_closed_form_projection_on_the_simplex():
    """On the support S of size s, z = y_S − (Σ y_S − 1)/s, so dz/dy = I − 11ᵀ/s there, else 0."""
    y = torch.tensor([0.9, 0.4, -0.3], dtype=torch.float64)
    b = torch.ones(1, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 3, dtype=torch.float64)

    def z(y):
        return bp.QPLayer()(torch.eye(3).double(), -y, one, b, lb=torch.zeros(3).double())

    expected = torch.tensor([[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.functional.jacobian(z, y), expected)
    z(y)[0].backward()
    torch.testing.assert_close(b.grad, torch.tensor([0.5], dtype=torch.float64))


def test_closed_form_box():
    """z = clip(y, lb, ub): each coordinate passes its gradient to whichever of the three it is."""
    y = torch.tensor([-3.0, 0.2, 4.0], dtype=torch.float64, requires_grad=True)
    lb = torch.full((3,), -1.0, dtype=torch.float64, requires_grad=True)
    ub = torch.full((3,), 1.0, dtype=torch.float64, requires_grad=True)
    z = bp.QPLayer()(torch.eye(3).double(), -y, lb=lb, ub=ub)
    (z * torch.tensor([2.0, 3.0, 5.0])).sum().backward()
    assert lb.grad.tolist() == [2.0, 0.0, 0.0]
    assert y.grad.tolist() == pytest.approx([0.0, 3.0, 0.0])
    assert ub.grad.tolist() == [0.0, 0.0, 5.0]


def test_closed_form_duals_of_a_budget():
    """min ½‖z‖² s.t. 1ᵀz = b: ν = −b/n."""
    b = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    P, q = torch.eye(4).double(), torch.zeros(4).double()
    nu = bp.QPLayer().solve(P, q, torch.ones(1, 4).double(), b).nu
    assert nu.item() == pytest.approx(-0.5)
    nu.backward()
    assert b.grad.item() == pytest.approx(-0.25)


def test_equal_bounds_move_their_coordinate():
    v = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    z = bp.QPLayer()(torch.eye(2).double(), torch.tensor([1.0, -1.0]).double(), lb=v, ub=v)
    (z * torch.tensor([2.0, 3.0])).sum().backward()
    assert v.grad.tolist() == [2.0, 3.0]


def test_padded_coordinates_change_nothing():
    """A coordinate that is fixed at zero, with zero rows in P, is as good as absent."""
    data = {k: v for k, v in general().items() if k not in ("G", "h")}
    small, q = bp.QPLayer(), data["q"].clone().requires_grad_()
    z = small(**{**data, "q": q})
    z.square().sum().backward()
    pad = {k: torch.nn.functional.pad(v, (0, 2)) for k, v in data.items() if k not in ("P", "b")}
    pad["A"][:, 6:] = 1.0
    padded_q = pad["q"].clone().requires_grad_()
    P = torch.nn.functional.pad(data["P"], (0, 2, 0, 2))
    padded = small(**{**pad, "P": P, "b": data["b"], "q": padded_q})
    padded.square().sum().backward()
    torch.testing.assert_close(padded[:6], z, rtol=0, atol=1e-12)
    assert (padded[6:] == 0).all() and (padded_q.grad[6:] == 0).all()
    torch.testing.assert_close(padded_q.grad[:6], q.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: r.name)
def test_gradients_are_finite_and_alike_where_the_problem_is_degenerate(
    forward, backward, reference
):
    """Loss in z and in all duals, so that redundant rows meet contradictory right-hand sides."""
    grads = []
    for chosen in (backward, "kkt"):
        data = tensors(reference.problem)
        s = bp.QPLayer(forward, chosen).solve(**data)
        weight = torch.arange(1.0, 1.0 + len(s.z), dtype=torch.float64)
        loss = weight @ s.z + s.nu.sum() + (s.lam_lb + s.lam_ub).sum()
        loss = loss + (s.lam * torch.arange(1.0, 1.0 + len(s.lam), dtype=torch.float64)).sum()
        loss.backward()
        grads.append([v.grad for v in data.values()])
        assert all(g.isfinite().all() for g in grads[-1])
    for one, other in zip(*grads, strict=True):
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("backward", ("kkt", *SOLVERS))
def test_no_free_coordinate_has_zero_gradient_in_q(backward):
    q = torch.tensor([-9.0, 9.0], dtype=torch.float64, requires_grad=True)
    one = torch.ones(2, dtype=torch.float64)
    bp.QPLayer(backward=backward)(torch.eye(2).double(), q, lb=-one, ub=one).sum().backward()
    assert q.grad.tolist() == [0.0, 0.0]


def test_redundant_rows_leave_the_gradient_of_one_row():
    grads = []
    for rows in (1, 3):
        q = torch.tensor([-2.0, -3.0], dtype=torch.float64, requires_grad=True)
        G = torch.ones(rows, 2, dtype=torch.float64)
        h = torch.full((rows,), 2.0, dtype=torch.float64, requires_grad=True)
        z = bp.QPLayer()(torch.eye(2).double(), q, G=G, h=h)
        (z[0] ** 2).backward()
        grads.append((q.grad, h.grad.sum()))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backward", ("kkt", *SOLVERS))
def test_a_flat_direction_of_the_objective_has_no_gradient(backward):
    """z₂ is undetermined: neither P nor a constraint holds it."""
    q = torch.tensor([-1.0, 0.0], dtype=torch.float64, requires_grad=True)
    P = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    z = bp.QPLayer("clarabel", backward)(P, q)
    (2 * z[0] + 3 * z[1]).backward()
    assert q.grad.tolist() == pytest.approx([-2.0, 0.0], abs=1e-6)


def test_tiny_and_huge_losses_have_proportional_gradients():
    data = general()
    layers = {b: bp.QPLayer(backward=b) for b in ("kkt", *SOLVERS)}
    for layer in layers.values():
        grads = []
        for factor in (1e-12, 1.0, 1e12):
            q = data["q"].clone().requires_grad_()
            (factor * layer(**{**data, "q": q}).sum()).backward()
            grads.append(q.grad / factor)
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(grads[2], grads[1], rtol=1e-9, atol=1e-12)
