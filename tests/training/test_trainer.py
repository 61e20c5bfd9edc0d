"""The trainer: reproducible, stopped by its monitor, honest about failures."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from panels import STATED, random_panel

from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.losses import LOSSES, build_loss, decision_loss
from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.predictors import build_predictor
from bpqp_portfolio.training import MetricLogger, Progress, Trainer, TrainerConfig, predict_scores
from bpqp_portfolio.training.trainer import MONITORS

DAYS, TRAIN, VALID = 30, torch.arange(22), torch.arange(22, 30)
NAMES = sorted(LOSSES)
BLOCKS = [name for name in NAMES if hasattr(LOSSES[name], "least_days")]


@pytest.fixture(scope="module")
def panel():
    panel = random_panel(days=DAYS)
    problem().fill_oracle_values(panel, torch.arange(DAYS))
    return panel


def problem() -> PortfolioProblem:
    settings = {"risk_aversion": 20.0, "max_weight": 0.45, **STATED}
    return PortfolioProblem(settings, score_scale=0.02)


def build(loss="squared_regret", *, seed=0, network=None, callbacks=(), **config) -> Trainer:
    """A trainer of a small MLP with batch norm and dropout."""
    if network is None:
        torch.manual_seed(seed)
        network = build_predictor("mlp", 4, hidden=[8], dropout=0.2)
    settings = {"epochs": 3, "learning_rate": 1e-2, "seed": seed, **config}
    return Trainer(
        network, build_loss(loss), problem(), TrainerConfig(**settings), callbacks=callbacks
    )


def assert_equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def without_seconds(history):
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in history]


class Recorder:
    """Keeps what a trainer tells its callbacks."""

    def __init__(self, name="", log=None):
        self.name, self.log = name, [] if log is None else log

    def on_start(self, epochs, done):
        self.log.append((self.name, "start", epochs, done))

    def on_step(self, step, steps, loss):
        assert isinstance(loss, float)
        self.log.append((self.name, "step", step, steps))

    def on_epoch(self, epoch, record):
        self.log.append((self.name, "epoch", epoch, record["epoch"]))

    def on_end(self, best_epoch):
        self.log.append((self.name, "end", best_epoch))


class SeenDays:
    """A loss that notes the days of every training step."""

    def __init__(self):
        self.steps = []
        self._loss = build_loss("mse")

    def __call__(self, scores, batch, problem):
        if scores.requires_grad:
            self.steps.append(batch.days.tolist())
        return self._loss(scores, batch, problem)


# Reproducible


@pytest.mark.parametrize("loss", NAMES)
def test_a_seed_gives_the_same_weights_twice(panel, loss):
    one, other, third = build(loss), build(loss), build(loss, seed=1)
    first, second = one.fit(panel, TRAIN, VALID), other.fit(panel, TRAIN, VALID)
    third.fit(panel, TRAIN, VALID)
    assert_equal_weights(one.network, other.network)
    assert without_seconds(first.history) == without_seconds(second.history)
    parameters = zip(one.network.parameters(), third.network.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in parameters)


def test_the_seed_decides_whatever_the_global_generator_was(panel):
    one, other = build(), build()
    torch.manual_seed(123)
    one.fit(panel, TRAIN, VALID)
    torch.manual_seed(456)
    before = torch.get_rng_state()
    other.fit(panel, TRAIN, VALID)
    assert_equal_weights(one.network, other.network)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_sees_every_day_once_in_blocks_of_consecutive_days(panel):
    trainer = build(batch_days=5, epochs=4)
    trainer.objective = SeenDays()
    trainer.fit(panel, TRAIN, VALID)
    epochs, steps = [], iter(trainer.objective.steps)
    for _ in range(4):
        blocks, seen = [], 0
        while seen < len(TRAIN):
            blocks.append(next(steps))
            seen += len(blocks[-1])
        epochs.append(blocks)
    assert next(steps, None) is None
    for blocks in epochs:
        assert sorted(itertools.chain(*blocks)) == TRAIN.tolist()
        for block in blocks:
            assert 1 <= len(block) <= 5 and block == list(range(block[0], block[0] + len(block)))
        assert blocks != sorted(blocks)
    assert len({str(blocks) for blocks in epochs}) == 4


def test_one_step_may_hold_all_days(panel):
    trainer = build(batch_days=1000, epochs=2)
    trainer.objective = SeenDays()
    trainer.fit(panel, TRAIN, VALID)
    assert sorted(itertools.chain(*trainer.objective.steps)) == sorted(2 * TRAIN.tolist())


# What is learned and reported


@pytest.mark.parametrize("loss", NAMES)
def test_training_lowers_its_loss(panel, loss):
    # A ratio of a mean to a spread says little about a block of five days.
    settings = {"batch_days": 22, "epochs": 40, "patience": 40} if loss in BLOCKS else {}
    settings = {"epochs": 12, "patience": 12, **settings}
    history = build(loss, **settings).fit(panel, TRAIN, VALID).history
    first, last = history[0]["train_loss"], history[-1]["train_loss"]
    assert last < first - 0.05 * abs(first)
    assert max(record["valid_ic"] for record in history) > 0.2


@pytest.mark.parametrize("loss", NAMES)
def test_both_losses_are_reported_for_train_and_valid(panel, loss):
    history = build(loss).fit(panel, TRAIN, VALID).history
    names = {f"{s}_{k}" for s in ("train", "valid") for k in ("loss", "prediction", "decision")}
    for i, record in enumerate(history):
        assert record.keys() == names | {"epoch", "valid_ic", "train_seconds", "seconds"}
        assert record["epoch"] == i + 1 and record["seconds"] >= record["train_seconds"] > 0
        assert all(math.isfinite(value) for value in record.values())
        assert record["train_decision"] > 0 and record["valid_decision"] > 0


def test_a_two_stage_loss_reports_the_regret_that_a_decision_loss_sees(panel):
    """With β = 0 both take the same steps, so they must report the same regrets."""
    two_stage = build("mse").fit(panel, TRAIN, VALID).history
    trainer = build("squared_regret")
    trainer.objective = build_loss("squared_regret", {"beta": 0.0})
    weightless = trainer.fit(panel, TRAIN, VALID).history
    for one, other in zip(two_stage, weightless, strict=True):
        for name in ("train_decision", "valid_decision", "train_prediction", "valid_ic"):
            assert one[name] == pytest.approx(other[name], rel=1e-6)


def test_what_is_reported_is_the_mean_over_days(panel):
    trainer = build("squared_regret", batch_days=7)
    trainer.fit(panel, TRAIN, VALID)
    found = trainer.validate(panel, VALID, rows=36)
    batch = panel.batch(VALID)
    with torch.no_grad():
        scores = batch.pad(trainer.network(batch.features))
        terms = trainer.objective(scores, batch, trainer.problem)
    assert found["valid_loss"] == pytest.approx(float(terms.total.mean()), rel=1e-6)
    assert found["valid_prediction"] == pytest.approx(float(terms.prediction.mean()), rel=1e-6)
    assert found["valid_decision"] == pytest.approx(float(terms.decision.mean()), rel=1e-6)


@pytest.mark.parametrize("loss", BLOCKS)
def test_a_block_loss_wants_blocks(panel, loss):
    """Never one day alone, not even where the cut leaves one at an end or validation does."""
    with pytest.raises(ConfigError, match=r"trainer\.batch_days: 1 is too few.* such as 40"):
        build(loss, batch_days=1)
    seen = SeenDays()
    seen.least_days = LOSSES[loss].least_days
    trainer = build(loss, batch_days=6, epochs=8, patience=8)
    trainer.objective = seen
    trainer.fit(panel, TRAIN, VALID)
    assert {len(block) for block in seen.steps} >= {3, 6} and min(map(len, seen.steps)) == 3
    assert sorted(itertools.chain(*seen.steps)) == sorted(8 * TRAIN.tolist())
    widest = int(panel.counts[VALID].max())
    found = build(loss).validate(panel, VALID, rows=widest * (len(VALID) - 1))
    assert math.isfinite(found["valid_loss"])


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - set(BLOCKS)))
def test_what_is_reported_for_train_is_the_mean_over_its_days(panel, loss):
    network = build_predictor("mlp", 4, hidden=[8], batch_norm=False)
    trainer = build(loss, network=network, learning_rate=1e-12, epochs=1)
    (record,) = trainer.fit(panel, TRAIN, VALID).history
    expected = trainer.validate(panel, TRAIN)
    for name in ("loss", "prediction", "decision"):
        assert record[f"train_{name}"] == pytest.approx(expected[f"valid_{name}"], rel=1e-5)


def test_validation_leaves_the_network_alone(panel):
    trainer = build()
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    trainer.validate(panel, VALID)
    assert all(torch.equal(before[k], v) for k, v in trainer.network.state_dict().items())
    assert all(p.grad is None for p in trainer.network.parameters())


def test_callbacks_are_called_in_order(panel):
    log = []
    state = build(callbacks=[Recorder("a", log), Recorder("b", log)], epochs=2, batch_days=1).fit(
        panel, TRAIN, VALID
    )
    expected = [("start", 2, 0)]
    for epoch in (1, 2):
        expected += [("step", i + 1, len(TRAIN)) for i in range(len(TRAIN))]
        expected += [("epoch", epoch, float(epoch))]
    expected += [("end", state.best_epoch)]
    assert log == [(name, *entry) for entry in expected for name in ("a", "b")]


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(panel):
    norms = []

    class Norms(Recorder):
        def on_step(self, step, steps, loss):
            grads = [p.grad.norm() for p in trainer.network.parameters()]
            norms.append(float(torch.stack(grads).norm()))

    trainer = build("mse", callbacks=[Norms()], epochs=1)
    trainer.fit(panel, TRAIN, VALID)
    assert max(norms) > 0.1
    norms.clear()
    trainer = build("mse", callbacks=[Norms()], epochs=1, gradient_clip=0.01)
    trainer.fit(panel, TRAIN, VALID)
    assert len(norms) > 3 and max(norms) <= 0.01 * (1 + 1e-5)


# Early stopping


@pytest.mark.parametrize("monitor", sorted(MONITORS))
def test_the_best_epoch_by_the_monitor_is_restored(panel, monitor):
    trainer = build(monitor=monitor, epochs=40, patience=3, learning_rate=0.03)
    state = trainer.fit(panel, TRAIN, VALID)
    values = [record[monitor] for record in state.history]
    best = max(values) if MONITORS[monitor] else min(values)
    assert state.best_epoch == values.index(best) + 1 and state.best_value == best
    assert len(values) == state.best_epoch + 3 < 40
    assert not trainer.network.training
    assert trainer.validate(panel, VALID)[monitor] == best
    assert values[-1] != best


class Scripted(Trainer):
    """A trainer whose validation says what the test tells it to."""

    def validate(self, panel, days, rows=128):
        return dict(super().validate(panel, days), valid_ic=next(self.script))


@pytest.mark.parametrize(
    ("script", "best", "epochs"),
    [
        ([0.1, 0.2, 0.15, 0.1, 0.3], 2, 4),
        ([0.1, 0.05, 0.2, 0.1, 0.1, 0.9], 3, 5),
        ([0.1, 0.1, 0.1, 0.1], 1, 3),
        ([0.1, math.nan, 0.2, math.nan, math.nan, 0.9], 3, 5),
        ([math.nan, 0.1, 0.05, 0.2, 0.1, 0.1, 0.9], 4, 6),
        ([math.nan, math.nan, math.nan, 0.1], 1, 3),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 8, 8),
    ],
)
def test_patience_counts_epochs_without_a_better_value(panel, script, best, epochs):
    plain = build(epochs=8, patience=2)
    trainer = Scripted(plain.network, plain.objective, plain.problem, plain.config)
    trainer.script = iter(script)
    state = trainer.fit(panel, TRAIN, VALID)
    assert (state.best_epoch, len(state.history)) == (best, epochs)


# Failures


@pytest.mark.parametrize("loss", NAMES)
def test_a_diverging_training_says_when_and_what_to_do(panel, loss):
    torch.manual_seed(0)
    network = build_predictor("mlp", 4, hidden=[8], batch_norm=False)
    trainer = build(loss, network=network, learning_rate=1e30, epochs=5)
    message = r"not finite|loss is (nan|inf)"
    with pytest.raises(DataError, match=message) as error:
        trainer.fit(panel, TRAIN, VALID)
    assert re.search(
        r"in (epoch 1|validation), on the days 2020-01-\d\d to 2020-01-\d\d; "
        r"lower the learning rate or set gradient_clip\.$",
        str(error.value),
    )


@pytest.mark.parametrize("loss", NAMES)
def test_a_loss_that_is_not_finite_is_not_stepped_on(panel, loss):
    trainer = build(loss, network=build_predictor("mlp", 4, hidden=[], batch_norm=False))
    plain = trainer.objective

    def endless(*args):
        terms = plain(*args)
        return terms._replace(total=terms.total.abs() * torch.inf)

    trainer.objective = endless
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    with pytest.raises(DataError, match="the training loss is inf in epoch 1, on the days 2020"):
        trainer.fit(panel, TRAIN, VALID)
    assert all(torch.equal(before[k], v) for k, v in trainer.network.state_dict().items())


@pytest.mark.parametrize("days", [TRAIN, VALID])
def test_features_that_are_not_finite_are_named_as_such(days):
    broken = random_panel(days=DAYS)
    broken.features[broken.rows(days[4:5])[0], 2] = torch.nan
    date = str(broken.dates[int(days[4])])
    with pytest.raises(
        DataError, match=r"its features are not: let the handler's processors"
    ) as error:
        build("mse", epochs=1, batch_days=1).fit(broken, TRAIN, VALID)
    if days is TRAIN:
        assert f"{date} to {date}" in str(error.value)
    assert ("validation" in str(error.value)) == (days is VALID)


def test_an_empty_segment_is_named(panel):
    for name, train, valid in (("train", TRAIN[:0], VALID), ("valid", TRAIN, VALID[:0])):
        with pytest.raises(DataError, match=f"the {name} segment has no day"):
            build().fit(panel, train, valid)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"epochs": 0}, "epochs: must be >= 1"),
        ({"epochs": 2.5}, "epochs: expected a whole number"),
        ({"patience": 0}, "patience: must be >= 1"),
        ({"batch_days": -1}, "batch_days: must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate: must be > 0"),
        ({"learning_rate": "1e-4"}, "learning_rate: expected a number"),
        ({"weight_decay": -0.1}, "weight_decay: must be >= 0"),
        ({"gradient_clip": 0.0}, "gradient_clip: must be > 0"),
        ({"seed": -1}, "seed: must be >= 0"),
        ({"monitor": "valid_IC"}, "unknown monitor 'valid_IC'. Did you mean 'valid_ic'"),
    ],
)
def test_settings_outside_their_range(config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainerConfig(**config)


def test_whole_numbers_may_be_written_as_floats(panel):
    config = TrainerConfig(epochs=2.0, patience=1.0, batch_days=5.0, seed=3.0)
    assert config == TrainerConfig(epochs=2, patience=1, batch_days=5, seed=3)
    assert len(build(epochs=2.0, batch_days=5.0).fit(panel, TRAIN, VALID).history) == 2


# Predictions


@pytest.mark.parametrize("window", [1, 3])
def test_scores_are_those_of_the_network_in_evaluation_mode_day_by_day(window):
    panel = random_panel(window=window)
    torch.manual_seed(0)
    name = "mlp" if window == 1 else "gru"
    network = build_predictor(name, 4, hidden=[8] if window == 1 else 8)
    network.train()
    days = torch.tensor([3, 7, 4, 19])
    scores = predict_scores(network, panel, days, rows=36)
    assert network.training and not scores.requires_grad and scores.dtype == torch.float64
    network.eval().double()
    with torch.no_grad():
        for part, t in zip(scores.split(panel.counts[days].tolist()), days, strict=True):
            alone = network(panel.batch(t.unsqueeze(0)).features.double())
            torch.testing.assert_close(part, alone, rtol=1e-12, atol=1e-12)
    assert predict_scores(network, panel, days[:0]).shape == (0,)


def test_the_decision_of_predicted_scores_is_that_of_validation(panel):
    trainer = build()
    trainer.fit(panel, TRAIN, VALID)
    batch = panel.batch(VALID)
    scores = batch.pad(predict_scores(trainer.network, panel, VALID))
    regret = decision_loss(scores, batch, trainer.problem).mean()
    found = trainer.validate(panel, VALID)["valid_decision"]
    assert float(regret) == pytest.approx(found, rel=1e-6)


# The callbacks that come with it


def test_progress_prints_a_line_for_each_epoch(panel, capsys):
    state = build(callbacks=[Progress()]).fit(panel, TRAIN, VALID)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    for line, record in zip(lines, state.history, strict=False):
        for name in ("train_loss", "train_decision", "valid_prediction", "valid_decision"):
            assert f"{record[name]:.4f}" in line
        assert f"IC {record['valid_ic']:+.4f}" in line
    assert lines[-1] == f"best epoch: {state.best_epoch}"


def test_the_metric_logger_sends_every_epoch(panel):
    sent = []
    logger = MetricLogger(lambda metrics, step: sent.append((step, metrics)))
    state = build(callbacks=[logger]).fit(panel, TRAIN, VALID)
    assert [step for step, _ in sent] == [1, 2, 3, state.best_epoch]
    for (_, metrics), record in zip(sent, state.history, strict=False):
        assert metrics == {k: v for k, v in record.items() if k != "epoch"}
    assert sent[-1][1] == {"best_epoch": float(state.best_epoch)}
