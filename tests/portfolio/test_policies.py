"""Every way from forecasts to weights: budgets, gradients, and what each is said to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panels import random_panel

from bpqp_portfolio.errors import ConfigError, ProblemError
from bpqp_portfolio.losses import LOSSES, build_loss
from bpqp_portfolio.portfolio import PortfolioProblem, TradingCosts
from bpqp_portfolio.portfolio.policies import POLICIES
from bpqp_portfolio.portfolio.policies.dc3 import correct
from bpqp_portfolio.portfolio.policies.simplex import project

NAMES = sorted(POLICIES)
CAP = 0.3
BOXED = sorted(set(NAMES) - {"softmax"})
LEARNED = ["bpqp", "dc3", "softmax", "unrolled"]


def problem(name, **options):
    config = {"risk_aversion": 20.0, "max_weight": CAP, "decision": {"name": name, **options}}
    config |= {"costs": TradingCosts(0.0005, 0.0015, 0.0), "days_per_year": 252}
    return PortfolioProblem(config, score_scale=0.02)


@pytest.fixture
def batch():
    return random_panel(days=6, dtype=torch.float64).batch(torch.arange(6))


@pytest.fixture
def scores(batch):
    g = torch.Generator().manual_seed(0)
    table = torch.randn(batch.mask.shape, generator=g, dtype=torch.float64)
    return (table * batch.mask).requires_grad_()


# Every registered one


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_a_portfolio_of_the_days_names(name, batch, scores):
    w = problem(name).solve(scores, batch).w
    torch.testing.assert_close(w.sum(-1), torch.ones(6).double(), rtol=0, atol=1e-9)
    assert (w[~batch.mask] == 0).all() and (w >= -1e-6).all()
    if name in BOXED:
        assert (w <= CAP + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_day_does_not_depend_on_the_others(name, batch, scores):
    panel = random_panel(days=6, dtype=torch.float64)
    together = problem(name).solve(scores, batch).w
    for t in range(6):
        alone = panel.batch(torch.tensor([t]))
        n = alone.mask.shape[1]
        w = problem(name).solve(scores[t : t + 1, :n], alone).w
        torch.testing.assert_close(w[0], together[t, :n], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_weights_passes_finite_differences(name, batch, scores):
    decided = problem(name)
    g = torch.Generator().manual_seed(1)
    direction, weigh = (torch.randn(scores.shape, generator=g).double() for _ in range(2))
    (exact,) = torch.autograd.grad((decided.solve(scores, batch).w * weigh).sum(), scores)
    assert (exact[~batch.mask] == 0).all() and exact.any() == (name in LEARNED)
    step = 1e-6
    with torch.no_grad():
        plus, minus = (decided.solve(scores + s * direction, batch) for s in (step, -step))
    smooth = (plus.free == minus.free).all(-1)
    assert smooth.sum() >= 5
    numeric = ((plus.w - minus.w) * weigh).sum(-1) / (2 * step)
    torch.testing.assert_close(
        (exact * direction).sum(-1)[smooth], numeric[smooth], rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_takes_every_decision(name, loss, batch, scores):
    terms = build_loss(loss)(scores, batch, problem(name))
    terms.total.sum().backward()
    assert torch.isfinite(terms.total).all() and torch.isfinite(scores.grad).all()
    assert scores.grad.any()
    if terms.decision is not None and name in BOXED:
        assert (terms.decision >= -1e-9).all()


@pytest.mark.parametrize("name", NAMES)
def test_hindsight_is_exact_whatever_decides(name, batch):
    exact = problem("bpqp").hindsight(batch).w
    assert torch.equal(problem(name).hindsight(batch).w, exact)


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"name": "sofmax"}, "unknown decision 'sofmax'. Did you mean 'softmax'"),
        ({}, "'name' is missing"),
        ({"name": "dc3", "correction": 3}, "Did you mean 'corrections'"),
        ({"name": "unrolled", "steps": 0}, "steps"),
        ({"name": "softmax", "temperature": 0}, "temperature"),
        (3, "expected a"),
    ],
)
def test_bad_settings_are_named(decision, message):
    with pytest.raises(ConfigError, match=message):
        PortfolioProblem({"decision": decision})


# The particular ones


def test_equal_weights_and_least_risk_do_not_look_at_scores(batch, scores):
    equal = problem("equal_weight").solve(scores, batch).w
    torch.testing.assert_close(equal, batch.mask / batch.mask.sum(-1, keepdim=True).double())
    least = problem("minimum_variance").solve(scores, batch).w
    zero = problem("bpqp").solve(0 * scores, batch).w
    assert torch.equal(least, zero)


def test_softmax_is_the_softmax_of_the_scores(batch, scores):
    w = problem("softmax", temperature=2.0).solve(scores, batch).w
    for t in range(6):
        inside = batch.mask[t]
        expected = np.exp(scores[t, inside].detach().numpy() / 2)
        np.testing.assert_allclose(w[t, inside].detach(), expected / expected.sum())


def test_projection_by_bisection():
    g = torch.Generator().manual_seed(0)
    v = torch.randn(50, 9, generator=g, dtype=torch.float64)
    mask = torch.rand(50, 9, generator=g) < 0.8
    mask[:, :4] = True
    for cap in (0.25, 0.4, 1.0):
        low, high = v.amin(-1, keepdim=True) - 1, v.amax(-1, keepdim=True)
        for _ in range(100):
            middle = (low + high) / 2
            sums = torch.where(mask, (v - middle).clamp(0, cap), 0.0).sum(-1, keepdim=True)
            low, high = torch.where(sums > 1, middle, low), torch.where(sums > 1, high, middle)
        expected = torch.where(mask, (v - low).clamp(0, cap), 0.0)
        torch.testing.assert_close(project(v, mask, cap), expected, rtol=0, atol=1e-12)
    with pytest.raises(ProblemError, match=r"max_weight 0\.1 cannot reach"):
        project(v, mask, 0.1)


def test_unrolled_steps_approach_the_optimum(batch, scores):
    exact = problem("bpqp").solve(scores, batch).w
    gaps = []
    for steps in (10, 100, 3000):
        solution = problem("unrolled", steps=steps).solve(scores, batch)
        gaps.append(float((solution.w - exact).abs().max()))
        few = float(solution.kkt_norm.max())
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-6 and few < 1e-8


def test_the_gradient_through_many_steps_is_that_of_the_backward_qp(batch, scores):
    weigh = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2)).double()
    slopes = [
        torch.autograd.grad((problem(*how).solve(scores, batch).w * weigh).sum(), scores)[0]
        for how in (("bpqp",),)
    ]
    many = problem("unrolled", steps=3000).solve(scores, batch).w
    (unrolled,) = torch.autograd.grad((many * weigh).sum(), scores)
    torch.testing.assert_close(unrolled, slopes[0], rtol=1e-4, atol=1e-6)


def test_dc3_without_correction_pays_for_what_is_outside(batch, scores):
    bold = (3 * scores).detach()
    none = problem("dc3", corrections=0)
    w = none.solve(bold, batch).w
    outside = ((-w).relu() + (w - CAP).relu()).square().sum(-1)
    assert (outside > 0).any()
    free = problem("dc3", corrections=0, penalty=0.0)
    torch.testing.assert_close(none.value(w, batch), free.value(w, batch) + outside)
    done = problem("dc3").solve(bold, batch)
    assert (done.w >= -1e-6).all() and (done.w <= CAP + 1e-6).all() and (done.codes == 0).all()


def test_dc3_on_its_authors_simple_qp():
    """min ½yᵀQy + pᵀy, Ay = x, Gy ≤ h with h = Σ|GA⁺| as published, 20 variables for their 100.

    A network of two layers from x to the partial variables, trained on the soft loss, ends feasible
    to the tolerance of the correction and some per cent above the optimum, as in their table 1.
    """
    import cvxpy as cp

    rng = np.random.default_rng(17)
    n, p, m = 20, 10, 10
    Q, q = np.diag(rng.random(n)), rng.random(n)
    A, G = rng.normal(size=(p, n)), rng.normal(size=(m, n))
    h = np.abs(G @ np.linalg.pinv(A)).sum(1)
    X = rng.uniform(-1, 1, size=(220, p))
    t = {k: torch.from_numpy(v) for k, v in {"A": A, "G": G, "h": h, "Q": Q, "q": q}.items()}
    x = torch.from_numpy(X)
    k = n - p
    other = torch.linalg.inv(t["A"][:, k:])
    N = torch.cat([torch.eye(k).double(), -other @ t["A"][:, :k]])

    def decide(z, x, steps):
        y = torch.cat([z, (x - z @ t["A"][:, :k].T) @ other.T], -1)
        return correct(
            y,
            excess=lambda y: (y @ t["G"].T - t["h"]).relu(),
            rows=lambda d: d @ t["G"].T,
            transposed=lambda r: r @ t["G"],
            along=lambda g: g @ N @ N.T,
            steps=steps,
            tolerance=1e-6,
        )

    def value(y):
        return 0.5 * (y * (y @ t["Q"])).sum(-1) + y @ t["q"]

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(p, 64), torch.nn.ReLU(), torch.nn.Linear(64, k)
    ).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    train, test = x[:200], x[200:]
    for _ in range(400):
        y = decide(network(train), train, 10)
        soft = (y @ t["G"].T - t["h"]).relu().square().sum(-1)
        loss = (value(y) + 10 * soft).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        y = decide(network(test), test, 200)
    assert (y @ t["A"].T - test).abs().max() < 1e-9
    assert (y @ t["G"].T - t["h"]).max() <= 1e-6
    best = []
    for row in X[200:]:
        v = cp.Variable(n)
        objective = 0.5 * cp.quad_form(v, Q) + q @ v
        best.append(cp.Problem(cp.Minimize(objective), [A @ v == row, G @ v <= h]).solve())
    gap = float(value(y).mean()) - np.mean(best)
    assert -1e-6 < gap < 0.15 * abs(np.mean(best))


@pytest.mark.parametrize("name", POLICIES)
def test_a_forecast_that_is_not_finite_decides_nothing(name, batch, scores):
    scores = scores.detach().clone()
    column = int(torch.nonzero(batch.mask[1])[0])
    scores[1, column] = float("nan")
    with pytest.raises(ProblemError, match=rf"^scores: nan for name {column} of day 1"):
        problem(name).solve(scores, batch)
    # Whoever decides directly says so of that day alone.
    if name not in ("bpqp", "equal_weight", "minimum_variance", "unrolled"):
        own = problem(name)
        status = own.policy(scores * own.unit, batch, own).codes
        assert [int(code) for code in status] == [
            5 if day == 1 else 0 for day in range(len(scores))
        ]
