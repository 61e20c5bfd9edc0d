"""QPLayer(smoothing=κ): the gradient is that of the relaxed point, and κ → 0 recovers the exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bpqp_portfolio as bp
from bpqp_portfolio.problems.qp import ARGUMENTS

FIELDS = ("z", "nu", "lam", "lam_lb", "lam_ub")
N = 6


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def general(seed=27):
    """Two equalities, three rows and a box with an interior; every kind of constraint is active."""
    rng = np.random.default_rng(seed)
    X, A, G = rng.normal(size=(N, N)), rng.normal(size=(2, N)), rng.normal(size=(3, N))
    inside = 0.3 * rng.normal(size=N)
    data = {
        "P": X @ X.T + 0.5 * np.eye(N),
        "q": 3 * rng.normal(size=N),
        "A": A,
        "b": A @ inside,
        "G": G,
        "h": G @ inside + np.array([0.01, 0.1, 5.0]),
        "lb": inside - 0.5,
        "ub": inside + np.array([0.05, 0.5, 0.5, 0.5, 0.5, np.inf]),
    }
    return {k: torch.tensor(v) for k, v in data.items()}


def relaxed(data, kappa):
    """The relaxed primal-dual point, by Newton's method on the barrier problem: other equations
    than the package's (no slacks, no duals), from another start (the deepest point of the set)."""
    P, q, A, b, G, h, lb, ub = (data[k].detach().numpy() for k in ARGUMENTS)
    n, p, m = len(q), len(b), len(h)
    C, end = np.concatenate([G, -np.eye(n), np.eye(n)]), np.concatenate([h, -lb, ub])
    finite = np.isfinite(end)
    C, end = C[finite], end[finite]
    z = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.column_stack([C, np.ones(len(end))]),
        b_ub=end,
        A_eq=np.column_stack([A, np.zeros(p)]),
        b_eq=b,
        bounds=[(None, None)] * n + [(None, 1.0)],
    ).x[:n]

    def barrier(z):
        return 0.5 * z @ P @ z + q @ z - kappa * np.log(end - C @ z).sum()

    for _ in range(200):
        slack = end - C @ z
        slope = P @ z + q + C.T @ (kappa / slack)
        H = P + (C.T * (kappa / slack**2)) @ C
        K = np.block([[H, A.T], [A, np.zeros((p, p))]])
        t = np.linalg.solve(K, np.concatenate([-slope, b - A @ z]))
        step, size = t[:n], 1.0
        while (end - C @ (z + size * step) <= 0).any():
            size *= 0.5
        while size > 1e-12 and barrier(z + size * step) > barrier(z) + 1e-12 * abs(barrier(z)):
            size *= 0.5
        z = z + size * step
        if np.abs(step).max() < 1e-13:
            break
    assert np.abs(step).max() < 1e-9
    duals = np.zeros(len(finite))
    duals[finite] = kappa / (end - C @ z)
    return z, t[n:], duals[:m], duals[m : m + n], duals[m + n :]


WEIGHTS = [np.random.default_rng(1).normal(size=k) for k in (N, 2, 3, N, N)]


def relaxed_loss(data, kappa):
    point = relaxed(data, kappa)
    return sum(float(w @ value) for w, value in zip(WEIGHTS, point, strict=True))


def gradients(data, kappa, weights=WEIGHTS, **settings):
    """Gradients of a loss in all fields, by argument, and the solution."""
    data = {k: v.clone().requires_grad_() for k, v in data.items()}
    s = bp.QPLayer(smoothing=kappa, **settings).solve(**data)
    pairs = zip(weights, FIELDS, strict=False)
    sum((torch.tensor(w) * getattr(s, f)).sum() for w, f in pairs).backward()
    return {k: v.grad for k, v in data.items()}, s


@pytest.mark.parametrize("kappa", [1.0, 1e-1, 1e-2])
def test_gradient_is_the_finite_difference_of_the_relaxed_point(kappa):
    """In every argument, of a loss in z and in all duals."""
    data = general()
    found, _ = gradients(data, kappa)
    for name, value in data.items():
        expected = torch.zeros_like(value)
        for i in np.ndindex(*value.shape):
            if not value[i].isfinite():
                continue
            ends = []
            for step in (1e-5, -1e-5):
                moved = value.clone()
                moved[i] += step
                if name == "P":
                    moved = 0.5 * (moved + moved.mT)
                ends.append(relaxed_loss({**data, name: moved}, kappa))
            expected[i] = (ends[0] - ends[1]) / 2e-5
        scale = float(expected.abs().max())
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6 * scale, msg=name)


