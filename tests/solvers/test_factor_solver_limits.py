"""Days with limits: rows that bind in Newton's system give what the whole interior point gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_factor_solver_rows import assert_optimal, clarabel

from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.factor import interior_start, solver

SOLVED, INFEASIBLE = SolveStatus.SOLVED.code, SolveStatus.PRIMAL_INFEASIBLE.code

SEARCH = settings(max_examples=30, deadline=None, derandomize=True)


def market(T=6, n=200, k=4, groups=25, p=0, size=0.02, cap=0.05, cost=1e-3, seed=0) -> dict:
    """Days with names masked at random, limits on groups, and a portfolio held before."""
    rng = np.random.default_rng(seed)
    mask = rng.random((T, n)) < 0.95
    loadings = 0.04 * rng.normal(size=(T, n, k))
    loadings[..., 0] += 0.13
    member = rng.integers(0, groups, size=(T, n))
    G = (member[:, None] == np.arange(groups)[:, None]) * mask[:, None] * 1.0
    held = (rng.random((T, n)) < 0.1) & mask
    data = {
        "q": -size * rng.normal(size=(T, n)),
        "loadings": loadings,
        "specific": 0.04 * rng.uniform(0.3, 2.0, size=(T, n)),
        "ub": np.full((T, n), cap),
        "mask": mask,
    }
    data = {name: torch.tensor(value) for name, value in data.items()}
    limit = G.sum(-1) / mask.sum(-1, keepdims=True) + 0.03
    data["G"], data["h"] = torch.tensor(G), torch.tensor(limit)
    if p:
        A = rng.normal(size=(T, p, n)) * mask[:, None]
        even = mask / mask.sum(-1, keepdims=True)
        data["A"], data["b"] = torch.tensor(A), torch.tensor(A @ even[..., None])[..., 0]
    if cost:
        data["cost"] = torch.full((T, n), cost, dtype=torch.float64)
        data["reference"] = torch.tensor(held / held.sum(-1, keepdims=True))
    return data


def refuse(*_, **__):
    raise AssertionError("the interior point was called")


@pytest.fixture
def whole(monkeypatch):
    """A way to solve without the pool and without Newton's method on binding rows."""

    def solve(**data):
        with monkeypatch.context() as patch:
            patch.setattr(solver, "dual_newton_rows", lambda form, points, days, tolerance: days)
            return factor_qp(**data)

    return solve


@pytest.mark.parametrize("cost", [0.0, 1e-3])
@pytest.mark.parametrize("size", [1e-3, 0.02, 1.0])
@pytest.mark.parametrize("p", [0, 2])
def test_both_ways_agree_in_weights_duals_and_gradients(p, size, cost, whole):
    data = market(p=p, size=size, cost=cost, seed=7 * p)
    data["q"].requires_grad_()
    loss = torch.randn(data["q"].shape, generator=torch.Generator().manual_seed(1)).double()
    found = []
    for solve in (factor_qp, whole):
        s = solve(**data)
        assert (s.codes == SOLVED).all() and (s.kkt_norm <= 1e-10).all()
        (gradient,) = torch.autograd.grad((s.w * loss).sum(), data["q"])
        found.append((s, gradient))
    (one, g), (other, h) = found
    torch.testing.assert_close(one.w, other.w, rtol=0, atol=1e-11)
    assert torch.equal(one.w == 0, other.w == 0) and torch.equal(one.w == 0.05, other.w == 0.05)
    torch.testing.assert_close(one.lam, other.lam, rtol=0, atol=1e-9 * size)
    torch.testing.assert_close(one.nu_rows, other.nu_rows, rtol=0, atol=1e-9 * size)
    torch.testing.assert_close(g, h, rtol=1e-7, atol=1e-7 * float(h.abs().max()))


def test_days_with_limits_and_costs_need_no_whole_interior_point(monkeypatch):
    monkeypatch.setattr(solver, "interior_point", refuse)
    data = market(T=20)
    data["mask"] = torch.ones_like(data["mask"])
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all() and (s.lam > 0).any()
    assert_optimal(data, s)


@SEARCH
@given(
    st.integers(0, 2**31),
    st.integers(3, 90),
    st.integers(1, 30),
    st.sampled_from([1e-4, 1e-2, 1.0]),
    st.sampled_from([0.0, 1e-3]),
    st.booleans(),
)
def test_any_rows_redundant_ones_too(seed, n, m, size, cost, again):
    """Rows of either sign, all met by equal weights, some of them binding there; some twice."""
    rng = np.random.default_rng(seed)
    data = market(T=2, n=n, groups=1, size=size, cap=1.0, cost=0.0, seed=seed)
    data["mask"] = torch.ones_like(data["mask"])
    G = rng.normal(size=(2, m, n)) * (rng.random((2, m, n)) < 0.5)
    h = G.mean(-1) + rng.choice([0.0, 0.05], size=(2, m))
    if again:
        G, h = np.concatenate([G, G, 2 * G], 1), np.concatenate([h, h + 0.01, 2 * h], 1)
    data["G"], data["h"] = torch.tensor(G), torch.tensor(h)
    if cost:
        data["cost"] = torch.full((2, n), cost, dtype=torch.float64)
        data["reference"] = torch.tensor(rng.dirichlet(np.full(n, 0.2), size=2))
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all()
    assert_optimal(data, s)


