"""The structured batched solver: closed forms, Clarabel's answers, hard days and properties."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bpqp_portfolio.problems.solution import SolveStatus
from bpqp_portfolio.solvers.factor.problem import FactorQP, FactorSolution
from bpqp_portfolio.solvers.factor.residuals import kkt_norm
from bpqp_portfolio.solvers.factor.solver import solve_factor_qp

SOLVED = SolveStatus.SOLVED.code
INACCURATE = SolveStatus.INACCURATE.code
INFEASIBLE = SolveStatus.PRIMAL_INFEASIBLE.code

SEARCH = settings(max_examples=60, deadline=None, derandomize=True)
TOLERANCE = 1e-10


def market(T=8, n=30, k=4, size=1e-3, seed=0, cap=1.0) -> dict[str, torch.Tensor]:
    """T random days: q = −μ of the given size, factor risk of the size that stocks have."""
    rng = np.random.default_rng(seed)
    data = {
        "q": -size * rng.normal(size=(T, n)),
        "loadings": 0.01 * rng.normal(size=(T, n, k)),
        "d": 1e-4 * rng.uniform(0.1, 3.0, size=(T, n)),
        "lb": np.zeros((T, n)),
        "ub": np.full((T, n), cap),
        "budget": np.ones(T),
    }
    return {name: torch.tensor(value) for name, value in data.items()}


def solve(data: dict[str, torch.Tensor], **options) -> FactorSolution:
    mask = options.pop("mask", torch.ones_like(data["q"], dtype=torch.bool))
    return solve_factor_qp(FactorQP(**data, mask=mask), **{"tolerance": TOLERANCE, **options})[0]


def covariance(data) -> torch.Tensor:
    return data["loadings"] @ data["loadings"].mT + torch.diag_embed(data["d"])


def objective(data, w) -> torch.Tensor:
    return 0.5 * torch.einsum("ti,tij,tj->t", w, covariance(data), w) + (data["q"] * w).sum(-1)


def assert_solved(solution: FactorSolution) -> None:
    assert (solution.codes == SOLVED).all()
    assert (solution.kkt_norm <= TOLERANCE).all()


def simplex_projection(v: np.ndarray) -> np.ndarray:
    """Euclidean projection on the simplex by sorting."""
    ordered = np.sort(v)[::-1]
    shift = (np.cumsum(ordered) - 1) / np.arange(1, len(v) + 1)
    return np.maximum(v - shift[np.flatnonzero(ordered > shift)[-1]], 0)


# Closed forms


@pytest.mark.parametrize("factors", [0, 3])
def test_without_factor_risk_it_is_a_projection_on_the_simplex(factors):
    data = market(k=factors, size=3e-4)
    data["loadings"] *= 0
    data["d"] = torch.full_like(data["d"], 2e-3)
    solution = solve(data)
    assert_solved(solution)
    expected = np.stack([simplex_projection(v) for v in (-data["q"] / data["d"]).numpy()])
    assert 1 < (expected > 0).sum(1).mean() < 30
    np.testing.assert_allclose(solution.w, expected, rtol=0, atol=1e-14)


def test_unequal_specific_variances_are_filled_like_water():
    data = market(k=0, size=3e-4, cap=0.2)
    solution = solve(data)
    level = (-data["q"] - solution.nu.unsqueeze(-1)) / data["d"]
    torch.testing.assert_close(solution.w, level.clamp(0, 0.2), rtol=0, atol=1e-12)
    assert ((solution.w == 0.2).any(-1) & (solution.w == 0).any(-1) & solution.free.any(-1)).any()


def test_away_from_the_bounds_it_is_the_closed_form():
    data = market(size=1e-3)
    data["lb"], data["ub"] = data["lb"] - 1e3, data["ub"] + 1e3
    solution = solve(data)
    one = torch.ones_like(data["q"])
    inverse = torch.linalg.inv(covariance(data))
    inverse_q, inverse_1 = inverse @ data["q"].unsqueeze(-1), inverse @ one.unsqueeze(-1)
    nu = -(1 + inverse_q.sum((-1, -2))) / inverse_1.sum((-1, -2))
    w = -(inverse_q.squeeze(-1) + nu.unsqueeze(-1) * inverse_1.squeeze(-1))
    assert solution.free.all()
    torch.testing.assert_close(solution.w, w, rtol=0, atol=1e-10)
    torch.testing.assert_close(solution.nu, nu, rtol=1e-9, atol=0)


def test_one_overwhelming_name_gets_everything():
    data = market(size=1e-4)
    data["q"][:, 7] = -1.0
    solution = solve(data)
    assert torch.equal(solution.w, torch.eye(30, dtype=torch.float64)[7].expand(8, -1))


def test_large_forecasts_fill_the_best_names_to_the_cap():
    data = market(size=1.0, cap=0.05, n=60)
    solution = solve(data)
    best = data["q"].argsort(-1)[:, :20]
    expected = torch.zeros_like(data["q"]).scatter(-1, best, 0.05)
    torch.testing.assert_close(solution.w, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("value", [0.0, 0.02, -3.0])
def test_equal_names_get_equal_weights(value):
    data = market(n=7)
    data["q"] = torch.full_like(data["q"], value)
    data["loadings"] = data["loadings"][:, :1].expand(-1, 7, -1)
    data["d"] = data["d"][:, :1].expand(-1, 7)
    solution = solve(data)
    assert_solved(solution)
    torch.testing.assert_close(solution.w, torch.full_like(data["q"], 1 / 7), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 7, 10, 49, 300])
@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_a_cap_that_only_just_reaches_the_budget_puts_every_name_there(n, size):
    solution = solve(market(n=n, cap=1 / n, size=size))
    assert_solved(solution)
    torch.testing.assert_close(solution.w, torch.full_like(solution.w, 1 / n), rtol=1e-11, atol=0)


def test_pinned_names_stay_where_they_are_held():
    data = market()
    data["lb"][:, 3] = data["ub"][:, 3] = 0.123
    solution = solve(data)
    assert_solved(solution)
    assert (solution.w[:, 3] == 0.123).all()


# Against Clarabel


def clarabel(data, t: int) -> np.ndarray:
    """The weights of day t by Clarabel at 1e-12, the objective scaled to the order of one."""
    q, B, d, lower, upper, budget = (data[key][t].numpy() for key in data)
    scale = 1 / max(np.abs(q - q.mean()).max(), d.max())
    w = cp.Variable(len(q))
    risk = cp.sum(cp.multiply(d * scale / 2, w**2))
    if B.any():
        risk += cp.sum_squares((np.sqrt(scale / 2) * B.T) @ w)
    problem = cp.Problem(
        cp.Minimize(risk + (scale * (q - q.mean())) @ w),
        [cp.sum(w) == budget, w >= lower, w <= upper],
    )
    names = ("tol_gap_abs", "tol_gap_rel", "tol_feas", "tol_ktratio")
    problem.solve(solver=cp.CLARABEL, **dict.fromkeys(names, 1e-12))
    return w.value


@pytest.mark.parametrize("cap", [1.0, 0.1])
@pytest.mark.parametrize("size", [1e-5, 1e-4, 1e-3, 1e-1])
def test_it_agrees_with_clarabel(cap, size):
    data = market(T=6, cap=cap, size=size, seed=int(1 / size))
    solution = solve(data)
    assert_solved(solution)
    for t in range(6):
        np.testing.assert_allclose(solution.w[t], clarabel(data, t), rtol=0, atol=1e-8)


def test_it_agrees_with_clarabel_on_long_short_boxes_and_other_budgets():
    data = market(T=6, size=1e-3)
    rng = np.random.default_rng(1)
    data["lb"] = torch.tensor(-rng.uniform(0, 0.3, size=(6, 30)))
    data["ub"] = torch.tensor(rng.uniform(0, 0.3, size=(6, 30)))
    data["budget"] = torch.tensor([0.0, 0.5, 1.0, -0.5, 2.0, 0.0])
    solution = solve(data)
    assert_solved(solution)
    for t in range(6):
        np.testing.assert_allclose(solution.w[t], clarabel(data, t), rtol=0, atol=1e-8)


# What a solution says of itself


def test_the_kkt_norm_is_the_residual_of_the_optimality_conditions():
    data = market(cap=0.2)
    solution = solve(data)
    w, nu = solution.w, solution.nu.unsqueeze(-1)
    gradient = torch.einsum("tij,tj->ti", covariance(data), w) + data["q"] + nu
    scale = data["q"].abs().amax(-1, keepdim=True)
    assert (gradient[solution.free].abs() <= 1e-9 * scale.max()).all()
    assert (gradient >= -1e-9 * scale)[w == 0].all()
    assert (gradient <= 1e-9 * scale)[w == 0.2].all()
    assert (w.sum(-1) - 1).abs().max() <= 1e-12
    torch.testing.assert_close(
        solution.x, torch.einsum("tnk,tn->tk", data["loadings"], w), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("error", [1e-3, 1e-6])
def test_the_kkt_norm_sees_a_wrong_point(error):
    data = market()
    mask = torch.ones_like(data["q"], dtype=torch.bool)
    solution, form, w = solve_factor_qp(FactorQP(**data, mask=mask))
    middle = 0.5 * (data["q"].amax(-1) + data["q"].amin(-1))
    y = ((solution.nu + middle) / form.gradient_unit).unsqueeze(-1)
    assert (kkt_norm(form, w, y) <= TOLERANCE).all()
    moved = w.clone()
    moved[:, 0] += error
    assert (kkt_norm(form, moved, y) >= 0.9 * error).all()
    # On a day without a free name the dual is not unique.
    some = solution.free.any(-1)
    assert some.sum() >= 5 and (kkt_norm(form, w, y + error)[some] >= 0.3 * error).all()


def test_zeros_are_exact_and_the_rest_is_free_or_at_the_cap():
    solution = solve(market(T=40, n=100, cap=0.1))
    w = solution.w
    assert (w == 0).sum() > 1000
    assert (((w == 0) | (w == 0.1)) == ~solution.free).all()
    assert w[solution.free].min() > 1e-9


# Masks, batches, failures


def test_masked_names_are_exactly_zero_and_change_nothing():
    data = market(n=20, size=3e-4)
    plain = solve(data)
    padded = {
        key: torch.cat([value, torch.full_like(value, 7.0)], 1) if value.ndim > 1 else value
        for key, value in data.items()
    }
    mask = torch.arange(40).expand(8, -1) < 20
    for filler in (7.0, torch.nan, torch.inf):
        for key in ("q", "d", "loadings"):
            padded[key][:, 20:] = filler
        solution = solve(padded, mask=mask)
        assert (solution.w[:, 20:] == 0).all() and not solution.free[:, 20:].any()
        torch.testing.assert_close(solution.w[:, :20], plain.w, rtol=0, atol=1e-13)
        torch.testing.assert_close(solution.kkt_norm, plain.kkt_norm, rtol=0, atol=1e-12)


def test_an_infeasible_day_says_so_and_spoils_no_other():
    data = market()
    good = solve(data)
    data["ub"][2] = 0.01
    data["lb"][5, 3] = 2.0
    data["ub"][5, 3] = 2.0
    data["lb"][6, 4], data["ub"][6, 4] = 0.3, 0.2
    solution = solve(data)
    bad = torch.tensor([t in (2, 5, 6) for t in range(8)])
    assert torch.equal(solution.codes == INFEASIBLE, bad)
    assert solution.w[bad].isnan().all() and solution.kkt_norm[bad].isnan().all()
    assert solution.nu[bad].abs().max() <= 1
    assert (solution.codes[~bad] == SOLVED).all()
    torch.testing.assert_close(solution.w[~bad], good.w[~bad], rtol=0, atol=1e-12)


def test_a_day_does_not_depend_on_the_batch_it_is_in():
    days = [
        market(T=5, n=40, size=size, seed=i, cap=0.2)
        for i, size in enumerate((1e-9, 1e-5, 1e-3, 1e-2, 1e6))
    ]
    batch = solve({key: torch.cat([day[key] for day in days]) for key in days[0]})
    alone = [
        solve({key: value[t : t + 1] for key, value in day.items()})
        for day in days
        for t in range(5)
    ]
    for name in ("w", "nu", "x"):
        separate = torch.cat([getattr(s, name) for s in alone])
        torch.testing.assert_close(getattr(batch, name), separate, rtol=1e-12, atol=1e-13)
    assert torch.equal(batch.iterations, torch.cat([s.iterations for s in alone]))


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_the_iteration_limit_leaves_an_inaccurate_day(limit):
    data = market(size=1e-5)
    solution = solve(data, max_iterations=limit)
    assert (solution.codes == INACCURATE).any()
    assert ((solution.codes == SOLVED) == (solution.kkt_norm <= TOLERANCE)).all()
    assert (solution.iterations <= limit).all()
    assert (solution.w >= 0).all() and (solution.w <= 1).all()


def test_an_earlier_solution_gives_the_same_answer_sooner():
    data = market(T=20, size=3e-5, cap=0.2)
    cold = solve(data)
    assert cold.iterations.min() >= 1
    again = solve(data, initial_point=cold.x)
    assert (again.iterations == 0).all()
    torch.testing.assert_close(again.w, cold.w, rtol=0, atol=1e-10)
    rng = torch.Generator().manual_seed(0)
    moved = {**data, "q": data["q"] * (1 + 0.01 * torch.randn(data["q"].shape, generator=rng))}
    fresh, warm = solve(moved), solve(moved, initial_point=cold.x)
    torch.testing.assert_close(warm.w, fresh.w, rtol=0, atol=1e-9)
    assert warm.iterations.sum() < fresh.iterations.sum()


def test_a_poor_warm_start_only_costs_time():
    data = market(size=3e-5, cap=0.2)
    wild = solve(data, initial_point=torch.full((8, 4), 1e3, dtype=torch.float64))
    assert_solved(wild)
    torch.testing.assert_close(wild.w, solve(data).w, rtol=0, atol=1e-9)


# Hard days


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("cap", [1.0, 0.05])
def test_forecasts_of_any_size(size, cap):
    solution = solve(market(T=30, n=60, size=size, cap=cap))
    assert_solved(solution)
    assert (solution.w.sum(-1) - 1).abs().max() <= 1e-12
    assert (solution.w >= 0).all() and (solution.w <= cap).all()


@pytest.mark.parametrize("budget", [1e-3, 1e6, 1e9])
@pytest.mark.parametrize("size", [0.0, 3e-5])
def test_weights_in_any_unit_of_money(budget, size):
    data = market(T=40, n=100, size=size, cap=0.2)
    money = {**data, "q": data["q"] * budget}
    for name in ("lb", "ub", "budget"):
        money[name] = data[name] * budget
    solution = solve(money)
    assert_solved(solution)
    torch.testing.assert_close(solution.w / budget, solve(data).w, rtol=0, atol=1e-8)


@pytest.mark.parametrize("factor", [1e-16, 1e-8, 1e8])
def test_the_unit_of_the_objective_does_not_matter(factor):
    data = market(T=30, n=60, size=1e-4, cap=0.1)
    one = solve(data)
    data["q"], data["d"] = data["q"] * factor, data["d"] * factor
    data["loadings"] = data["loadings"] * factor**0.5
    other = solve(data)
    assert_solved(other)
    torch.testing.assert_close(other.w, one.w, rtol=0, atol=1e-10)
    assert one.iterations.max() > 5 and (other.iterations - one.iterations).abs().max() <= 2


@pytest.mark.parametrize("constant", [1.0, 1e3])
def test_a_constant_in_the_forecasts_hides_nothing_but_their_rounding(constant):
    data = market(T=30, n=60, size=1e-4, cap=0.1)
    data["q"] = (data["q"] + constant) - constant
    shifted = solve({**data, "q": data["q"] + constant})
    assert_solved(shifted)
    torch.testing.assert_close(shifted.w, solve(data).w, rtol=0, atol=1e-10)


def test_rank_deficient_loadings():
    data = market(size=3e-5, k=1)
    thick = {**data, "loadings": data["loadings"].expand(-1, -1, 5) / np.sqrt(5)}
    solution = solve(thick)
    assert_solved(solution)
    torch.testing.assert_close(solution.w, solve(data).w, rtol=0, atol=1e-9)


def test_more_factors_than_names():
    data = market(n=3, k=8, size=1e-4)
    solution = solve(data)
    assert_solved(solution)
    for t in range(8):
        np.testing.assert_allclose(solution.w[t], clarabel(data, t), rtol=0, atol=1e-8)


def test_specific_variances_over_many_orders():
    data = market(size=1e-4)
    data["d"] = torch.tensor(10.0 ** np.random.default_rng(2).uniform(-9, -2, size=(8, 30)))
    assert_solved(solve(data))


def test_duplicates_of_a_name_share_its_weight():
    data = market(n=10, size=1e-4)
    doubled = {
        key: torch.cat([value, value], 1) if value.ndim > 1 else value
        for key, value in data.items()
    }
    # Two names of twice the specific variance, and a common rest, are one name.
    merged = {**data, "d": data["d"] / 2}
    solution = solve(doubled)
    assert_solved(solution)
    torch.testing.assert_close(solution.w[:, :10], solution.w[:, 10:], rtol=0, atol=1e-12)
    torch.testing.assert_close(2 * solution.w[:, :10], solve(merged).w, rtol=0, atol=1e-9)


# Properties


@st.composite
def days(draw) -> dict[str, torch.Tensor]:
    """A batch of feasible random days, of many shapes and scales."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, k = draw(st.integers(1, 12)), draw(st.integers(0, 4))
    data = market(
        T=3, n=n, k=k, size=draw(st.sampled_from([0.0, 1e-5, 1e-3, 1.0])), seed=rng.integers(2**31)
    )
    if draw(st.booleans()):
        data["q"] = torch.round(data["q"] * 2e3) / 2e3  # ties
    target = torch.tensor(rng.dirichlet(np.ones(n), size=3))
    data["lb"] = target * torch.tensor(rng.uniform(0, 1, size=(3, n)))
    data["ub"] = target + torch.tensor(rng.uniform(0, 1, size=(3, n)))
    if draw(st.booleans()):
        data["lb"] = torch.zeros_like(target)
    return data


