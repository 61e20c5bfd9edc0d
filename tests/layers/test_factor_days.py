"""A few days take a short way: the same solutions and gradients as the general one, or none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.solvers.factor.few_days import MOST_DAYS, solve_days

ARGUMENTS = ("q", "loadings", "specific", "lb", "ub", "budget")


def problem(seed=0, T=3, n=40, k=4, cap=1.0, size=0.02, padded=True):
    g = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    mask = torch.ones(T, n, dtype=torch.bool)
    if padded:
        mask[0, -7:] = False
    return {
        "q": size * random(T, n),
        "loadings": 0.1 * random(T, n, k),
        "specific": 0.01 + 0.05 * random(T, n).square(),
        "lb": torch.zeros(T, n, dtype=torch.float64),
        "ub": cap * (1 + 0.1 * random(T, n).abs()),
        "budget": 1 + 0.05 * random(T),
        "mask": mask,
    }


def solved(data, copies):
    """Solution and gradients of the first days, where the batch has ``copies`` of them."""
    data = {name: torch.cat([value] * copies).clone() for name, value in data.items()}
    leaves = [data[name].requires_grad_() for name in ARGUMENTS]
    solution = factor_qp(**data)
    T = len(data["mask"]) // copies
    r = torch.cos(torch.arange(solution.w.shape[-1], dtype=torch.float64))
    gradients = torch.autograd.grad((solution.w * r).sum(), leaves)
    return solution.days(torch.arange(T)), [gradient[:T] for gradient in gradients]


@pytest.mark.parametrize("cap", [1.0, 0.2, 0.05])
@pytest.mark.parametrize("size", [1e-4, 0.02, 1.0, 1e4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_agrees_with_the_general_way(seed, size, cap):
    data = problem(seed, size=size, cap=cap)
    short, gradients = solved(data, 1)
    general, expected = solved(data, MOST_DAYS)
    assert (short.codes == general.codes).all() and (short.kkt_norm <= 1e-10).all()
    # A forecast's rounding moves a free weight by itself over d.
    torch.testing.assert_close(short.w, general.w, rtol=0, atol=1e-11 + 1e-13 * size)
    assert torch.equal(short.free, general.free)
    for new, old in zip(gradients, expected, strict=True):
        near = 1e-9 * float(old.abs().max()) + 1e-15  # zero but for rounding with one free name
        torch.testing.assert_close(new, old, rtol=1e-7, atol=near)
    # The duals of bounds and budget are unique where a name is free.
    days = general.free.any(-1)
    for name in ("nu", "x", "lam_lb", "lam_ub"):
        new, old = getattr(short, name)[days], getattr(general, name)[days]
        torch.testing.assert_close(new, old, rtol=1e-7, atol=1e-8 * size)


def test_a_warm_start_takes_fewer_steps_to_the_same_weights():
    data = problem(cap=0.1)
    cold = factor_qp(**data)
    for start in (cold, cold.x):
        again = factor_qp(**data, initial_point=start)
        torch.testing.assert_close(again.w, cold.w, rtol=0, atol=1e-12)
        assert int(again.iterations.sum()) < int(cold.iterations.sum())


def test_gradients_by_finite_differences():
    data = problem(3, T=2, n=9, k=2, cap=0.3, padded=False)
    leaves = [data[name].requires_grad_() for name in ARGUMENTS]

    def weights(*values):
        return factor_qp(**dict(zip(ARGUMENTS, values, strict=True)), mask=data["mask"]).w

    assert torch.autograd.gradcheck(weights, leaves, eps=1e-7, atol=1e-5)


def arrays(**changes):
    data = {name: value.numpy().copy() for name, value in problem().items()}
    for name, change in changes.items():
        change(data[name])
    return [data[name] for name in (*ARGUMENTS, "mask")]


def put(value, at=(1, 0)):
    def change(array):
        array[at] = value

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"q": put(np.nan)},
        {"q": put(np.inf)},
        {"loadings": put(np.nan, (1, 0, 0))},
        {"specific": put(0.0)},
        {"specific": put(-1.0)},
        {"ub": put(np.inf)},
        {"ub": put(-1.0)},
        {"budget": put(np.nan, 1)},
        {"budget": put(500.0, 1)},
        {"mask": put(False, 1)},
        {"ub": put(0.001, 1)},
    ],
)
def test_what_is_unusual_goes_the_general_way(changes):
    assert solve_days(*arrays(), 1e-10) is not None
    assert solve_days(*arrays(**changes), 1e-10) is None
