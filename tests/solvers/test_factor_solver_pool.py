"""Solving with a pool of names that may move gives what solving with all of them gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.factor import dual_newton_box, interior_start

SOLVED = SolveStatus.SOLVED.code


def market(T=12, n=260, k=6, size=1e-3, cap=1.0, low=0.0, seed=0) -> dict:
    """Days with one factor that all names load on, and names masked at random."""
    rng = np.random.default_rng(seed)
    loadings = 0.004 * rng.normal(size=(T, n, k))
    loadings[..., 0] += 0.013
    data = {
        "q": -size * rng.normal(size=(T, n)),
        "loadings": loadings,
        "specific": rng.uniform(0.005, 0.03, size=(T, n)) ** 2,
        "ub": np.full((T, n), cap),
        "lb": low * rng.random((T, n)),
        "mask": rng.random((T, n)) < 0.95,
    }
    return {name: torch.tensor(value) for name, value in data.items()}


def without_pool(monkeypatch) -> None:
    monkeypatch.setattr(dual_newton_box, "_POOL", 10**6)
    monkeypatch.setattr(interior_start, "_NAMES", 10**6)


def assert_same(data: dict, monkeypatch, **options) -> None:
    pooled = factor_qp(**data, **options)
    without_pool(monkeypatch)
    whole = factor_qp(**data, **options)
    assert (pooled.codes == SOLVED).all()
    assert (whole.codes == SOLVED).all()
    torch.testing.assert_close(pooled.w, whole.w, rtol=0, atol=1e-10)
    assert torch.equal(pooled.w == 0, whole.w == 0)


@pytest.mark.parametrize("cap", [1.0, 0.05, 0.02, 0.005])
@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-4, 1e-2, 1e6])
def test_plain_days(cap, size, monkeypatch):
    assert_same(market(size=size, cap=cap, seed=int(1000 * cap)), monkeypatch)


@pytest.mark.parametrize("size", [1e-4, 1e-2])
def test_names_that_have_to_be_held(size, monkeypatch):
    assert_same(market(size=size, cap=0.05, low=0.004), monkeypatch)


@pytest.mark.parametrize("size", [1e-4, 1e-2])
@pytest.mark.parametrize("cost", [0.0, 1e-4, 1e-2])
def test_days_with_group_limits_and_costs(size, cost, monkeypatch):
    data = market(T=6, size=size, cap=0.05, seed=3)
    rng = np.random.default_rng(4)
    group = torch.tensor(rng.integers(0, 12, size=data["q"].shape))
    G = torch.nn.functional.one_hot(group, 12).double().mT
    h = (G * data["mask"].unsqueeze(1)).sum(-1) / data["mask"].sum(-1, keepdim=True) + 0.03
    if cost:
        data["cost"] = torch.full_like(data["q"], cost)
        held = torch.tensor(rng.random(data["q"].shape)) < 0.1
        held &= data["mask"]
        data["reference"] = held.double() / held.sum(-1, keepdim=True)
    assert_same(data, monkeypatch, G=G, h=h)


def test_an_earlier_solution_of_many_names_gives_the_same_answer():
    data = market(cap=0.05)
    first = factor_qp(**data)
    moved = {**data, "q": data["q"] * 1.1 + 1e-4 * torch.randn(data["q"].shape).double()}
    cold, warm = factor_qp(**moved), factor_qp(**moved, initial_point=first)
    assert (warm.codes == SOLVED).all()
    torch.testing.assert_close(warm.w, cold.w, rtol=0, atol=1e-10)