def test_the_forward_result_is_the_exact_one():
    data = general()
    exact, smooth = bp.QPLayer().solve(**data), bp.QPLayer(smoothing=0.1).solve(**data)
    for field in FIELDS:
        assert torch.equal(getattr(exact, field), getattr(smooth, field)), field


@pytest.mark.parametrize("seed", range(5))
def test_small_kappa_recovers_the_exact_gradient_at_first_order(seed):
    data = general(seed)
    exact, _ = gradients(data, 0.0)
    errors = []
    for kappa in (1e-6, 1e-9, 1e-12):
        found, _ = gradients(data, kappa)
        gaps = [(found[k] - exact[k]).abs().max() / (exact[k].abs().max() + 1.0) for k in exact]
        errors.append(float(max(gaps)))
    assert errors[0] > 1e-8, "a relaxed gradient differs"
    # A thousandth of κ has a thousandth of the error.
    assert errors[1] < 3e-3 * errors[0] and errors[2] < 3e-3 * errors[1]


def test_a_box_far_narrower_than_kappa_is_its_middle():
    q = torch.tensor([3.0, -4.0, 1.0], dtype=torch.float64, requires_grad=True)
    ub = torch.tensor([1e-6, 2.0, np.inf], dtype=torch.float64, requires_grad=True)
    lb = torch.zeros(3, dtype=torch.float64)
    z = bp.QPLayer(smoothing=1.0)(torch.eye(3).double(), q, lb=lb, ub=ub)
    z.sum().backward()
    assert ub.grad[0].item() == pytest.approx(0.5, abs=1e-6)
    assert -1e-12 < q.grad[0] < 0 and -1 < q.grad[1] < 0 and -1 < q.grad[2] < 0


def test_names_just_outside_learn_and_farther_ones_less():
    """On the simplex the exact gradient of a name that is not held is zero."""
    y = torch.tensor([0.9, 0.5, 0.05, -2.0], dtype=torch.float64)
    grads = {}
    for kappa in (0.0, 1e-3, 1e-2):
        q = (-y).requires_grad_()
        one = torch.ones(1, 4, dtype=torch.float64)
        lb = torch.zeros(4, dtype=torch.float64)
        z = bp.QPLayer(smoothing=kappa)(torch.eye(4).double(), q, one, one[0, :1], lb=lb)
        z[2].backward()
        grads[kappa] = q.grad
    assert (grads[0.0] == 0).all()
    for kappa in (1e-3, 1e-2):
        # A higher score (a lower q) raises its own weight and lowers the others'.
        assert grads[kappa][2] < 0 and (grads[kappa][[0, 1, 3]] > 0).all()
        assert grads[kappa][3] < 0.1 * grads[kappa][0]
        assert abs(float(grads[kappa].sum())) < 1e-10
    assert grads[1e-2][2] < 2 * grads[1e-3][2]


def test_closed_form_of_one_bound():
    """min ½z² + qz, z ≥ 0: the relaxed point is ½(−q + √(q² + 4κ)), λ is it plus q."""
    for value in (-1.0, -0.1, 0.0, 0.1, 2.0):
        q = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        kappa = 0.01
        s = bp.QPLayer(smoothing=kappa).solve(torch.eye(1).double(), q, lb=torch.zeros(1).double())
        slope = value / np.sqrt(value**2 + 4 * kappa)
        (in_z,) = torch.autograd.grad(s.z, q, retain_graph=True)
        (in_dual,) = torch.autograd.grad(s.lam_lb, q)
        assert in_z.item() == pytest.approx(0.5 * (slope - 1), abs=1e-10)
        assert in_dual.item() == pytest.approx(0.5 * (slope + 1), abs=1e-10)


