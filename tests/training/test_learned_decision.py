"""Risk and boldness learned through the QP: exact gradients, and known errors that are found."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from panels import STATED, paying, random_panel

from bpqp_portfolio.data.features.panel import DailyPanel, previous_rows
from bpqp_portfolio.losses import LOSSES, build_loss
from bpqp_portfolio.losses.terms import KAPPA, RISK
from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.predictors import DecisionNetwork, RiskHeadConfig, build_predictor
from bpqp_portfolio.training import Trainer, TrainerConfig, predict, torch_threads
from bpqp_portfolio.training.predictor_output import decision_inputs, network_output

K = 2
HEADS = ("specific", "factors", "kappa")


def problem(**changes) -> PortfolioProblem:
    return PortfolioProblem(
        {
            "risk_aversion": 30.0,
            "max_weight": 0.45,
            "normalisation": "standardise",
            **STATED,
            **changes,
        },
        score_scale=0.02,
    )


def build(risk=None, learn_kappa=True, **options) -> DecisionNetwork:
    torch.manual_seed(0)
    plain = build_predictor("mlp", 4, **{"hidden": [8], "batch_norm": False, **options})
    return DecisionNetwork(plain, risk or RiskHeadConfig(), K, learn_kappa)


def stirred(network: DecisionNetwork) -> DecisionNetwork:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(HEADS):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        network.kappa.mul_(0.1)
    return network


def value(network, panel, loss, **changes) -> torch.Tensor:
    batch = panel.batch(torch.arange(len(panel)))
    objective = build_loss(loss) if isinstance(loss, str) else build_loss(*loss)
    return objective(
        *decision_inputs(network_output(network, batch), batch, problem(**changes))
    ).total.mean()


# Gradients ---------------------------------------------------------------------------------------

THROUGH_RISK = [name for name in LOSSES if RISK in getattr(LOSSES[name], "learns", ())]


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        *((name, {}) for name in THROUGH_RISK),
        (("decision_value", {"risk": "realised"}), {}),
        (("net_utility", {"risk": "realised"}), {}),
        ("net_utility", paying(0.002)),
        (("net_sharpe", {"sweeps": 7}), paying(0.002)),
    ],
    ids=str,
)
def test_the_heads_gradient_is_that_of_finite_differences(loss, changes):
    panel = random_panel(8, 10, factors=K, dtype=torch.float64, unknown=0.0)
    network = stirred(build(activation="tanh")).double()
    loss_value = value(network, panel, loss, **changes)
    loss_value.backward()
    step, generator = 1e-6, torch.Generator().manual_seed(3)
    for head in HEADS:
        chosen = [p for name, p in network.named_parameters() if name.startswith(head)]
        for _ in range(3):
            direction = [torch.randn(p.shape, generator=generator).double() for p in chosen]
            exact = sum(float((p.grad * d).sum()) for p, d in zip(chosen, direction, strict=True))
            ends = []
            for sign in (1, -1):
                moved = copy.deepcopy(network)
                with torch.no_grad():
                    names = [n for n, _ in network.named_parameters() if n.startswith(head)]
                    for name, d in zip(names, direction, strict=True):
                        moved.get_parameter(name).add_(sign * step * d)
                    ends.append(float(value(moved, panel, loss, **changes)))
            assert exact != 0
            slope = (ends[0] - ends[1]) / (2 * step)
            assert slope == pytest.approx(exact, rel=2e-4, abs=1e-7), head


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_says_what_it_teaches(loss):
    panel = random_panel(8, 10, factors=K)
    network = build()
    value(network, panel, loss).backward()
    learns = getattr(LOSSES[loss], "learns", frozenset())
    for head, needed in (("specific", RISK), ("factors", RISK), ("kappa", KAPPA)):
        moved = any(
            p.grad is not None and bool(p.grad.any())
            for name, p in network.named_parameters()
            if name.startswith(head)
        )
        assert moved == (needed in learns), head


# Training ----------------------------------------------------------------------------------------

DAYS, TRAIN, VALID = 24, torch.arange(18), torch.arange(18, 24)


def fit(network, loss="regret", **config):
    panel = random_panel(DAYS, factors=K)
    settings = {"epochs": 3, "learning_rate": 1e-2, "batch_days": 6, **config}
    trainer = Trainer(network, build_loss(loss), problem(), TrainerConfig(**settings))
    with torch_threads(1):
        return trainer, trainer.fit(panel, TRAIN, VALID)


def without_seconds(history):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history]


@pytest.mark.parametrize("loss", ["regret", "net_utility", "mse"])
def test_heads_that_stay_at_zero_change_not_a_bit_of_the_training(loss):
    plain = build(dropout=0.2, batch_norm=True).predictor
    network = build(dropout=0.2, batch_norm=True)
    for part in (network.specific, network.factors, network.kappa):
        part.requires_grad_(False)
    (_, mine), (_, theirs) = fit(network, loss), fit(plain, loss)
    ours = [{k: v for k, v in row.items() if k != "kappa"} for row in without_seconds(mine.history)]
    assert ours == without_seconds(theirs.history)
    for key, weight in plain.state_dict().items():
        assert torch.equal(network.predictor.state_dict()[key], weight)
    assert all(row["kappa"] == 0.02 for row in mine.history)


def test_training_moves_all_of_it_and_validation_decides_with_it():
    network = build()
    _, state = fit(network, monitor="valid_decision")
    for head in ("specific", "factors"):
        assert network.get_submodule(head).weight.abs().max() > 1e-3
    assert abs(network.kappa.item()) > 1e-3
    kept = state.history[state.best_epoch - 1]
    assert kept["kappa"] == pytest.approx(0.02 * math.exp(10 * network.kappa.item()), rel=1e-6)
    panel = random_panel(DAYS, factors=K)
    said, batch = predict(network, panel, VALID), panel.batch(VALID)
    scores, decided, given = decision_inputs(said, batch, problem())
    regret = given.regret(given.solve(scores, decided).w, batch) / given.scale
    assert float(regret.mean()) == pytest.approx(kept["valid_decision"], rel=1e-5)
    plain = problem().regret(problem().solve(scores, batch).w, batch) / given.scale
    assert abs(float(plain.mean()) - kept["valid_decision"]) > 1e-4


def test_a_prediction_loss_leaves_the_heads_where_they_start():
    network = build()
    fit(network, "mse")
    for head in HEADS:
        for name, parameter in network.named_parameters():
            assert not name.startswith(head) or not parameter.any()


@pytest.mark.parametrize("rows", [1, 20_000])
def test_predictions_do_not_depend_on_the_days_beside_them(rows):
    panel, network = random_panel(DAYS, factors=K), stirred(build())
    days = torch.tensor([3, 7, 4])
    said = predict(network, panel, days, rows)
    assert said.log_specific.shape == said.scores.shape and said.log_factors.shape == (3, K)
    parts = [predict(network, panel, day[None]) for day in days]
    for i, name in enumerate(said._fields[:3]):
        whole, alone = said[i], torch.cat([part[i] for part in parts])
        assert whole.dtype == torch.float64, name
        torch.testing.assert_close(whole, alone, rtol=0, atol=1e-13)


# Errors that are known ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Market:
    """A panel whose covariance is wrong in a known way, and the same panel with the true one."""

    panel: DailyPanel
    truth: DailyPanel


def simulate(days, names=20, seed=0, *, wrong=1.0, scale=1.0, signal=0.004) -> Market:
    """Returns of expectation ``signal`` times feature 1, with one factor and own risk.

    The names whose feature 0 is 1 have ``wrong`` times the specific variance that the panel says;
    they change every day. The factor is ``scale`` times as large. Features 2 and 3 are noise.
    """
    rng = np.random.default_rng(seed)
    rows = days * names
    x = rng.normal(size=(rows, 4))
    x[:, 0] = np.where(np.argsort(rng.random((days, names)), 1).ravel() < names // 2, 1.0, -1.0)
    loadings = 0.01 * (1 + rng.normal(size=(rows, 1)))
    specific = np.full(rows, 0.02**2)
    true = np.where(x[:, 0] > 0, wrong, 1.0) * specific
    factor = np.repeat(rng.normal(size=days), names)
    mean = signal * x[:, 1]
    returns = mean + scale * loadings[:, 0] * factor + np.sqrt(true) * rng.normal(size=rows)
    name_index = np.tile(np.arange(names), days)
    panel = DailyPanel(
        dates=np.datetime64("2020-01-01") + np.arange(days),
        names=np.array([f"N{i}" for i in range(names)]),
        offsets=torch.arange(days + 1) * names,
        name_index=torch.from_numpy(name_index),
        features=torch.tensor(x, dtype=torch.float32),
        label=torch.tensor(returns / 0.02, dtype=torch.float32),
        returns=torch.from_numpy(returns),
        loadings=torch.from_numpy(loadings),
        specific=torch.from_numpy(specific),
        previous=torch.from_numpy(previous_rows(name_index)),
        oracle_value=torch.full((days,), torch.nan, dtype=torch.float64),
    )
    truth = replace(
        panel,
        returns=torch.from_numpy(mean),
        loadings=scale * panel.loadings,
        specific=torch.from_numpy(true),
    )
    return Market(panel, truth)


def true_value(network, market, days, given) -> torch.Tensor:
    """f with the true mean and covariance of the weights decided on ``days``, (T,)."""
    batch = market.panel.batch(days)
    scores, decided, bold = decision_inputs(predict(network, market.panel, days), batch, given)
    return given.value(bold.solve(scores, decided).w, market.truth.batch(days))


LEARN, TEST = torch.arange(800), torch.arange(800, 1200)
REALISED = "decision_value", {"risk": "realised"}
SHARPE = "net_sharpe", {}
CONFIG = TrainerConfig(
    epochs=16, patience=16, batch_days=20, learning_rate=1e-2, monitor="valid_loss"
)


def trained(market, given, loss, options, risk=None, learn_kappa=False) -> DecisionNetwork:
    """A linear network trained on the market's first days."""
    torch.manual_seed(0)
    plain = build_predictor("mlp", 4, hidden=[], batch_norm=False)
    network = DecisionNetwork(plain, risk, 1, learn_kappa)
    with torch_threads(1):
        given.fill_oracle_values(market.panel, LEARN)
        Trainer(network, build_loss(loss, options), given, CONFIG).fit(market.panel, LEARN, LEARN)
    return network


