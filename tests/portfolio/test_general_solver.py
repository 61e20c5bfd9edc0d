"""The registry's solvers solve the portfolio problem of the structured solver."""

from __future__ import annotations

import pytest
import torch

import bpqp_portfolio as bp
from bpqp_portfolio.errors import ConfigError, SolverError
from bpqp_portfolio.problems.solution import SolveStatus


def problem(days=4, names=25, factors=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    kwargs = {"generator": g, "dtype": torch.float64}
    mu = 0.002 * torch.randn(days, names, **kwargs)
    loadings = 0.01 * torch.randn(days, names, factors, **kwargs)
    specific = (0.01 + 0.02 * torch.rand(days, names, **kwargs)) ** 2
    mask = torch.ones(days, names, dtype=torch.bool)
    mask[1, 20:] = False
    mask[-1, ::3] = False
    return mu, loadings, specific, mask


@pytest.mark.parametrize("solver", bp.available_solvers("qp"))
def test_weights_and_gradients_agree_with_the_structured_solver(solver):
    mu, loadings, specific, mask = problem()
    found = {}
    for name in ("structured", solver):
        inputs = [t.clone().requires_grad_() for t in (mu, loadings, specific)]
        layer = bp.PortfolioLayer(risk_aversion=20.0, max_weight=0.2, forward=name)
        w = layer(*inputs, mask)
        (w * torch.arange(w.numel()).reshape(w.shape)).sum().backward()
        found[name] = [w.detach(), *(t.grad for t in inputs)]
    for ours, theirs in zip(found["structured"], found[solver], strict=True):
        scale = 1 + float(ours.abs().max())
        assert float((ours - theirs).abs().max()) <= 1e-7 * scale
    assert (found[solver][0][~mask] == 0).all()


def test_an_unknown_solver_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="osqp"):
        bp.PortfolioLayer(forward="osqpp")


def test_a_failed_day_of_a_general_solver_is_named():
    mu, loadings, specific, _ = problem(days=2, names=5)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    layer = bp.PortfolioLayer(max_weight=0.3, forward="clarabel", on_failure="nan")
    solution = layer.solve(mu, loadings, specific, mask)
    assert SolveStatus.from_code(solution.codes[0]).label == "solved"
    assert SolveStatus.from_code(solution.codes[1]).label != "solved"
    assert torch.isfinite(solution.w[0]).all()
    with pytest.raises((SolverError, bp.ProblemError), match="day 1"):
        bp.PortfolioLayer(max_weight=0.3, forward="clarabel").solve(mu, loadings, specific, mask)


@pytest.mark.parametrize("solver", ["osqp", "clarabel"])
def test_rows_and_turnover_cost_agree_with_the_structured_solver(solver):
    mu, loadings, specific, mask = problem()
    g = torch.Generator().manual_seed(1)
    groups = torch.randint(0, 4, mask.shape, generator=g)
    G = (torch.nn.functional.one_hot(groups, 4).mT * mask.unsqueeze(-2)).double()
    style = torch.randn(4, 1, 25, generator=g, dtype=torch.float64) * mask.unsqueeze(-2)
    even = mask.double() / mask.sum(-1, keepdim=True)
    rows = {
        "A": style,
        "b": (style * even.unsqueeze(-2)).sum(-1),
        "G": G,
        "h": (G * even.unsqueeze(-2)).sum(-1) + 0.1,
    }
    found = {}
    for name in ("structured", solver):
        inputs = [t.clone().requires_grad_() for t in (mu, even)]
        layer = bp.PortfolioLayer(20.0, 0.2, turnover_cost=5e-4, forward=name)
        s = layer.solve(inputs[0], loadings, specific, mask, inputs[1], **rows)
        (s.w * torch.arange(s.w.numel()).reshape(s.w.shape)).sum().backward()
        found[name] = [s.w.detach(), s.lam, s.nu_rows, inputs[0].grad]
    for ours, theirs in zip(found["structured"], found[solver], strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-7 * (1 + float(ours.abs().max()))


def test_a_dense_covariance_goes_to_the_general_layer():
    mu, loadings, specific, mask = problem()
    layer = bp.PortfolioLayer(20.0, 0.2)
    covariance = (loadings @ loadings.mT + torch.diag_embed(specific)).requires_grad_()
    w = layer(mu, covariance=covariance, mask=mask)
    torch.testing.assert_close(w, layer(mu, loadings, specific, mask), rtol=0, atol=1e-7)
    w.square().sum().backward()
    assert covariance.grad.any() and torch.isfinite(covariance.grad).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specific": None}, "loadings and specific: missing"),
        ({"covariance": torch.eye(25)}, "covariance: give either"),
        (
            {"loadings": None, "specific": None, "covariance": torch.eye(25)},
            r"covariance: expected shape",
        ),
        ({"previous": None}, "previous: missing"),
        ({"previous": torch.zeros(25)}, r"previous: expected shape \(T, n\) = \(4, 25\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
    mu, loadings, specific, mask = problem()
    given = {"loadings": loadings, "specific": specific, "previous": torch.zeros_like(mu)}
    with pytest.raises(bp.ProblemError, match=message):
        bp.PortfolioLayer(turnover_cost=1e-3).solve(mu, mask=mask, **{**given, **change})
