"""The structured solver with rows, costs and flat names: Clarabel, failures, warm starts."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.layers.factor import factor_qp
from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.factor.problem import FactorSolution

SOLVED = SolveStatus.SOLVED.code
INFEASIBLE = SolveStatus.PRIMAL_INFEASIBLE.code
BAD_DATA = SolveStatus.BAD_DATA.code

SEARCH = settings(max_examples=40, deadline=None, derandomize=True)


def market(T=4, n=30, k=3, p=1, m=4, size=1e-3, cap=0.2, cost=0.0, seed=0) -> dict:
    """Days with factor-neutral rows and group caps; equal weights satisfy every row."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(T, p, n))
    G = np.abs(rng.normal(size=(T, m, n))) * (rng.random((T, m, n)) < 0.4)
    even = np.full(n, 1 / n)
    data = {
        "q": -size * rng.normal(size=(T, n)),
        "loadings": 0.01 * rng.normal(size=(T, n, k)),
        "specific": 1e-4 * rng.uniform(0.1, 3.0, size=(T, n)),
        "ub": np.full((T, n), cap),
    }
    data = {name: torch.tensor(value) for name, value in data.items()}
    if p:
        data["A"], data["b"] = torch.tensor(A), torch.tensor(A @ even)
    if m:
        data["G"], data["h"] = torch.tensor(G), torch.tensor(G @ even * 1.1)
    if cost:
        data["cost"] = torch.tensor(cost * rng.uniform(size=(T, n)))
        data["reference"] = torch.tensor(rng.dirichlet(np.full(n, 0.2), size=T))
    return data


def clarabel(data: dict, t: int, mask: torch.Tensor | None = None) -> float:
    """The optimal value of day t by Clarabel, and the weights."""
    on = np.ones(data["q"].shape[1], bool) if mask is None else mask[t].numpy()

    def day(name):
        return data[name][t].numpy()[on]

    q, B, d = day("q"), day("loadings"), day("specific")
    w = cp.Variable(len(q))
    scale = 1 / max(np.abs(q).max(), d.max(), 1e-12)
    risk = cp.sum_squares((np.sqrt(scale / 2) * B.T) @ w)
    risk += cp.sum(cp.multiply(d * scale / 2, w**2)) + (scale * q) @ w
    constraints = [cp.sum(w) == 1, w >= 0, w <= day("ub")]
    if "A" in data:
        A, b = (v[t].numpy() for v in (data["A"], data["b"]))
        constraints.append(A[:, on] @ w == b)
    if "G" in data:
        G, h = (v[t].numpy() for v in (data["G"], data["h"]))
        constraints.append(G[:, on] @ w <= h)
    if "cost" in data:
        risk += cp.sum(cp.multiply(scale * day("cost"), cp.abs(w - day("reference"))))
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas", "tol_ktratio")
    problem = cp.Problem(cp.Minimize(risk), constraints)
    problem.solve(solver=cp.CLARABEL, **dict.fromkeys(names, 1e-12))
    out = np.zeros(len(on))
    if w.value is not None:
        out[on] = w.value
    return out


def assert_optimal(data: dict, s: FactorSolution) -> None:
    """The optimality conditions, from the data and the duals alone."""
    w = s.w
    P = data["loadings"] @ data["loadings"].mT + torch.diag_embed(data["specific"])
    gradient = torch.einsum("tij,tj->ti", P, w) + data["q"] + s.nu[:, None] - s.lam_lb + s.lam_ub
    if "A" in data:
        A, b = data["A"], data["b"]
        gradient = gradient + torch.einsum("tpn,tp->tn", A, s.nu_rows)
        assert (torch.einsum("tpn,tn->tp", A, w) - b).abs().max() <= 1e-9
    if "G" in data:
        G, h = data["G"], data["h"]
        gradient = gradient + torch.einsum("tmn,tm->tn", G, s.lam)
        slack = h - torch.einsum("tmn,tn->tm", G, w)
        scale = 1e-9 * (1 + data["q"].abs().max())
        assert slack.min() >= -1e-9 and s.lam.min() >= -scale
        assert (s.lam * slack).abs().max() <= scale
    scale = 1e-9 * torch.maximum(data["q"].abs().amax(-1), torch.tensor(1e-3))[:, None]
    cost = data.get("cost", torch.zeros(1, dtype=torch.float64))
    side = (w - data["reference"]).sign() * cost if "reference" in data else 0 * gradient
    still = side == 0
    assert (gradient + side)[~still].abs().le(scale.expand_as(w)[~still] * 10).all()
    assert (gradient.abs() <= cost + 10 * scale)[still].all()
    assert (s.lam_lb >= 0).all() and (s.lam_ub >= 0).all()
    assert (s.lam_lb[w > 0] == 0).all() and (s.lam_ub[w < data["ub"]] == 0).all()
    assert (w.sum(-1) - 1).abs().max() <= 1e-10