def gain(worse: torch.Tensor, better: torch.Tensor) -> tuple[float, float]:
    """Mean of worse − better and its standard error; days are independent here."""
    d = (worse - better).numpy()
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))


def values(market, given, loss, options, risk):
    """The network with a learned risk, and true values of it, of one without and of the optimum."""
    network = trained(market, given, loss, options, risk)
    plain = trained(market, given, loss, options)
    truth = market.truth.batch(TEST)
    best = given.value(given.hindsight(truth).w, truth)
    learned, statistical = (true_value(n, market, TEST, given) for n in (network, plain))
    return network, learned, statistical, best


def said_of(network, market) -> tuple[float, float]:
    """Mean change of log specific variance of the names that are riskier, and of the others."""
    said = predict(network, market.panel, TEST).log_specific
    riskier = market.panel.features[market.panel.rows(TEST), 0] > 0
    return float(said[riskier].mean()), float(said[~riskier].mean())


@pytest.fixture(scope="module")
def given():
    free = {"costs": {"buy": 0.0, "sell": 0.0, "minimum": 0.0}, "days_per_year": 252}
    return PortfolioProblem({"risk_aversion": 40.0, "max_weight": 0.5, **free}, score_scale=0.02)


@pytest.fixture(scope="module")
def riskier():
    """Half of the names have four times the specific variance that the risk model says."""
    return simulate(1200, wrong=4.0)