@SEARCH
@given(days())
def test_weights_are_always_feasible_and_optimal(data):
    solution = solve(data)
    assert_solved(solution)
    assert (solution.w >= data["lb"]).all() and (solution.w <= data["ub"]).all()
    assert (solution.w.sum(-1) - 1).abs().max() <= 1e-12


@SEARCH
@given(days(), st.integers(0, 2**31))
def test_no_feasible_point_is_better(data, seed):
    """Convexity: no step towards another feasible point lowers the objective."""
    w = solve(data).w
    rng = np.random.default_rng(seed)
    other = solve({**data, "q": torch.tensor(rng.normal(size=w.shape))}).w
    best, scale = objective(data, w), 1e-4 + data["q"].abs().amax(-1)
    for step in (1e-3, 0.3, 1.0):
        assert (objective(data, w + step * (other - w)) >= best - 1e-10 * scale).all()


@SEARCH
@given(days(), st.integers(0, 2**31))
def test_permuting_the_names_permutes_the_weights(data, seed):
    order = torch.randperm(data["q"].shape[1], generator=torch.Generator().manual_seed(seed))
    shuffled = {key: v[:, order] if v.ndim > 1 else v for key, v in data.items()}
    torch.testing.assert_close(solve(shuffled).w, solve(data).w[:, order], rtol=0, atol=1e-8)


