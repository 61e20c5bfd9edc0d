"""The portfolio layer by hand: γΣ = I, so that w = μ + ν inside of all limits."""

from __future__ import annotations

import pytest
import torch

from bpqp_portfolio import PortfolioLayer

MU = (0.15, 0.05, -0.05, -0.15)
SOLVERS = pytest.mark.parametrize("solver", ["structured", "dense", "clarabel", "covariance"])


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def solve(solver, previous=None, mask=None, rows=None, mu=(MU,), **options):
    mu = table(*mu)
    T, n = mu.shape
    given = {"forward": solver} if solver != "covariance" else {}
    layer = PortfolioLayer(20.0, **given, **options)
    mask = torch.ones(T, n, dtype=torch.bool) if mask is None else mask
    if solver == "covariance":
        return layer.solve(
            mu, None, None, mask, previous, covariance=0.05 * torch.eye(n).double().expand(T, n, n)
        )
    risk = torch.zeros(T, n, 1).double(), torch.full((T, n), 0.05).double()
    return layer.solve(mu, *risk, mask, previous, **(rows or {}))


def close(found, *rows):
    torch.testing.assert_close(found, table(*rows), rtol=0, atol=1e-6)


@SOLVERS
def test_weights_and_prices(solver):
    """The multiplier of the budget is that of ½‖w‖² − μᵀw + ν(1ᵀw − 1): μ − w."""
    s = solve(solver)
    close(s.w, (0.4, 0.3, 0.2, 0.1))
    close(s.nu.unsqueeze(0), (-0.25,))
    assert s.free.all()
    capped = solve(solver, max_weight=0.35)
    close(capped.w, (0.35, 0.95 / 3, 0.65 / 3, 0.35 / 3))
    close(capped.nu.unsqueeze(0), (-0.8 / 3,))
    close(capped.lam_ub, (0.2 / 3, 0.0, 0.0, 0.0))
    close(capped.lam_lb, (0.0, 0.0, 0.0, 0.0))
    # A fourth of −.95 is held at zero: μ + ν of the others is 1, and −.95 + ν is short of 0.
    low = solve(solver, mu=[(0.15, 0.05, -0.05, -0.95)])
    close(low.w, (1.3 / 3, 1.0 / 3, 0.7 / 3, 0.0))
    close(low.lam_lb, (0.0, 0.0, 0.0, 0.95 - 0.85 / 3))


@SOLVERS
def test_a_day_without_an_account_trades_for_free(solver):
    """The second holds a quarter each: trades of .15 and .05 are .05 smaller at the cost of .05."""
    previous = table((float("nan"),) * 4, (0.25,) * 4)
    s = solve(solver, previous, mu=[MU, MU], turnover_cost=0.05)
    close(s.w, (0.4, 0.3, 0.2, 0.1), (0.35, 0.25, 0.25, 0.15))
    if solver == "structured":
        assert s.free.tolist() == [[True] * 4, [True, False, False, True]]


@SOLVERS
def test_names_outside_of_the_day_are_zero_and_free_of_cost(solver):
    """3ν = 1 − .15 of three names. With .25 held of each, .25 in all must be bought.

    C would have .7/3 for free and is not sold for .05; A and B share .75.
    """
    mask = torch.tensor([[True, True, True, False]])
    free = solve(solver, mask=mask)
    close(free.w, (1.3 / 3, 1.0 / 3, 0.7 / 3, 0.0))
    held = solve(solver, table((0.25,) * 4), mask=mask, turnover_cost=0.05)
    close(held.w, (0.425, 0.325, 0.25, 0.0))


@pytest.mark.parametrize("solver", ["structured", "dense", "clarabel"])
def test_rows_and_their_prices(solver):
    """A + B ≤ .6, or = .6: ν of the budget is −.3, and the row's price .1 (w = μ − ν − λ)."""
    row, limit = table((1.0, 1, 0, 0)).unsqueeze(0), table((0.6,))
    below = solve(solver, rows={"G": row, "h": limit})
    close(below.w, (0.35, 0.25, 0.25, 0.15))
    close(below.lam, (0.1,))
    equal = solve(solver, rows={"A": row, "b": limit})
    close(equal.w, (0.35, 0.25, 0.25, 0.15))
    close(equal.nu_rows, (0.1,))
    close(equal.nu.unsqueeze(0), (-0.3,))
