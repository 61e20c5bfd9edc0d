"""The portfolio layer: finance in, weights out, and errors that name the day and the remedy."""

from __future__ import annotations

import math
import re

import pytest
import torch

from bpqp_portfolio.errors import ConfigError, ProblemError, SolverError
from bpqp_portfolio.portfolio import PortfolioLayer
from bpqp_portfolio.problems.solution import SolveStatus

SOLVED = SolveStatus.SOLVED.code
INACCURATE = SolveStatus.INACCURATE.code
INFEASIBLE = SolveStatus.PRIMAL_INFEASIBLE.code


def market(T=4, n=12, k=3, seed=0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """mu, loadings and specific of T days, in daily units."""
    g = torch.Generator().manual_seed(seed)
    mu = 0.002 * torch.randn(T, n, generator=g, dtype=torch.float64)
    loadings = 0.01 * torch.randn(T, n, k, generator=g, dtype=torch.float64)
    specific = 1e-4 * (0.5 + torch.rand(T, n, generator=g, dtype=torch.float64))
    return mu, loadings, specific


def test_two_names_have_the_textbook_weights():
    """w₁ = (μ₁ − μ₂ + γ(σ₂² − σ₁₂)) / (γ(σ₁² + σ₂² − 2σ₁₂))."""
    mu = torch.tensor([[0.001, 0.0004]], dtype=torch.float64)
    loadings = torch.tensor([[[0.01], [0.02]]], dtype=torch.float64)
    specific = torch.tensor([[3e-4, 2e-4]], dtype=torch.float64)
    gamma = 5.0
    s11, s22, s12 = 1e-4 + 3e-4, 4e-4 + 2e-4, 2e-4
    expected = (0.0006 + gamma * (s22 - s12)) / (gamma * (s11 + s22 - 2 * s12))
    w = PortfolioLayer(risk_aversion=gamma)(mu, loadings, specific)
    assert w[0].tolist() == pytest.approx([expected, 1 - expected], rel=1e-10)
    capped = PortfolioLayer(risk_aversion=gamma, max_weight=0.6)(mu, loadings, specific)
    assert capped[0].tolist() == pytest.approx([0.6, 0.4], rel=1e-12)


def test_it_maximises_return_less_risk():
    mu, loadings, specific = market()
    layer = PortfolioLayer(risk_aversion=7.0, max_weight=0.3)
    solution = layer.solve(mu, loadings, specific)
    assert (solution.codes == SOLVED).all()

    def utility(w):
        risk = (loadings.mT @ w.unsqueeze(-1)).square().sum((-1, -2)) + (specific * w * w).sum(-1)
        return (mu * w).sum(-1) - 3.5 * risk

    g = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = torch.rand(4, 12, generator=g, dtype=torch.float64) + 0.5
        other = other / other.sum(-1, keepdim=True)
        assert other.max() <= 0.3
        assert (utility(other) <= utility(solution.w)).all()


def test_scaling_forecasts_and_risk_aversion_together_changes_nothing():
    mu, loadings, specific = market()
    for factor in (1e-3, 20.0):
        one = PortfolioLayer(5.0, 0.3)(mu, loadings, specific)
        other = PortfolioLayer(5.0 * factor, 0.3)(mu * factor, loadings, specific)
        torch.testing.assert_close(other, one, rtol=0, atol=1e-10)


def test_higher_risk_aversion_tends_to_the_minimum_variance_portfolio():
    mu, loadings, specific = market()
    averse = PortfolioLayer(1e9)(mu, loadings, specific)
    least = PortfolioLayer(1.0)(torch.zeros_like(mu), loadings, specific)
    torch.testing.assert_close(averse, least, rtol=0, atol=1e-6)


def test_gradients_reach_forecasts_and_learned_risk():
    inputs = market(T=2, n=6)
    scaled = [(scale * t).requires_grad_() for scale, t in zip((300, 30, 1e4), inputs, strict=True)]
    assert torch.autograd.gradcheck(PortfolioLayer(1.5, 0.5), scaled, eps=1e-6, atol=1e-6)


def test_masked_names_get_exactly_zero_and_nan_is_welcome_there():
    mu, loadings, specific = market()
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[1, 8:] = False
    mu[1, 8:], loadings[1, 8:], specific[1, 8:] = torch.nan, torch.nan, torch.nan
    mu.requires_grad_()
    w = PortfolioLayer(5.0)(mu, loadings, specific, mask)
    assert (w[1, 8:] == 0).all() and float(w[1].detach().sum()) == pytest.approx(1, abs=1e-12)
    w.square().sum().backward()
    assert (mu.grad[1, 8:] == 0).all() and torch.isfinite(mu.grad).all() and mu.grad[1].any()


def test_float32_in_float32_out():
    inputs = [t.float() for t in market()]
    inputs[0].requires_grad_()
    w = PortfolioLayer(5.0)(*inputs)
    w.square().sum().backward()
    assert w.dtype == inputs[0].grad.dtype == torch.float32
    torch.testing.assert_close(w.sum(-1), torch.ones(4))


def test_a_warm_start_is_passed_on():
    mu, loadings, specific = market()
    layer = PortfolioLayer(5.0)
    first = layer.solve(mu, loadings, specific)
    again = layer.solve(mu, loadings, specific, initial_point=first.x)
    assert first.iterations.max() > 0 and again.iterations.max() == 0
    torch.testing.assert_close(again.w, first.w, rtol=0, atol=1e-10)


def test_the_layer_keeps_no_state_and_shows_its_settings():
    layer = PortfolioLayer(2.5, max_weight=0.25)
    assert not layer.state_dict()
    assert "risk_aversion=2.5" in repr(layer) and "max_weight=0.25" in repr(layer)
    mu, loadings, specific = market()
    before = dict(vars(layer))
    layer(mu, loadings, specific)
    assert vars(layer) == before


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"risk_aversion": 0.0}, "risk_aversion: must be > 0"),
        ({"risk_aversion": -1.0}, "risk_aversion: must be > 0"),
        ({"risk_aversion": math.nan}, "risk_aversion: expected a number, finite"),
        ({"risk_aversion": math.inf}, "risk_aversion: expected a number, finite"),
        ({"risk_aversion": "5"}, "risk_aversion: expected a number, got '5'"),
        ({"risk_aversion": True}, "risk_aversion: expected a number, got True"),
        ({"max_weight": 0.0}, "max_weight: must be > 0 and <= 1"),
        ({"max_weight": -0.1}, "max_weight: must be > 0 and <= 1"),
        ({"max_weight": 1.01}, "max_weight: must be > 0 and <= 1"),
        ({"max_weight": None}, "max_weight: expected a number, got None"),
        ({"tolerance": 0.0}, "tolerance: must be > 0"),
    ],
)
def test_settings_outside_their_range(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        PortfolioLayer(**settings)


@pytest.mark.parametrize("names", [1, 3, 7, 9, 11])
def test_too_few_names_for_the_cap_names_the_day_and_a_remedy_that_works(names):
    mu, loadings, specific = market()
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[2, names:] = False
    with pytest.raises(SolverError, match=rf"^1 of 4 .*\(day 2: .* with {names} names") as error:
        PortfolioLayer(5.0, max_weight=0.085)(mu, loadings, specific, mask)
    remedy = float(re.search(r"set it to at least ([\d.]+)\.$", str(error.value))[1])
    assert remedy >= 1 / names
    PortfolioLayer(5.0, max_weight=remedy)(mu, loadings, specific, mask)


def test_the_remedy_for_the_cap_serves_the_day_with_the_fewest_names():
    mu, loadings, specific = market()
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[1, 8:], mask[3, 5:] = False, False
    words = r"^2 of 4 days .*\(day 3: primal infeasible\): max_weight 0\.1 .* 5 names.*least 0\.2"
    with pytest.raises(SolverError, match=words):
        PortfolioLayer(max_weight=0.1)(mu, loadings, specific, mask)


def test_a_cap_that_misses_by_its_last_digits_is_refused_with_the_remedy():
    for forward in ("auto", "clarabel"):
        with pytest.raises(SolverError, match=r"^4 of 4 .* 3 names; set it to at least 0\.3334"):
            PortfolioLayer(max_weight=0.3333333333, forward=forward)(*market(n=3))


@pytest.mark.parametrize("names", [3, 7, 41, 49, 83])
def test_a_cap_of_one_over_n_is_enough(names):
    w = PortfolioLayer(5.0, max_weight=1 / names)(*market(n=names))
    torch.testing.assert_close(w, torch.full_like(w, 1 / names), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, b, d: (m / 0, b, d), r"mu: -?inf for name 0 of day 0 \(48 such"),
        (lambda m, b, d: (m.where(m < m.max(), torch.nan), b, d), r"mu: nan for name .*\(1 such"),
        (lambda m, b, d: (m, b * torch.nan, d), "loadings: bad value for name 0 of day 0"),
        (lambda m, b, d: (m, b, d - 1), r"specific \(must not be negative\)"),
        (lambda m, b, d: (m[0], b, d), r"mu: expected shape \(T, n\), got"),
        (lambda m, b, d: (m, b[:, :5], d), r"loadings: expected shape \(T, n, k\)"),
        (lambda m, b, d: (m, b, d[:, :5]), r"specific: expected .* got \(4, 5\)"),
        (lambda m, b, d: (m, b, d, m > torch.inf), "mask: day 0 has no name"),
        (lambda m, b, d: (m, b, d, m), r"mask: expected true and false, got torch\.float"),
        (lambda m, b, d: (m, b, d, (m > -1)[:, 1:]), r"mask: expected shape \(T, n\) = "),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ProblemError, match=message):
        PortfolioLayer()(*change(*market()))


def test_a_day_that_was_not_solved_raises_or_is_left_to_the_caller():
    inputs = market()
    with pytest.raises(SolverError, match=r"of 4 days were not solved \(day \d: .*KKT norm \d"):
        PortfolioLayer(5.0, max_iterations=1)(*inputs)
    solution = PortfolioLayer(5.0, max_iterations=1, on_failure="nan").solve(*inputs)
    assert (solution.codes == INACCURATE).any()
    assert torch.isfinite(solution.w).all()


def test_where_failures_are_nan_an_impossible_day_is_nan_and_harmless():
    mu, loadings, specific = market()
    mask = torch.ones(4, 12, dtype=torch.bool)
    mask[2, 3:] = False
    mu.requires_grad_()
    solution = PortfolioLayer(5.0, max_weight=0.2, on_failure="nan").solve(
        mu, loadings, specific, mask
    )
    assert solution.codes.tolist() == [SOLVED, SOLVED, INFEASIBLE, SOLVED]
    assert solution.w[2].isnan().all()
    solution.w[[0, 1, 3]].square().sum().backward()
    assert torch.isfinite(mu.grad).all() and (mu.grad[2] == 0).all()
