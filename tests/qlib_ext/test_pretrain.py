"""A network that learns the forecast first and the decision after it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from qlib_markets import connect

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.training import Trainer

TRAINER = {"epochs": 3, "batch_days": 5, "learning_rate": 1e-3, "seed": 1}
FORECAST = {"name": "mse"}
DECISION = {"name": "regret"}
SETTINGS = {"predictor": {"name": "mlp", "hidden": [8]}, "trainer": TRAINER}


@pytest.fixture(autouse=True)
def connected(market: Provider) -> None:
    connect(market.root)


def weights(model: PortfolioModel) -> list[torch.Tensor]:
    assert model.network is not None
    return list(model.network.parameters())


def test_the_second_stage_starts_where_the_first_ended(dataset: PortfolioDataset):
    alone = PortfolioModel(**SETTINGS, loss=FORECAST)
    alone.fit(dataset)
    # Steps too small to move anything: what is left is what the first stage learned.
    still = {**TRAINER, "learning_rate": 1e-30, "epochs": 1}
    both = PortfolioModel(
        predictor=SETTINGS["predictor"],
        loss=DECISION,
        trainer=still,
        pretrain={"loss": FORECAST, "trainer": TRAINER},
    )
    both.fit(dataset)
    assert all(torch.equal(a, b) for a, b in zip(weights(alone), weights(both), strict=True))
    moved = PortfolioModel(**SETTINGS, loss=DECISION, pretrain={"loss": FORECAST})
    moved.fit(dataset)
    assert not all(torch.equal(a, b) for a, b in zip(weights(alone), weights(moved), strict=True))
    assert len(moved.history) == 3
    # What the first stage learned can still be asked.
    assert moved.predict(dataset, stage="pretraining").equals(alone.predict(dataset))
    with pytest.raises(ConfigError, match="no stage 'pretraining', only training"):
        alone.predict(dataset, stage="pretraining")


def test_a_killed_second_stage_goes_on_without_the_first(
    dataset: PortfolioDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    whole = PortfolioModel(**SETTINGS, loss=DECISION, pretrain={"loss": FORECAST})
    whole.fit(dataset)
    epochs = []
    original = Trainer._epoch

    def counted(self, *args):
        if len(epochs) == 4:
            raise KeyboardInterrupt
        epochs.append(type(self.objective).__name__)
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", counted)
        cut = PortfolioModel(**SETTINGS, loss=DECISION, pretrain={"loss": FORECAST})
        with pytest.raises(KeyboardInterrupt):
            cut.fit(dataset)
    # Three epochs of the forecast and one of the decision are behind it; two are left.
    left = []
    monkeypatch.setattr(
        Trainer, "_epoch", lambda self, *args: (left.append(1), original(self, *args))
    )
    again = PortfolioModel(**SETTINGS, loss=DECISION, pretrain={"loss": FORECAST})
    again.fit(dataset)
    assert len(left) == 2
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))
    # Qlib's pickle of a model, which leaves private attributes out, predicts by both stages too.
    again.to_pickle(tmp_path / "params.pkl")
    loaded = PortfolioModel.load(tmp_path / "params.pkl")
    for stage in whole.stages:
        expected = whole.predict(dataset, stage=stage)
        assert expected.equals(again.predict(dataset, stage=stage))
        assert expected.equals(loaded.predict(dataset, stage=stage))


@pytest.mark.parametrize(
    ("pretrain", "message"),
    [
        ({"trainer": {}}, "pretrain.loss"),
        ({"loss": {"name": "mes"}}, "mse"),
        ({"loss": FORECAST, "trainer": {"epoch": 1}}, "epochs"),
        ({"loss": FORECAST, "losses": 1}, "losses"),
    ],
)
def test_a_bad_first_stage_is_refused(pretrain, message):
    with pytest.raises(ConfigError, match=message):
        PortfolioModel(**SETTINGS, loss=DECISION, pretrain=pretrain)