@pytest.mark.parametrize("cost", [0.0, 3e-4])
@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize(("p", "m"), [(0, 5), (2, 0), (1, 4), (0, 0)])
def test_it_agrees_with_clarabel(p, m, size, cost):
    data = market(p=p, m=m, size=size, cost=cost, seed=int(1 / size) + p)
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all() and (s.kkt_norm <= 1e-10).all()
    assert_optimal(data, s)
    for t in range(4):
        np.testing.assert_allclose(s.w[t], clarabel(data, t), rtol=0, atol=1e-7)


@SEARCH
@given(
    st.integers(0, 2**31),
    st.integers(2, 14),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 4),
    st.sampled_from([1e-5, 1e-3, 1.0]),
    st.sampled_from([0.0, 1e-4, 1e-2]),
)
def test_any_day_is_solved_to_the_optimality_conditions(seed, n, k, p, m, size, cost):
    data = market(n=n, k=k, p=min(p, n - 2), m=m, size=size, cap=1.0, cost=cost, seed=seed)
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all()
    assert_optimal(data, s)


@SEARCH
@given(st.integers(0, 2**31), st.sampled_from([0.0, 3e-4]))
def test_masks_and_permutations_with_rows_and_costs(seed, cost):
    data = market(T=2, n=12, cost=cost, seed=seed, cap=0.5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    wide = dict(data)
    for name, value in data.items():
        if name in ("A", "G"):
            fill = torch.full((2, value.shape[1], 5), torch.nan, dtype=torch.float64)
            wide[name] = torch.cat([value[..., order], fill], -1)
        elif name not in ("b", "h"):
            fill = torch.full((2, 5, *value.shape[2:]), torch.nan, dtype=torch.float64)
            wide[name] = torch.cat([value[:, order], fill], 1)
    one, other = factor_qp(**data), factor_qp(**wide, mask=(torch.arange(17) < 12).expand(2, -1))
    assert (other.w[:, 12:] == 0).all()
    torch.testing.assert_close(other.w[:, :12], one.w[:, order], rtol=0, atol=1e-8)


def test_bounds_caps_and_references_are_met_exactly():
    data = market(T=20, n=60, size=1e-3, cap=0.05, cost=1e-3, m=6)
    s = factor_qp(**data)
    held = (s.w == 0) | (s.w == 0.05) | (s.w == data["reference"])
    assert torch.equal(held, ~s.free)
    assert (s.w == data["reference"])[data["reference"] > 0].any()


def test_a_prohibitive_cost_keeps_the_portfolio():
    data = market(p=0, m=0, cap=1.0, cost=1.0, n=10)
    data["cost"] = data["cost"] + 1
    assert torch.equal(factor_qp(**data).w, data["reference"])


# Flat names, degenerate days


@pytest.mark.parametrize("m", [0, 3])
def test_names_without_specific_variance(m):
    data = market(T=8, m=m, p=0, size=1e-3)
    data["specific"][:, ::3] = 0
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all()
    assert_optimal(data, s)


def test_a_linear_programme_is_solved_at_a_vertex():
    data = market(p=0, m=0, cap=0.25)
    data["specific"], data["loadings"] = 0 * data["specific"], 0 * data["loadings"]
    s = factor_qp(**data)
    best = data["q"].argsort(-1)[:, :4]
    assert (s.codes == SOLVED).all()
    torch.testing.assert_close(
        s.w, torch.zeros_like(s.w).scatter(-1, best, 0.25), rtol=0, atol=1e-12
    )


def test_identical_flat_names_share_alike():
    data = market(T=2, n=8, p=0, m=0, cap=1.0)
    data = {k: v[:, :1].expand(-1, 8, *v.shape[2:]).clone() for k, v in data.items()}
    data["specific"] = torch.zeros_like(data["specific"])
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all()
    torch.testing.assert_close(s.w, torch.full_like(s.w, 1 / 8), rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_factor_variance_far_above_specific_variance(ratio):
    data = market(T=8, n=60, k=5, p=0, m=0, size=1e-3)
    data["specific"] = data["loadings"].square().sum(-1) / ratio
    s = factor_qp(**data)
    assert (s.codes == SOLVED).all()
    assert_optimal(data, s)


def test_dependent_rows():
    data = market(p=1, m=2)
    A, b = data["A"], data["b"]
    G, h = data["G"], data["h"]
    twice = {**data, "A": torch.cat([A, 2 * A], 1), "b": torch.cat([b, 2 * b], 1)}
    twice["G"], twice["h"] = torch.cat([G, G], 1), torch.cat([h, h], 1)
    s = factor_qp(**twice)
    assert (s.codes == SOLVED).all()
    torch.testing.assert_close(s.w, factor_qp(**data).w, rtol=0, atol=1e-9)


def test_infinite_bounds():
    data = market(p=0, m=0)
    data |= {"lb": -torch.inf, "ub": torch.inf}
    s = factor_qp(**data)
    P = data["loadings"] @ data["loadings"].mT + torch.diag_embed(data["specific"])
    gradient = torch.einsum("tij,tj->ti", P, s.w) + data["q"] + s.nu[:, None]
    assert (s.codes == SOLVED).all() and s.free.all()
    assert gradient.abs().max() <= 1e-12 and (s.w.sum(-1) - 1).abs().max() <= 1e-12


# Failures and warm starts


def test_an_infeasible_day_has_a_certificate_and_spoils_no_other():
    data = market(T=5, p=1, m=3)
    good = factor_qp(**data)
    A, b = data["A"], data["b"]
    G, h = data["G"], data["h"]
    G[1, 0], h[1, 0] = 1.0, 0.5
    b[3, 0] = 100.0
    s = factor_qp(**data, on_failure="nan")
    assert s.codes.tolist() == [SOLVED, INFEASIBLE, SOLVED, INFEASIBLE, SOLVED]
    for t in (0, 2, 4):
        torch.testing.assert_close(s.w[t], good.w[t], rtol=0, atol=1e-10)
    for t in (1, 3):
        assert s.w[t].isnan().all()
        rows = s.nu[t] + A[t].T @ s.nu_rows[t] + G[t].T @ s.lam[t] - s.lam_lb[t] + s.lam_ub[t]
        assert rows.abs().max() <= 1e-9
        value = s.nu[t] + b[t] @ s.nu_rows[t] + h[t] @ s.lam[t] + data["ub"][t] @ s.lam_ub[t]
        assert value < 0 and s.lam[t].min() >= -1e-9


def test_a_bad_day_is_named_or_set_aside():
    data = market(T=4)
    good = factor_qp(**data)
    data["q"][1, 2], data["specific"][2, 3] = torch.nan, -1.0
    data["b"][3, 0] = torch.inf
    s = factor_qp(**data, on_failure="nan")
    assert s.codes.tolist() == [SOLVED, BAD_DATA, BAD_DATA, BAD_DATA]
    assert s.w[1:].isnan().all() and torch.equal(s.w[0], good.w[0])


@pytest.mark.parametrize("m", [0, 4])
def test_an_earlier_solution_gives_the_same_answer_sooner(m):
    data = market(T=30, n=60, p=m // 4, m=m, cost=3e-4, cap=0.1)
    cold = factor_qp(**data)
    again = factor_qp(**data, initial_point=cold)
    assert again.iterations.max() <= 1
    torch.testing.assert_close(again.w, cold.w, rtol=0, atol=1e-10)
    data["q"] = data["q"] * 1.01
    fresh, warm = factor_qp(**data), factor_qp(**data, initial_point=cold)
    assert (warm.codes == SOLVED).all() and warm.iterations.sum() < fresh.iterations.sum()
    torch.testing.assert_close(warm.w, fresh.w, rtol=0, atol=1e-9)
    some = torch.tensor([3, 7])
    part = {
        k: tuple(v[some] for v in value) if isinstance(value, tuple) else value[some]
        for k, value in data.items()
    }
    warm = factor_qp(**part, initial_point=cold.days(some))
    torch.testing.assert_close(warm.w, fresh.w[some], rtol=0, atol=1e-9)


def test_float32_in_float32_out_solved_in_float64():
    data = market(cost=3e-4)
    rough = {
        k: tuple(x.float() for x in v) if isinstance(v, tuple) else v.float()
        for k, v in data.items()
    }
    s = factor_qp(**rough)
    assert s.w.dtype == torch.float32 and (s.kkt_norm <= 1e-10).all()
    torch.testing.assert_close(s.w.double(), factor_qp(**data).w, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", [1, 99999])
def test_days_that_the_interior_point_leaves_in_another_order_keep_their_own_rows(seed):
    """Costs far above the forecasts: days leave the interior point unsolved, one by one."""
    data = market(p=0, m=5, size=1e-5, cost=3e-4, seed=seed)
    together = factor_qp(**data)
    assert_optimal(data, together)
    for t in range(4):
        day = {k: v[t : t + 1] for k, v in data.items() if isinstance(v, torch.Tensor)}
        day["G"], day["h"] = data["G"][t : t + 1], data["h"][t : t + 1]
        alone = factor_qp(**{**{k: v for k, v in data.items() if k not in day}, **day})
        torch.testing.assert_close(alone.w[0], together.w[t], rtol=0, atol=1e-9)
