"""Gradients of the factor QP: finite differences, dense formulas, kinks, masks and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.errors import ProblemError, SolverError
from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus

SOLVED = SolveStatus.SOLVED.code
INACCURATE = SolveStatus.INACCURATE.code
INFEASIBLE = SolveStatus.PRIMAL_INFEASIBLE.code

PARAMETERS = ("q", "loadings", "specific", "lb", "ub", "budget")


def days(T=3, n=7, k=2, seed=0, size=0.7) -> dict[str, torch.Tensor]:
    """Parameters of T days, all of the order of one."""
    rng = np.random.default_rng(seed)
    data = {
        "q": size * rng.normal(size=(T, n)),
        "loadings": rng.normal(size=(T, n, k)),
        "specific": rng.uniform(0.5, 1.5, size=(T, n)),
        "lb": rng.uniform(0.0, 0.05, size=(T, n)),
        "ub": rng.uniform(0.2, 0.4, size=(T, n)),
        "budget": rng.uniform(0.9, 1.1, size=T),
    }
    return {name: torch.tensor(value) for name, value in data.items()}


def distance_to_kink(data) -> float:
    """How far every day is from a change of its active set: the smallest slack or multiplier."""
    s = factor_qp(**data)
    B, d = data["loadings"], data["specific"]
    P = B @ B.mT + torch.diag_embed(d)
    multiplier = torch.einsum("tij,tj->ti", P, s.w) + data["q"] + s.nu.unsqueeze(-1)
    slack = torch.minimum(s.w - data["lb"], data["ub"] - s.w)
    return float(torch.where(s.free, slack, multiplier.abs()).min())


def smooth_days(**shape) -> dict[str, torch.Tensor]:
    """Days away from kinks, with free names and names at either bound on each."""
    for seed in range(100):
        data = days(seed=seed, **shape)
        s = factor_qp(**data)
        kinds = (s.free, s.w == data["lb"], s.w == data["ub"])
        if all(kind.any(-1).all() for kind in kinds) and distance_to_kink(data) > 1e-3:
            return data
    raise AssertionError("no smooth day among the seeds")


def gradients(data, r, **options) -> dict[str, torch.Tensor]:
    """Gradients of Σ r·w in all parameters."""
    leaves = {name: value.clone().requires_grad_() for name, value in data.items()}
    (factor_qp(**leaves, **options).w * r).sum().backward()
    return {name: value.grad for name, value in leaves.items()}


# Finite differences


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradcheck(name):
    data = smooth_days()

    def weights(value):
        return factor_qp(**{**data, name: value}).w

    assert torch.autograd.gradcheck(weights, data[name].requires_grad_(), eps=1e-6, atol=1e-6)


def test_gradcheck_in_everything_at_once():
    data = smooth_days(T=2, n=6, k=3)

    def weights(*values):
        return factor_qp(**dict(zip(PARAMETERS, values, strict=True))).w

    leaves = [data[name].requires_grad_() for name in PARAMETERS]
    assert torch.autograd.gradcheck(weights, leaves, eps=1e-6, atol=1e-6)


def test_gradcheck_of_scalars_and_rows_that_are_broadcast():
    data = smooth_days()
    upper = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    specific = data["specific"][:1].clone().requires_grad_()
    data = {**data, "lb": 0.0, "budget": 1.0}

    def weights(upper, specific):
        return factor_qp(**{**data, "ub": upper, "specific": specific.expand(3, -1)}).w

    assert torch.autograd.gradcheck(weights, (upper, specific), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e-2])
def test_directional_derivatives_at_the_scale_of_daily_returns(size):
    """Central differences in a random direction of all parameters, on 200 names."""
    rng = np.random.default_rng(int(1 / size))
    T, n, k = 16, 200, 10
    data = {
        "q": -size * rng.normal(size=(T, n)),
        "loadings": 0.01 * rng.normal(size=(T, n, k)),
        "specific": 3e-4 * rng.uniform(0.1, 2.0, size=(T, n)),
        "ub": rng.uniform(0.03, 0.06, size=(T, n)),
    }
    data = {name: torch.tensor(value) for name, value in data.items()}
    direction = {name: torch.tensor(rng.normal(size=v.shape)) * v for name, v in data.items()}
    r = torch.tensor(rng.normal(size=(T, n)))
    step = 1e-7
    plus, minus = (
        factor_qp(**{name: v + sign * step * direction[name] for name, v in data.items()})
        for sign in (1, -1)
    )
    numeric = ((plus.w - minus.w) * r).sum(-1) / (2 * step)
    exact = sum((g * direction[name]).flatten(1).sum(-1) for name, g in gradients(data, r).items())
    smooth = (plus.free == minus.free).all(-1)
    assert smooth.sum() >= 12
    torch.testing.assert_close(
        exact[smooth], numeric[smooth], rtol=1e-5, atol=1e-5 * float(numeric.abs().max())
    )


# The dense formulas


def dense_gradients(data, w, r) -> dict[str, np.ndarray]:
    """The backward QP of one day, solved as a dense KKT system with a row for each active bound.

    ∇q = z̃, ∇P = ½(z̃wᵀ + wz̃ᵀ), ∇b = −ν̃, ∇h = −λ̃ (arXiv:2411.19285), and P = BBᵀ + diag(d).
    """
    n = len(w)
    B, d = data["loadings"], data["specific"]
    P = B @ B.T + np.diag(d)
    low, high = np.flatnonzero(w <= data["lb"]), np.flatnonzero(w >= data["ub"])
    rows = np.vstack([np.ones(n), -np.eye(n)[low], np.eye(n)[high]])
    m = len(rows)
    kkt = np.block([[P, rows.T], [rows, np.zeros((m, m))]])
    solution = np.linalg.solve(kkt, np.concatenate([-r, np.zeros(m)]))
    z, nu, lam = solution[:n], solution[n], solution[n + 1 :]
    grad_P = 0.5 * (np.outer(z, w) + np.outer(w, z))
    grad_lower, grad_upper = np.zeros(n), np.zeros(n)
    grad_lower[low] = lam[: len(low)]  # −w ≤ −l: h is −l
    grad_upper[high] = -lam[len(low) :]
    return {
        "q": z,
        "loadings": 2 * grad_P @ B,
        "specific": np.diag(grad_P),
        "lb": grad_lower,
        "ub": grad_upper,
        "budget": np.array(-nu),
    }


@pytest.mark.parametrize("shape", [(4, 7, 2), (3, 40, 5), (3, 12, 0), (2, 5, 9)])
def test_gradients_equal_the_dense_formulas(shape):
    T, n, k = shape
    data = smooth_days(T=T, n=n, k=k) if n < 10 else days(T=T, n=n, k=k)
    if n >= 10:
        data["ub"] *= 7 / n
        data["ub"] += 0.01
        data["lb"] *= 0.1
    r = torch.randn(T, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solution = factor_qp(**data)
    assert (solution.codes == SOLVED).all() and not solution.free.all()
    assert (solution.free.sum(-1) >= 1).all()
    found = gradients(data, r)
    for t in range(T):
        day = {name: value[t].numpy() for name, value in data.items()}
        expected = dense_gradients(day, solution.w[t].numpy(), r[t].numpy())
        for name in PARAMETERS:
            np.testing.assert_allclose(
                found[name][t], expected[name], rtol=1e-10, atol=1e-10, err_msg=name
            )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(0, 3), st.floats(-3, 3))
def test_identities_that_hold_at_every_point(seed, n, k, power):
    """Homogeneity: w does not change with a constant in q, nor with the objective's unit."""
    data = days(n=n, k=k, seed=seed, size=10.0**power)
    data["ub"] = data["ub"] + 1.0
    data["lb"] = 0 * data["lb"]
    r = torch.randn(3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    g = gradients(data, r)
    size = 1e-9 * (1 + r.abs().sum())
    assert (g["q"].sum(-1).abs() <= size).all()
    euler = (
        (g["q"] * data["q"]).sum(-1)
        + 0.5 * (g["loadings"] * data["loadings"]).sum((-1, -2))
        + (g["specific"] * data["specific"]).sum(-1)
    )
    assert (euler.abs() <= size * (1 + 10**power)).all()
    assert all(torch.isfinite(value).all() for value in g.values())


# Kinks, degenerate days, masks and failures


def test_without_a_free_name_there_is_no_gradient_in_the_objective():
    data = days()
    data["q"][:, 2] = -1e6
    data["lb"], data["ub"] = 0 * data["lb"], 0 * data["ub"] + 1
    data["budget"] = 0 * data["budget"] + 1
    assert not factor_qp(**data).free.any()
    g = gradients(data, torch.ones_like(data["q"]).cumsum(-1))
    for name in ("q", "loadings", "specific"):
        assert (g[name] == 0).all()
    # If all bounds and the budget move by one weight, so do the weights.
    moved = g["lb"].sum(-1) + g["ub"].sum(-1) + g["budget"] * data["q"].shape[1]
    torch.testing.assert_close(
        moved, torch.full_like(moved, float(sum(range(1, 1 + len(g["q"][0])))))
    )


def test_one_free_name_has_only_the_budget_to_follow():
    data = days(T=1, n=3)
    data["q"] = torch.tensor([[-50.0, -5.0, 50.0]], dtype=torch.float64)
    data["lb"], data["ub"] = 0 * data["lb"], 0 * data["ub"] + 0.6
    data["budget"] = torch.ones(1, dtype=torch.float64)
    solution = factor_qp(**data)
    assert solution.free.tolist() == [[False, True, False]]
    torch.testing.assert_close(solution.w, torch.tensor([[0.6, 0.4, 0.0]], dtype=torch.float64))
    g = gradients(data, torch.tensor([[3.0, 5.0, 11.0]], dtype=torch.float64))
    for name in ("q", "loadings", "specific"):
        assert (g[name].abs() <= 1e-14).all()
    # w₂ = c − u₁ − l₃, so the gradients are those of 3u₁ + 5(c − u₁ − l₃) + 11l₃.
    assert g["budget"].item() == pytest.approx(5)
    assert g["ub"].tolist() == [[pytest.approx(-2), 0, 0]]
    assert g["lb"].tolist() == [[0, 0, pytest.approx(6)]]


def test_a_pinned_name_moves_with_both_of_its_bounds():
    data = days(T=1)
    pin = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    r = torch.arange(7, dtype=torch.float64)

    def loss(pin):
        held = torch.zeros(1, 7, dtype=torch.bool)
        held[0, 4] = True
        bounds = {name: torch.where(held, pin, data[name]) for name in ("lb", "ub")}
        return (factor_qp(**{**data, **bounds}).w * r).sum()

    assert torch.autograd.gradcheck(loss, pin, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e-9, 1e6])
