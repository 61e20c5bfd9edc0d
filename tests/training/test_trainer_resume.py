"""A training that is interrupted, killed or damaged ends as an uninterrupted one does."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from panels import random_panel

from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.predictors import build_predictor
from bpqp_portfolio.training import FitState, Trainer, TrainerConfig, torch_threads
from bpqp_portfolio.training.checkpoint import load_checkpoint, save_checkpoint

EPOCHS = 5
TRAIN, VALID = torch.arange(20), torch.arange(20, 28)


def train(
    checkpoint: Path | None, callbacks=(), key="run", loss="squared_regret", **config
) -> tuple[torch.nn.Module, FitState]:
    """Train a small MLP with batch norm, dropout and weight decay, in a fresh trainer."""
    panel = random_panel(days=28)
    problem = PortfolioProblem({"risk_aversion": 20.0, "max_weight": 0.45}, score_scale=0.02)
    with torch_threads(1):
        problem.fill_oracle_values(panel, torch.arange(28))
    torch.manual_seed(0)
    network = build_predictor("mlp", 4, hidden=[8], dropout=0.3)
    settings = {"epochs": EPOCHS, "learning_rate": 1e-2, "weight_decay": 1e-3, **config}
    trainer = Trainer(
        network,
        build_loss(loss),
        problem,
        TrainerConfig(**settings),
        callbacks=callbacks,
        checkpoint=checkpoint,
        checkpoint_key=key,
    )
    # Sums depend on the number of threads in their last bits.
    with torch_threads(1):
        return network, trainer.fit(panel, TRAIN, VALID)


class Watcher:
    """Calls ``act`` after the epoch or step of the given number; notes the epochs it is told."""

    def __init__(self, act=None, *, epoch=0, step=None):
        self.act, self.epoch, self.step = act, epoch, step
        self.seen, self.steps, self.start = [], 0, None

    def on_start(self, epochs, done):
        self.start = (epochs, done)

    def on_step(self, step, steps, loss):
        self.steps += 1
        if self.act and self.step == step and self.seen and self.seen[-1] == self.epoch:
            self.act()

    def on_epoch(self, epoch, record):
        self.seen.append(epoch)
        if self.act and self.step is None and self.epoch == epoch:
            self.act()

    def on_end(self, best_epoch):
        self.seen.append(-best_epoch)


def stop():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_while_the_checkpoint_of_epoch_3_is_written():
    """In the third call, die after the new file is written and before it replaces the old."""
    calls, replace = [], os.replace

    def replacing(source, target):
        calls.append(target)
        if len(calls) == 3:
            kill()
        replace(source, target)

    os.replace = replacing


def train_and_be_killed(checkpoint: str, how: str) -> None:
    """What the child process of the tests runs."""
    if how == "checkpoint":
        kill_while_the_checkpoint_of_epoch_3_is_written()
        train(Path(checkpoint))
    else:
        train(Path(checkpoint), [Watcher(kill, epoch=2, step=2)])


def assert_same_run(one, other) -> None:
    """Bit-equal weights (batch norm's statistics too), metrics and best epoch."""
    (network, state), (other_network, other_state) = one, other
    for name, value in network.state_dict().items():
        assert torch.equal(value, other_network.state_dict()[name]), name
    assert "layers.1.running_mean" in network.state_dict()
    assert (state.epoch, state.best_epoch) == (other_state.epoch, other_state.best_epoch)
    for record, other_record in zip(state.history, other_state.history, strict=True):
        for name, value in record.items():
            assert "seconds" in name or value == other_record[name], name


@pytest.fixture(scope="module")
def uninterrupted():
    return train(None)


# Interrupted in the process


@pytest.mark.parametrize("place", [{"epoch": 2}, {"epoch": 2, "step": 3}, {"epoch": EPOCHS}])
def test_an_interrupted_training_continues_to_the_same_result(tmp_path, uninterrupted, place):
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, [Watcher(stop, **place)])
    watcher = Watcher()
    assert_same_run(train(path, [watcher]), uninterrupted)
    assert watcher.start == (EPOCHS, place["epoch"])
    assert (watcher.steps > 0) == (place["epoch"] < EPOCHS)


def test_the_checkpoint_itself_changes_nothing(tmp_path, uninterrupted):
    assert_same_run(train(tmp_path / "run.pt"), uninterrupted)


@pytest.mark.parametrize("loss", ["mse", "regret"])
def test_every_loss_continues_to_the_same_result(tmp_path, loss):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run.pt", [Watcher(stop, epoch=1)], loss=loss, epochs=3)
    resumed = train(tmp_path / "run.pt", loss=loss, epochs=3)
    assert_same_run(resumed, train(None, loss=loss, epochs=3))


