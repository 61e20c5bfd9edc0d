"""Gradients of the factor QP in rows, costs and references, and where rows are dependent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.errors import ProblemError
from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus

SOLVED = SolveStatus.SOLVED.code

PARAMETERS = (
    "q",
    "loadings",
    "specific",
    "ub",
    "budget",
    "A",
    "b",
    "G",
    "h",
    "cost",
    "reference",
)


def days(seed, T=2, n=9, k=2) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    A, G = rng.normal(size=(T, 1, n)), rng.uniform(size=(T, 2, n))
    even = np.full(n, 1 / n)
    data = {
        "q": 0.5 * rng.normal(size=(T, n)),
        "loadings": rng.normal(size=(T, n, k)),
        "specific": rng.uniform(0.5, 1.5, size=(T, n)),
        "ub": rng.uniform(0.2, 0.4, size=(T, n)),
        "budget": np.ones(T),
        "A": A,
        "b": A @ even,
        "G": G,
        "h": G @ even,
        "cost": rng.uniform(0.02, 0.2, size=(T, n)),
        "reference": rng.dirichlet(np.ones(n), size=T),
    }
    return {name: torch.tensor(value) for name, value in data.items()}


def solve(data, **options):
    return factor_qp(**data, **options)


def smooth() -> dict[str, torch.Tensor]:
    """Days with active rows of each kind, names that trade and names that do not, off all kinks."""
    for seed in range(300):
        data = days(seed)
        s = solve(data)
        w = s.w
        P = data["loadings"] @ data["loadings"].mT + torch.diag_embed(data["specific"])
        gradient = torch.einsum("tij,tj->ti", P, w) + data["q"] + s.nu[:, None]
        gradient = gradient + torch.einsum("tpn,tp->tn", data["A"], s.nu_rows)
        gradient = gradient + torch.einsum("tmn,tm->tn", data["G"], s.lam)
        still = (w == data["reference"]) & (w > 0)
        slack = data["h"] - torch.einsum("tmn,tn->tm", data["G"], w)
        margins = torch.cat(
            [
                (data["cost"] - gradient.abs())[still],
                torch.maximum(slack, s.lam).flatten(),
                torch.minimum(w, data["ub"] - w)[s.free],
                (w - data["reference"]).abs()[s.free],
                torch.maximum(s.lam_lb, s.lam_ub)[~s.free & ~still],
            ]
        )
        kinds = (still.any(), (s.lam > 0).any(), s.free.sum(-1).min() >= 4)
        if all(kinds) and margins.min() > 1e-3 and (s.codes == SOLVED).all():
            return data
    raise AssertionError("no smooth day among the seeds")


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradcheck(name):
    data = smooth()

    def weights(value):
        return solve({**data, name: value}).w

    assert torch.autograd.gradcheck(weights, data[name].requires_grad_(), eps=1e-6, atol=1e-6)


def test_gradcheck_where_specific_variance_is_zero():
    data = smooth()
    data["specific"][:, 0] = 0
    names = ("q", "loadings", "b", "h")

    def weights(*values):
        return solve({**data, **dict(zip(names, values, strict=True))}).w

    leaves = [data[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(weights, leaves, eps=1e-6, atol=1e-5)


def test_a_name_that_does_not_trade_follows_its_reference():
    data = days(0)
    data["cost"] = data["cost"] + 10
    data["b"] = (data["A"] @ data["reference"].unsqueeze(-1)).squeeze(-1)
    data["h"] = (data["G"] @ data["reference"].unsqueeze(-1)).squeeze(-1) + 1
    data["ub"] = torch.ones_like(data["ub"])
    reference = data["reference"].requires_grad_()
    w = solve(data).w
    assert torch.equal(w, reference)
    r = torch.arange(18, dtype=torch.float64).reshape(2, 9)
    (w * r).sum().backward()
    torch.testing.assert_close(reference.grad, r)


def test_dependent_active_rows_have_finite_gradients_and_the_right_sum():
    data = smooth()
    r = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, b = data["q"].requires_grad_(), data["b"].requires_grad_()
    expected = torch.autograd.grad((solve(data).w * r).sum(), [q, b])
    half = b.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
    doubled = {**data, "A": data["A"].repeat(1, 2, 1), "b": torch.cat(half, 1)}
    found = torch.autograd.grad((solve(doubled).w * r).sum(), [q, *half])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found[1] + found[2], expected[1], rtol=1e-6, atol=1e-8)


def test_bad_and_infeasible_days_have_zero_gradient():
    data = smooth()
    data = {k: torch.cat([v, v]) for k, v in data.items()}
    data["q"][1, 3], data["b"][2] = torch.nan, 100.0
    leaves = {k: v.requires_grad_() for k, v in data.items()}
    w = solve(leaves, on_failure="nan").w
    assert w[1].isnan().all() and w[2].isnan().all()
    torch.nan_to_num(w).square().sum().backward()
    for name, leaf in leaves.items():
        assert torch.isfinite(leaf.grad).all() and (leaf.grad[1:3] == 0).all(), name
        assert leaf.grad[[0, 3]].any() or name == "ub"


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_huge_forecasts_have_finite_gradients(size):
    data = days(3)
    data["q"] = data["q"] * size
    leaves = {k: v.requires_grad_() for k, v in data.items()}
    s = solve(leaves)
    assert (s.codes == SOLVED).all()
    s.w.square().sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.ones(3, 2, 5), "b": 1.0}, r"A: expected a shape .*\(3, 2, 5\)"),
        ({"G": torch.ones(2), "h": 1.0}, r"G: expected \(T, rows, n\)"),
        ({"G": torch.ones(1, 2, 9), "h": torch.ones(3)}, r"h: expected .* \(3,\)"),
        ({"cost": -1.0}, r"cost \(must not be negative\): bad value for name 0 of day 0"),
        ({"specific": 0.0, "ub": torch.inf}, r"ub \(must be finite where specific is 0\)"),
        (
            {"A": torch.full((1, 1, 9), torch.nan), "b": 1.0},
            "A: bad value for name 0 of day 0",
        ),
        ({"A": torch.ones(1, 1, 9), "b": torch.nan}, "b: bad value for day 0"),
    ],
)
def test_bad_rows_and_costs_are_named(change, message):
    data = days(0)
    given = {name: data[name] for name in ("q", "loadings", "specific")}
    with pytest.raises(ProblemError, match=message):
        factor_qp(**{**given, **change})