@SEARCH
@given(days(), st.floats(-12, 12))
def test_scaling_the_objective_changes_no_weight(data, power):
    factor = 10.0**power
    scaled = {
        **data,
        "q": data["q"] * factor,
        "loadings": data["loadings"] * factor**0.5,
        "d": data["d"] * factor,
    }
    one, other = solve(data), solve(scaled)
    assert_solved(other)
    torch.testing.assert_close(other.w, one.w, rtol=0, atol=1e-8)


@SEARCH
@given(days(), st.floats(-100, 100))
def test_adding_a_constant_to_the_forecasts_changes_no_weight(data, constant):
    one, other = solve(data), solve({**data, "q": data["q"] - constant})
    assert_solved(other)
    torch.testing.assert_close(other.w, one.w, rtol=0, atol=1e-7)
    torch.testing.assert_close(other.nu - constant, one.nu, rtol=1e-6, atol=1e-9)


@SEARCH
@given(days(), st.integers(0, 2**31))
def test_a_wider_box_never_worsens_the_objective(data, seed):
    rng = np.random.default_rng(seed)
    more = torch.tensor(rng.uniform(0, 0.3, size=(2, *data["q"].shape)))
    wider = {**data, "lb": data["lb"] - more[0], "ub": data["ub"] + more[1]}
    before, after = objective(data, solve(data).w), objective(wider, solve(wider).w)
    assert (after <= before + 1e-10 * (1e-4 + data["q"].abs().amax(-1))).all()


@SEARCH
@given(days(), st.floats(1.01, 100))
def test_more_risk_aversion_never_takes_more_risk(data, factor):
    averse = {**data, "loadings": data["loadings"] * factor**0.5, "d": data["d"] * factor}

    def variance(w):
        return 2 * (objective(data, w) - (data["q"] * w).sum(-1))

    assert (variance(solve(averse).w) <= variance(solve(data).w) * (1 + 1e-7) + 1e-15).all()