def test_an_interruption_in_every_epoch_makes_no_difference(tmp_path, uninterrupted):
    path = tmp_path / "run.pt"
    for epoch in range(1, EPOCHS):
        with pytest.raises(KeyboardInterrupt):
            train(path, [Watcher(stop, epoch=epoch, step=1)])
        assert load_checkpoint(path, "run")["state"]["epoch"] == epoch
    assert_same_run(train(path), uninterrupted)


def test_a_continued_training_reports_all_of_its_epochs(tmp_path):
    path = tmp_path / "run.pt"
    first = Watcher(stop, epoch=2)
    with pytest.raises(KeyboardInterrupt):
        train(path, [first])
    second = Watcher()
    _, state = train(path, [second])
    assert first.seen == [1, 2]
    assert second.seen == [*range(1, EPOCHS + 1), -state.best_epoch]


def test_a_finished_training_is_not_trained_again(tmp_path, uninterrupted):
    path = tmp_path / "run.pt"
    train(path)
    watcher = Watcher()
    assert_same_run(train(path, [watcher]), uninterrupted)
    assert watcher.steps == 0


def test_early_stopping_survives_an_interruption(tmp_path):
    settings = {"epochs": 40, "patience": 2, "learning_rate": 0.03}
    whole = train(None, **settings)
    last = len(whole[1].history)
    assert 2 < last < 40
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run.pt", [Watcher(stop, epoch=last - 1)], **settings)
    assert_same_run(train(tmp_path / "run.pt", **settings), whole)


# Killed


@pytest.mark.parametrize("how", ["step", "checkpoint"])
def test_a_killed_training_continues_to_the_same_result(tmp_path, uninterrupted, how):
    path = tmp_path / "run.pt"
    here = Path(__file__).parent
    code = "import test_trainer_resume as t, sys; t.train_and_be_killed(*sys.argv[1:])"
    paths = [str(here), str(here.parent), *filter(None, sys.path)]
    child = subprocess.run(
        [sys.executable, "-c", code, str(path), how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert load_checkpoint(path, "run")["state"]["epoch"] == 2
    watcher = Watcher()
    assert_same_run(train(path, [watcher]), uninterrupted)
    assert watcher.start == (EPOCHS, 2)


# Damaged and foreign checkpoints


def half_trained(path: Path) -> bytes:
    with pytest.raises(KeyboardInterrupt):
        train(path, [Watcher(stop, epoch=2)])
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "end", "text", "plain"])
def test_a_damaged_checkpoint_starts_anew_with_a_warning(tmp_path, uninterrupted, caplog, damage):
    path = tmp_path / "run.pt"
    raw = half_trained(path)
    middle = len(raw) // 2
    flipped = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
    changed = {"empty": b"", "cut": raw[:middle], "bit": flipped, "end": raw + b"\0", "text": b"x"}
    if damage == "plain":
        torch.save({"key": "run", "network": {}}, path)
    else:
        path.write_bytes(changed[damage])
    watcher = Watcher()
    with caplog.at_level(logging.WARNING):
        assert_same_run(train(path, [watcher]), uninterrupted)
    assert watcher.start == (EPOCHS, 0)
    assert f"checkpoint {path} is damaged; training starts anew" in caplog.text
    assert load_checkpoint(path, "run")["state"]["epoch"] == EPOCHS


def test_a_foreign_checkpoint_is_not_continued(tmp_path, uninterrupted, caplog):
    path = tmp_path / "run.pt"
    half_trained(path)
    watcher = Watcher()
    with caplog.at_level(logging.WARNING):
        assert_same_run(train(path, [watcher], key="another"), uninterrupted)
    assert watcher.start == (EPOCHS, 0)
    assert "belongs to another run; training starts anew" in caplog.text


def test_nothing_to_continue_needs_no_warning(tmp_path, caplog):
    assert load_checkpoint(tmp_path / "none.pt", "run") is None
    assert not caplog.records


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, "run", network={"w": torch.arange(100.0)})
    raw = path.read_bytes()
    assert torch.equal(load_checkpoint(path, "run")["network"]["w"], torch.arange(100.0))
    for i in range(0, len(raw), 13):
        path.write_bytes(raw[:i] + bytes([raw[i] ^ 16]) + raw[i + 1 :])
        assert load_checkpoint(path, "run") is None


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save_checkpoint(path, "run", epoch=1)

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_checkpoint(path, "run", epoch=2)
    monkeypatch.undo()
    assert load_checkpoint(path, "run")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