def test_kappa_has_the_objectives_unit():
    data = general()
    one, _ = gradients(data, 1e-2, WEIGHTS[:1])
    big = {**data, "P": 1e4 * data["P"], "q": 1e4 * data["q"]}
    scaled, _ = gradients(big, 1e2, WEIGHTS[:1])
    torch.testing.assert_close(1e4 * scaled["q"], one["q"], rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(scaled["h"], one["h"], rtol=1e-7, atol=1e-10)


def test_without_inequalities_smoothing_changes_nothing():
    data = {k: v for k, v in general().items() if k in ("P", "q", "A", "b")}
    exact, _ = gradients(data, 0.0, WEIGHTS[:2])
    smooth, _ = gradients(data, 1.0, WEIGHTS[:2])
    for name in data:
        torch.testing.assert_close(smooth[name], exact[name], rtol=1e-9, atol=1e-10)


def test_fixed_coordinates_stay_fixed_and_move_with_their_value():
    """A coordinate with lb = ub is an equality, relaxed or not."""
    data = general()
    inside = 0.5 * (data["lb"] + data["lb"] + 1.0)
    data["lb"][1] = data["ub"][1] = inside[1]
    found, s = gradients(data, 1e-2)
    assert s.z[1] == inside[1] and found["q"].isfinite().all()
    # The same as an equality row.
    row = torch.zeros(1, N, dtype=torch.float64)
    row[0, 1] = 1.0
    other = {k: v.clone() for k, v in data.items()}
    other["A"], other["b"] = torch.cat([data["A"], row]), torch.cat([data["b"], inside[1:2]])
    other["lb"][1], other["ub"][1] = -np.inf, np.inf
    sign = 1.0 if s.lam_ub[1] > s.lam_lb[1] else -1.0
    dual = WEIGHTS[4][1] if sign > 0 else -WEIGHTS[3][1]
    weights = [WEIGHTS[0], np.append(WEIGHTS[1], dual), *WEIGHTS[2:]]
    expected, _ = gradients(other, 1e-2, weights)
    torch.testing.assert_close(found["q"], expected["q"], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found["h"], expected["h"], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(
        found["lb"][1] + found["ub"][1], expected["b"][2], rtol=1e-8, atol=1e-9
    )


def test_no_interior_is_an_error_with_a_remedy():
    G = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    h = torch.tensor([1.0, -1.0], dtype=torch.float64)
    q = torch.tensor([-1.0, 0.0], dtype=torch.float64, requires_grad=True)
    z = bp.QPLayer(smoothing=1e-3)(torch.eye(2).double(), q, G=G, h=h)
    with pytest.raises(bp.SolverError, match=r"smoothing 0\.001.*strictly.*equalities as A, b"):
        z.sum().backward()
    q.grad = None
    one = torch.ones(1, 2, dtype=torch.float64)
    bp.QPLayer(smoothing=1e-3)(torch.eye(2).double(), q, one, h[:1]).square().sum().backward()
    assert q.grad.isfinite().all()


def test_batches_are_single_problems_and_shared_arguments_add_up():
    batch = [general(seed) for seed in range(3)]
    shared = {k: v for k, v in batch[0].items() if k in ("P", "A")}
    stacked = {k: torch.stack([b[k] for b in batch]) for k in ("q", "G", "lb", "ub")}
    b, h = batch[0]["b"], torch.stack([b["h"] for b in batch])
    # Interiors that all of them share: wide boxes around a point of the equalities.
    inside = torch.linalg.lstsq(shared["A"], b).solution
    stacked["lb"], stacked["ub"] = (inside + e * torch.ones(3, N) for e in (-0.5, 0.5))
    h = (stacked["G"] @ inside) + 0.1
    data = {**shared, **stacked, "b": b, "h": h}
    found, _ = gradients(data, 1e-2, [np.ones(N)])
    singles = [
        gradients(
            {k: (v if k in ("P", "A", "b") else v[i]) for k, v in data.items()}, 1e-2, [np.ones(N)]
        )[0]
        for i in range(3)
    ]
    for name in data:
        each = torch.stack([g[name] for g in singles])
        expected = each.sum(0) if name in ("P", "A", "b") else each
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-10)


def test_a_linear_program_has_a_gradient():
    q = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    one, lb = torch.ones(1, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    bp.QPLayer(smoothing=0.1)(None, q, one, one[0, :1], lb=lb)[1].backward()
    assert q.grad[1] < 0 and (q.grad[[0, 2]] > 0).all()


@pytest.mark.parametrize("value", [-1e-3, "some", float("nan")])
def test_a_smoothing_that_is_none_is_refused(value):
    with pytest.raises(bp.ConfigError, match="smoothing"):
        bp.QPLayer(smoothing=value)


def test_where_failures_are_nan_an_item_without_interior_has_zero_gradient_and_a_warning():
    one = torch.tensor([1.0, 1.0], dtype=torch.float64)
    q = torch.stack([-one, -one]).requires_grad_()
    G = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    # The first item's rows leave no room between them, the second's do.
    h = torch.tensor([[1.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    layer = bp.QPLayer(smoothing=1e-3, on_failure="nan")
    z = layer(torch.eye(2, dtype=torch.float64), q, G=G, h=h)
    with pytest.warns(UserWarning, match=r"item 0 has zero gradient"):
        (z * torch.tensor([1.0, -2.0])).sum().backward()
    assert (q.grad[0] == 0).all()
    alone = -one.clone()
    alone.requires_grad_()
    z = bp.QPLayer(smoothing=1e-3)(torch.eye(2, dtype=torch.float64), alone, G=G, h=h[1])
    (z * torch.tensor([1.0, -2.0])).sum().backward()
    torch.testing.assert_close(q.grad[1], alone.grad)
    assert alone.grad.abs().max() > 0.1