SPECIFIC = RiskHeadConfig(factors=False, limit=2.0)


@pytest.fixture(scope="module")
def found(given, riskier):
    """What was learned of them from the realised risk."""
    return values(riskier, given, *REALISED, SPECIFIC)


def test_it_finds_the_names_that_are_riskier_than_the_model_says(riskier, found):
    network, learned, statistical, best = found
    more, less = said_of(network, riskier)
    assert more - less > 0.4 * math.log(4)
    mean, error = gain(statistical, learned)
    assert mean > 5 * error and mean > 0.3 * float((statistical - best).mean())


def test_a_net_sharpe_ratio_finds_them_too(given, riskier):
    network, learned, statistical, _ = values(riskier, given, *SHARPE, SPECIFIC)
    more, less = said_of(network, riskier)
    assert more - less > 0.4 * math.log(4)
    mean, error = gain(statistical, learned)
    assert mean > 5 * error


def test_it_finds_a_factor_that_is_larger_than_the_model_says(given):
    market = simulate(1200, scale=3.0)
    risk = RiskHeadConfig(specific=False, limit=2.0)
    network, learned, statistical, best = values(market, given, *REALISED, risk)
    said = predict(network, market.panel, TEST).log_factors
    assert abs(float(said.mean()) - math.log(3)) < 0.35 and said.std() < 0.35
    mean, error = gain(statistical, learned)
    assert mean > 5 * error and mean > 0.7 * float((statistical - best).mean())


def test_a_loss_that_trusts_the_risk_model_cannot_find_its_errors(given, riskier, found):
    """Why the realised risk is there: Σ of the judge is the Σ that is wrong."""
    more, less = said_of(found[0], riskier)
    blind = said_of(trained(riskier, given, "decision_value", {}, SPECIFIC), riskier)
    assert blind[0] - blind[1] < 0.5 * (more - less)


@pytest.mark.parametrize("wrong", [0.1, 10.0])
def test_it_finds_how_bold_to_be(wrong):
    signal = 0.004
    market = simulate(1200, signal=signal)
    given = problem(risk_aversion=40.0, max_weight=0.5, kappa=wrong * signal)
    network, fixed = (
        trained(market, given, "decision_value", {}, learn_kappa=learned)
        for learned in (True, False)
    )
    kappa = float(given.with_signal_scale(network.log_kappa.detach()).unit)
    assert abs(math.log(kappa / signal)) < math.log(1.5)
    mean, error = gain(*(true_value(n, market, TEST, given) for n in (fixed, network)))
    assert mean > 5 * error
