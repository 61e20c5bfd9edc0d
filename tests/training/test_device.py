"""Devices: named errors, nothing on a hard-coded one, checkpoints that load on either."""

from __future__ import annotations

import pytest
import torch
from panels import random_panel
from torch.overrides import TorchFunctionMode

from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.portfolio import PortfolioProblem
from bpqp_portfolio.predictors import build_predictor
from bpqp_portfolio.training import Trainer, TrainerConfig, predict_scores, resolve_device
from bpqp_portfolio.training.checkpoint import load_checkpoint, save_checkpoint
from bpqp_portfolio.training.device import placed

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
TRAIN, VALID = torch.arange(20), torch.arange(20, 28)


def trained(device: str, loss: str = "squared_regret", checkpoint=None, epochs: int = 2):
    panel = random_panel(days=28)
    problem = PortfolioProblem({"risk_aversion": 20.0, "max_weight": 0.45}, score_scale=0.02)
    problem.fill_oracle_values(panel, torch.arange(28))
    torch.manual_seed(0)
    network = build_predictor("mlp", 4, hidden=[8])
    config = TrainerConfig(epochs=epochs, learning_rate=1e-2)
    trainer = Trainer(
        network, build_loss(loss), problem, config, checkpoint=checkpoint, device=device
    )
    return panel, network, trainer.fit(panel, TRAIN, VALID)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="'cuda:1' is asked for, and torch sees 1 CUDA devices"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "", "cuda:x"])
def test_an_unknown_device_is_named(name):
    with pytest.raises(ConfigError, match="use auto, cpu, cuda or cuda:<number>"):
        resolve_device(name)


def test_a_panel_goes_to_the_gpu_only_if_it_fits(monkeypatch):
    panel, device = random_panel(), torch.device("cuda:0")
    moved = []
    monkeypatch.setattr(type(panel), "to", lambda self, to: moved.append(to) or self)
    for free, times in ((2 * panel.nbytes, 1), (panel.nbytes, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        placed(panel, device)
        assert moved == [device] * times
    assert placed(panel, torch.device("cpu")) is panel and len(moved) == 1


class Constructions(TorchFunctionMode):
    """Notes calls that make a tensor without being told on which device."""

    MAKERS = ("zeros", "ones", "full", "empty", "arange", "eye", "tensor", "rand", "randn")

    def __init__(self) -> None:
        super().__init__()
        self.without: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ in self.MAKERS and kwargs.get("device") is None:
            self.without.append(func.__name__)
        return func(*args, **kwargs)


@pytest.mark.parametrize("loss", ["mse", "squared_regret"])
def test_no_tensor_of_a_step_is_made_on_a_device_of_its_own(loss):
    """Whatever a step makes, it makes on a device that it names: that of its input."""
    panel = random_panel(days=28)
    problem = PortfolioProblem({"risk_aversion": 20.0, "max_weight": 0.45}, score_scale=0.02)
    problem.fill_oracle_values(panel, torch.arange(28))
    network, objective = build_predictor("mlp", 4, hidden=[8]), build_loss(loss)
    with Constructions() as seen:
        batch = panel.batch(torch.arange(5))
        terms = objective(batch.pad(network(batch.features)), batch, problem)
        terms.total.mean().backward()
        assert torch.arange(3).device.type == "cpu"
    # Only the two that the test itself makes.
    assert seen.without == ["arange"] * 2


def test_a_checkpoint_is_read_to_the_cpu(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "run.pt", "run", w=torch.ones(2))
    load, asked = torch.load, []

    def loading(*args, **kwargs):
        asked.append(kwargs["map_location"])
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", loading)
    assert load_checkpoint(tmp_path / "run.pt", "run")["w"].device.type == "cpu"
    assert asked == ["cpu"]


@gpu
@pytest.mark.parametrize("loss", ["mse", "squared_regret"])
def test_a_gpu_learns_what_the_cpu_learns(loss):
    _, _, here = trained("cpu", loss)
    panel, network, there = trained("cuda", loss)
    assert next(network.parameters()).device.type == "cuda"
    for one, other in zip(here.history, there.history, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    scores = predict_scores(network, panel, VALID)
    assert scores.device.type == "cpu" and torch.isfinite(scores).all()


@gpu
@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_training_continues_on_another_device(tmp_path, first, second):
    trained(first, checkpoint=tmp_path / "run.pt", epochs=1)
    _, _, state = trained(second, checkpoint=tmp_path / "run.pt", epochs=3)
    assert state.epoch == 3 and len(state.history) == 3