@pytest.mark.parametrize("cost", [0.0, 1e-3])
def test_it_agrees_with_clarabel_on_many_names(cost):
    data = market(T=3, cost=cost)
    s = factor_qp(**data)
    for t in range(3):
        theirs = clarabel(data, t, data["mask"])
        np.testing.assert_allclose(s.w[t], theirs, rtol=0, atol=1e-7)


def test_a_row_that_only_touches_the_optimum_has_dual_zero():
    data = market(size=2e-3, cap=0.5)  # small forecasts: many free names, so unique duals
    del data["G"], data["h"]
    free = factor_qp(**data)
    assert (free.free.sum(-1) > 5).all()
    G = torch.rand(6, 3, 200, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    touched = torch.einsum("tmn,tn->tm", G, free.w)
    s = factor_qp(**data, G=G, h=touched)
    assert (s.codes == SOLVED).all()
    torch.testing.assert_close(s.w, free.w, rtol=0, atol=1e-10)
    assert s.lam.abs().max() <= 1e-10


def test_the_order_of_rows_and_of_days_does_not_matter():
    data = market()
    one = factor_qp(**data)
    G, h = data["G"], data["h"]
    order = torch.randperm(G.shape[1], generator=torch.Generator().manual_seed(3))
    other = factor_qp(**{**data, "G": G[:, order], "h": h[:, order]})
    torch.testing.assert_close(other.w, one.w, rtol=0, atol=1e-11)
    torch.testing.assert_close(other.lam, one.lam[:, order], rtol=0, atol=1e-11)
    back = {
        k: tuple(x.flip(0) for x in v) if isinstance(v, tuple) else v.flip(0)
        for k, v in data.items()
    }
    torch.testing.assert_close(factor_qp(**back).w.flip(0), one.w, rtol=0, atol=1e-11)


def test_identical_names_hold_alike():
    data = market(T=2, n=90, cap=1.0)
    data["mask"] = torch.ones_like(data["mask"])

    def twice(value):
        return torch.cat([value, value], -1 if value.ndim == 2 else 1)

    G, h = data.pop("G"), data.pop("h")
    data = {name: twice(value) for name, value in data.items()}
    data["reference"] = data["reference"] / 2
    s = factor_qp(**data, G=torch.cat([G, G], -1), h=h)
    assert (s.codes == SOLVED).all() and (s.lam > 0).any()
    torch.testing.assert_close(s.w[:, :90], s.w[:, 90:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("low", [0.002, -0.01, -torch.inf])
def test_names_with_other_lower_bounds(low, whole):
    data = market(T=4)
    data["lb"] = torch.full_like(data["ub"], low)
    s, other = factor_qp(**data), whole(**data)
    assert (s.codes == SOLVED).all()
    torch.testing.assert_close(s.w, other.w, rtol=0, atol=1e-10)


def test_no_budget():
    data = market(T=4, cost=0.0)
    s = factor_qp(**data, budget=None)
    assert (s.codes == SOLVED).all() and (s.w.sum(-1) > 0).all()
    P = data["loadings"] @ data["loadings"].mT + torch.diag_embed(data["specific"])
    G = data["G"]
    gradient = torch.einsum("tij,tj->ti", P, s.w) + data["q"] + torch.einsum("tmn,tm->tn", G, s.lam)
    gradient = (gradient - s.lam_lb + s.lam_ub) * data["mask"]
    assert gradient.abs().max() <= 1e-11 and s.lam.min() >= 0


def test_infeasible_limits_are_proved_and_spoil_no_other_day():
    data = market(T=5)
    good = factor_qp(**data)
    G, h = data["G"], data["h"]
    h[1], h[3] = 0.9 / G.shape[1], 0.0
    s = factor_qp(**data, on_failure="nan")
    assert s.codes.tolist() == [SOLVED, INFEASIBLE, SOLVED, INFEASIBLE, SOLVED]
    for t in (0, 2, 4):
        torch.testing.assert_close(s.w[t], good.w[t], rtol=0, atol=1e-11)
    for t in (1, 3):
        rows = s.nu[t] + G[t].T @ s.lam[t] - s.lam_lb[t] + s.lam_ub[t]
        assert (rows * data["mask"][t]).abs().max() <= 1e-9 and s.lam[t].min() >= -1e-9
        assert s.nu[t] + h[t] @ s.lam[t] + data["ub"][t] @ s.lam_ub[t] < 0


def test_more_rows_are_violated_than_the_pool_holds(monkeypatch):
    monkeypatch.setattr(interior_start, "_ROWS", 2)
    monkeypatch.setattr(interior_start, "_MORE_ROWS", 0)
    monkeypatch.setattr(interior_start, "_NAMES", 4)
    data = market(T=8)
    few = factor_qp(**data)
    monkeypatch.undo()
    assert (few.codes == SOLVED).all()
    torch.testing.assert_close(few.w, factor_qp(**data).w, rtol=0, atol=1e-11)


@pytest.mark.parametrize("moved", [0.0, 1e-4, 0.3])
def test_an_earlier_solution_changes_nothing_but_the_way(moved):
    data = market(T=8)
    start = factor_qp(**data)
    noise = torch.randn(data["q"].shape, generator=torch.Generator().manual_seed(2)).double()
    data["q"] = data["q"] + moved * 0.02 * noise
    cold, warm = factor_qp(**data), factor_qp(**data, initial_point=start)
    assert (warm.codes == SOLVED).all()
    torch.testing.assert_close(warm.w, cold.w, rtol=0, atol=1e-11)
    assert moved or warm.iterations.max() <= 1