@pytest.mark.parametrize("cap", [0.2, 1.0])
def test_gradients_are_finite_for_forecasts_of_any_size(size, cap):
    data = days(T=8, n=20, size=size)
    data |= {"lb": torch.zeros(8, 20), "ub": torch.full((8, 20), cap)}
    data["budget"] = torch.ones(8)
    for value in gradients(data, torch.randn(8, 20, dtype=torch.float64)).values():
        assert torch.isfinite(value).all()


def test_equal_names_have_equal_gradients():
    data = {"q": torch.zeros(1, 4), "loadings": torch.ones(1, 4, 2), "specific": torch.ones(1, 4)}
    data = {name: value.double() for name, value in data.items()}
    g = gradients(data, torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    expected = torch.tensor([[-0.75, 0.25, 0.25, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(g["q"], expected, rtol=0, atol=1e-12)
    assert g["loadings"][0, 1:].std(0).max() <= 1e-12


def test_masked_names_have_exactly_zero_weight_and_gradient():
    data = smooth_days()
    r = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = gradients(data, r)
    mask = torch.arange(11).expand(3, -1) < 7
    for filler in (0.0, 5.0, torch.nan):
        padded = {
            name: torch.cat([value, value.new_full((3, 4, *value.shape[2:]), filler)], 1)
            if value.ndim > 1
            else value
            for name, value in data.items()
        }
        weights = torch.cat([r, r.new_full((3, 4), 9.0)], 1)
        for name, value in gradients(padded, weights, mask=mask).items():
            if value.ndim > 1:
                assert (value[:, 7:] == 0).all(), name
                value = value[:, :7]
            torch.testing.assert_close(value, plain[name], rtol=1e-12, atol=1e-12)


def test_an_infeasible_day_has_no_gradient_and_spoils_no_other():
    data = smooth_days()
    r = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    good = gradients(data, r)
    data["budget"][1] = 50.0
    with pytest.raises(SolverError, match=r"1 of 3 days .* \(day 1: primal infeasible"):
        factor_qp(**data)
    solution = factor_qp(**data, on_failure="nan")
    assert solution.codes.tolist() == [SOLVED, INFEASIBLE, SOLVED]
    for name, value in gradients(data, r, on_failure="nan").items():
        assert (value[1] == 0).all()
        torch.testing.assert_close(value[[0, 2]], good[name][[0, 2]], rtol=1e-12, atol=1e-12)


def test_a_failed_day_masked_by_the_caller_leaves_finite_gradients():
    data = smooth_days()
    data["budget"][1] = 50.0
    q = data["q"].requires_grad_()
    solution = factor_qp(**data, on_failure="nan")
    torch.nan_to_num(solution.w).square().sum().backward()
    assert torch.isfinite(q.grad).all() and q.grad[0].any()


def test_the_iteration_limit_is_reported():
    solution = factor_qp(**days(size=0.1), max_iterations=0, on_failure="nan")
    assert (solution.codes == INACCURATE).any()


# Types and graphs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_of_the_forecasts_is_kept_and_the_solve_is_in_float64(dtype):
    data = smooth_days()
    leaves = {name: value.to(dtype).requires_grad_() for name, value in data.items()}
    solution = factor_qp(**leaves)
    assert solution.w.dtype == dtype and solution.kkt_norm.dtype == torch.float64
    (solution.w[:, :3] ** 2).sum().backward()
    double = {name: value.detach().double().requires_grad_() for name, value in leaves.items()}
    (factor_qp(**double).w[:, :3] ** 2).sum().backward()
    for name, value in leaves.items():
        assert value.grad.dtype == dtype
        torch.testing.assert_close(value.grad.double(), double[name].grad, rtol=1e-5, atol=1e-5)


def test_a_float32_network_may_use_a_float64_risk_model():
    data = smooth_days()
    q = data["q"].float().requires_grad_()
    w = factor_qp(**{**data, "q": q}).w
    w.square().sum().backward()
    assert w.dtype == q.grad.dtype == torch.float32


def test_no_graph_is_kept_where_none_is_asked_for():
    data = smooth_days()
    assert factor_qp(**data).w.grad_fn is None
    data["q"].requires_grad_()
    with torch.no_grad():
        w = factor_qp(**data).w
    assert w.grad_fn is None and not w.requires_grad
    solution = factor_qp(**data)
    assert solution.w.requires_grad
    rest = (solution.nu, solution.x, solution.kkt_norm, solution.free, solution.codes)
    assert not any(value.requires_grad for value in rest)


def test_only_the_gradients_that_are_needed_are_computed():
    data = smooth_days()
    data["specific"].requires_grad_()
    factor_qp(**data).w.square().sum().backward()
    assert data["specific"].grad.any() and data["q"].grad is None


def test_second_derivatives():
    data = smooth_days()

    def weights(q):
        return factor_qp(**{**data, "q": q}).w

    q = data["q"].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(weights, q, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_a_warm_start_changes_neither_weights_nor_gradients():
    data = smooth_days()
    r = torch.ones_like(data["q"]).cumsum(-1)
    x = factor_qp(**data).x
    cold, warm = gradients(data, r), gradients(data, r, initial_point=x)
    for name, value in cold.items():
        torch.testing.assert_close(warm[name], value, rtol=1e-8, atol=1e-8)


# Bad input


def bad(name, index, value):
    def change(data):
        data[name][index] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad("q", (1, 4), torch.nan), r"^q: bad value for name 4 of day 1 \(1 in all\)"),
        (bad("q", (2, 0), torch.inf), r"^q: bad value for name 0 of day 2"),
        (bad("loadings", (0, 3, 1), torch.nan), r"^loadings: bad value for name 3 of day 0"),
        (bad("specific", (1, 2), torch.nan), r"^specific: bad value for name 2 of day 1"),
        (bad("specific", (1, 2), -1e-9), r"^specific \(must not be negative\).* name 2 of day 1"),
        (bad("specific", (1, slice(2, 5)), -1.0), r"^specific \(must not be negative\).*3 in all"),
        (bad("lb", (1, 2), torch.nan), r"^lb: bad value for name 2 of day 1"),
        (bad("ub", (1, 2), -torch.inf), r"^ub: bad value for name 2 of day 1"),
        (bad("lb", (0, 6), 0.9), r"^bounds \(lb must not exceed ub\).* name 6 of day 0"),
        (bad("budget", 2, torch.nan), r"^budget: bad value for day 2"),
        (lambda d: {**d, "q": d["q"][0]}, r"^q: expected shape \(T, n\), got \(7,\)"),
        (
            lambda d: {**d, "q": d["q"].long()},
            r"^q: expected a tensor of floating.* got torch.int64",
        ),
        (
            lambda d: {**d, "loadings": d["loadings"][:, :5]},
            r"^loadings: expected shape \(T, n, k\) .*\(3, 5, 2\)",
        ),
        (
            lambda d: {**d, "specific": d["specific"][:, :5]},
            r"^specific: expected .*, got \(3, 5\)",
        ),
        (lambda d: {**d, "budget": torch.ones(4)}, r"^budget: expected .*, got \(4,\)"),
        (lambda d: {**d, "mask": torch.ones(3, 7)}, r"^mask: expected true and false"),
        (
            lambda d: {**d, "mask": torch.ones(3, 6, dtype=torch.bool)},
            r"^mask: expected shape \(T, n\) = \(3, 7\)",
        ),
        (
            lambda d: {**d, "mask": torch.arange(3)[:, None].expand(-1, 7) != 1},
            r"mask: day 1 has no name",
        ),
        (
            lambda d: {**d, "initial_point": torch.zeros(3, 7)},
            r"^initial_point: expected shape \(T, k\) = \(3, 2",
        ),
        (lambda d: {**d, "A": torch.ones(1, 7)}, "A and b: give both or neither"),
        (lambda d: {**d, "h": 1.0}, "G and h: give both or neither"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ProblemError, match=message):
        factor_qp(**change(days()))
