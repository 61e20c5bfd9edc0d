"""Contracts of every registered training loss, and gradients through the QP."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from panels import STATED, random_panel

from bpqp_portfolio.errors import ConfigError, ProblemError
from bpqp_portfolio.losses import LOSSES, build_loss, decision_loss, mean_squared_error
from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.predictors import build_predictor

NAMES = sorted(LOSSES)
TWO_STAGE = ["huber", "ic", "mse"]
DECISIONS = [name for name in NAMES if name not in TWO_STAGE]
BLOCKS = [name for name in NAMES if hasattr(LOSSES[name], "least_days")]
PROBLEM = PortfolioProblem({"risk_aversion": 20.0, "max_weight": 0.45, **STATED}, score_scale=0.02)


@pytest.fixture
def batch():
    panel = random_panel(days=6, dtype=torch.float64)
    PROBLEM.fill_oracle_values(panel, torch.arange(6))
    return panel.batch(torch.arange(6))


@pytest.fixture
def scores(batch):
    g = torch.Generator().manual_seed(0)
    table = torch.randn(batch.mask.shape, generator=g, dtype=torch.float64)
    return (table * batch.mask).requires_grad_()


def options_of(name):
    return [field.name for field in dataclasses.fields(LOSSES[name])]


# Every registered loss


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_finite_value_a_day(name, dtype, batch, scores):
    terms = build_loss(name)(scores.to(dtype), batch, PROBLEM)
    for value in terms:
        assert value is None or (value.shape == (6,) and torch.isfinite(value).all())
    assert terms.total is not None and terms.prediction is not None


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_what_they_say(name, batch, scores):
    terms = build_loss(name)(scores, batch, PROBLEM)
    expected = mean_squared_error(scores, batch.label, batch.known)
    torch.testing.assert_close(terms.prediction, expected)
    if terms.decision is not None:
        torch.testing.assert_close(terms.decision, decision_loss(scores, batch, PROBLEM))
        assert (terms.decision >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_reaches_every_day_and_no_padding(name, batch, scores):
    build_loss(name)(scores, batch, PROBLEM).total.sum().backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[~batch.mask] == 0).all() and (~batch.mask).any()
    assert scores.grad.any()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BLOCKS)))
def test_a_day_does_not_depend_on_its_batch(name, batch, scores):
    objective = build_loss(name)
    panel = random_panel(days=6, dtype=torch.float64)
    together = objective(scores, batch, PROBLEM).total
    for t in range(6):
        alone = panel.batch(torch.tensor([t]))
        row = scores[t : t + 1, : alone.mask.shape[1]]
        value = objective(row, alone, PROBLEM).total
        torch.testing.assert_close(value, together[t : t + 1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_passes_finite_differences(name, batch, scores):
    """Scores → QP → regret, in a random direction; days at a kink of w(scores) are left out."""
    objective = build_loss(name)
    g = torch.Generator().manual_seed(1)
    direction = torch.randn(scores.shape, generator=g, dtype=torch.float64) * batch.mask
    step = 1e-6
    objective(scores, batch, PROBLEM).total.sum().backward()
    exact = (scores.grad * direction).sum(-1)
    with torch.no_grad():
        shifted = [scores + sign * step * direction for sign in (1, -1)]
        plus, minus = (objective(s, batch, PROBLEM).total for s in shifted)
        free = [PROBLEM.solve(s, batch).free for s in shifted]
    smooth = (free[0] == free[1]).all(-1)
    assert smooth.sum() >= 5
    if name in BLOCKS:
        # A day's weights enter the costs of the next: only the block has a gradient.
        assert smooth.all()
        exact, plus, minus, smooth = exact.sum(), plus.sum(), minus.sum(), ...
    numeric = (plus - minus) / (2 * step)
    torch.testing.assert_close(exact[smooth], numeric[smooth], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_names_the_nearest(name):
    for option in options_of(name):
        with pytest.raises(ConfigError, match=f"loss '{name}'.*Did you mean '{option}'"):
            build_loss(name, {option + "s": 1.0})
    with pytest.raises(ConfigError, match=r"unknown key 'zzz'\. (Known|It takes no)"):
        build_loss(name, {"zzz": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_options_are_numbers_that_are_not_negative(name):
    for option in options_of(name):
        if option == "benchmark":
            continue
        for value in (-1.0, float("nan"), "1"):
            with pytest.raises(ConfigError, match=option):
                build_loss(name, {option: value})


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'squared_regert'.*mean 'squared_regret'"):
        build_loss("squared_regert")


# The particular losses


@pytest.mark.parametrize("name", TWO_STAGE)
def test_a_two_stage_loss_does_not_solve_the_portfolio_problem(name, batch, scores):
    terms = build_loss(name)(scores, batch, problem=None)
    assert terms.decision is None


@pytest.mark.parametrize("name", sorted(set(DECISIONS) - {"squared_regret"}))
def test_a_decision_loss_takes_a_prediction_term(name, batch, scores):
    plain = build_loss(name)(scores, batch, PROBLEM)
    mixed = build_loss(name, {"prediction_weight": 0.3})(scores, batch, PROBLEM)
    torch.testing.assert_close(mixed.total, plain.total + 0.3 * plain.prediction)


def test_the_decision_value_is_the_regret_less_the_value_of_hindsight(batch, scores):
    value = build_loss("decision_value")(scores, batch, PROBLEM).total
    regret = build_loss("regret")(scores, batch, PROBLEM).total
    torch.testing.assert_close(value, regret + batch.oracle_value / PROBLEM.scale)
    slopes = [torch.autograd.grad(v.sum(), scores)[0] for v in (value, regret)]
    torch.testing.assert_close(*slopes)


def test_the_correlation_loss_is_one_less_the_information_coefficient(batch, scores):
    total = build_loss("ic")(scores, batch, PROBLEM).total
    for t in range(6):
        known = batch.known[t]
        x, y = scores.detach()[t, known].numpy(), batch.label[t, known].numpy()
        assert float(total[t].detach()) == pytest.approx(1 - np.corrcoef(x, y)[0, 1], rel=1e-12)
    perfect = build_loss("ic")(3 * batch.label + 1, batch, PROBLEM).total
    torch.testing.assert_close(perfect, torch.zeros(6).double(), rtol=0, atol=1e-12)


def test_a_day_of_equal_scores_has_no_correlation_and_no_gradient(batch, scores):
    flat = (scores.detach() * 0 + 0.1).requires_grad_()
    total = build_loss("ic")(flat, batch, PROBLEM).total
    assert (total == 1).all()
    total.sum().backward()
    assert (flat.grad == 0).all()


@pytest.mark.parametrize("delta", [0.5, 1.0, 100.0])
def test_huber_is_the_function_of_torch(delta, batch, scores):
    total = build_loss("huber", {"delta": delta})(scores, batch, PROBLEM).total
    error = torch.nn.functional.huber_loss(scores, batch.label, reduction="none", delta=delta)
    expected = torch.where(batch.known, error, 0.0).sum(-1) / batch.known.sum(-1)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("beta", [0.0, 0.1, 3.0])
def test_squared_regret_is_the_loss_of_the_paper(beta, batch, scores):
    total, prediction, regret = build_loss("squared_regret", {"beta": beta})(scores, batch, PROBLEM)
    torch.testing.assert_close(total, beta * regret**2 + prediction)


def test_regret_takes_a_prediction_term_of_its_weight(batch, scores):
    plain = build_loss("regret")(scores, batch, PROBLEM)
    assert torch.equal(plain.total, plain.decision)
    mixed = build_loss("regret", {"prediction_weight": 0.3})(scores, batch, PROBLEM)
    torch.testing.assert_close(mixed.total, plain.decision + 0.3 * plain.prediction)


def test_the_decision_loss_is_the_regret_in_units_of_the_score(batch, scores):
    w = PROBLEM.solve(scores, batch).w
    torch.testing.assert_close(
        decision_loss(scores, batch, PROBLEM), PROBLEM.regret(w, batch) / 0.02
    )
    perfect = decision_loss(batch.returns / 0.02, batch, PROBLEM)
    torch.testing.assert_close(perfect, torch.zeros(6).double(), rtol=0, atol=1e-10)


# The whole pipeline


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_from_the_networks_parameters_to_the_loss(name, batch_norm, batch):
    """Central differences in random directions of all the parameters of an MLP."""
    torch.manual_seed(0)
    network = build_predictor(
        "mlp", 4, hidden=[6, 5], batch_norm=batch_norm, activation="tanh"
    ).double()
    objective = build_loss(name)
    parameters = list(network.parameters())

    def forward():
        scores = batch.pad(network(batch.features))
        return objective(scores, batch, PROBLEM).total.mean(), PROBLEM.solve(scores, batch).free

    loss, _ = forward()
    gradient = torch.autograd.grad(loss, parameters)
    checked = 0
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        direction = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in parameters]
        values, free, step = [], [], 1e-6
        for move in (step, -2 * step, step):
            with torch.no_grad():
                for p, v in zip(parameters, direction, strict=True):
                    p.add_(v, alpha=move)
                value, names = forward()
            values.append(float(value))
            free.append(names)
        if torch.equal(free[0], free[1]):
            exact = sum(float((a * v).sum()) for a, v in zip(gradient, direction, strict=True))
            assert exact == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-8)
            checked += 1
        assert values[2] == pytest.approx(loss.item(), rel=1e-9)
    assert checked >= 5


@pytest.mark.parametrize("name", DECISIONS)
def test_a_step_against_the_gradient_lowers_the_loss(name, batch):
    torch.manual_seed(1)
    network = build_predictor("mlp", 4, hidden=[8], batch_norm=False).double()
    objective = build_loss(name)
    # A ratio of six days that is annualised is steep.
    rate = 0.002 if name == "net_sharpe" else 0.05
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    losses = []
    for _ in range(30):
        loss = objective(batch.pad(network(batch.features)), batch, PROBLEM).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < losses[0] - 0.1 * abs(losses[0])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_no_score(name, value, batch, scores):
    """It is an error that names it, or its day's loss is not finite and the others are theirs."""
    problem = PortfolioProblem({"normalisation": "standardise", **STATED}, score_scale=0.01)
    objective = build_loss(name)
    scores = scores.detach().clone()
    column = int(torch.nonzero(batch.mask[1] & batch.known[1])[0])
    good = objective(scores, batch, problem).total
    scores[1, column] = value
    try:
        found = objective(scores, batch, problem).total
    except ProblemError as error:
        assert str(error).startswith(f"scores: {value} for name {column} of day 1")
        return
    assert not found[1].isfinite()
    others = torch.arange(len(found)) != 1
    assert torch.equal(found[others], good[others])


@pytest.mark.parametrize("name", ["mse", "huber", "ic"])
def test_a_known_label_that_is_not_finite_is_its_day_s_alone(name, batch, scores):
    column = int(torch.nonzero(batch.mask[1] & batch.known[1])[0])
    label = batch.label.clone()
    label[1, column] = float("nan")
    objective = build_loss(name)
    problem = PortfolioProblem(STATED, score_scale=0.01)
    found = objective(scores, dataclasses.replace(batch, label=label), problem).total
    assert found.isfinite().tolist() == [day != 1 for day in range(len(found))]
