"""A model of several networks: seeds of their own, one decision, saved and continued."""

from __future__ import annotations

import json

import pytest
import torch
from qlib_markets import connect

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.predictors import Ensemble
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.model import SEED_STEP, PortfolioModel
from bpqp_portfolio.training import Trainer

TRAINER = {"epochs": 2, "batch_days": 5, "learning_rate": 1e-3, "seed": 1}
SETTINGS = {"predictor": {"name": "mlp", "hidden": [8]}, "loss": {"name": "regret"}}


@pytest.fixture(autouse=True)
def connected(market: Provider) -> None:
    connect(market.root)


def fitted(dataset: PortfolioDataset, seed: int = 1, **more) -> PortfolioModel:
    model = PortfolioModel(**SETTINGS, trainer={**TRAINER, "seed": seed}, **more)
    model.fit(dataset)
    return model


def test_each_member_is_the_network_of_its_own_seed(dataset: PortfolioDataset):
    together = fitted(dataset, members=2).network
    assert isinstance(together, Ensemble)
    alone = [fitted(dataset).network, fitted(dataset, seed=1 + SEED_STEP).network]
    for own, member in zip(alone, together.members, strict=True):
        assert own is not None
        for name, value in own.state_dict().items():
            assert torch.equal(member.state_dict()[name], value), name


def test_a_first_stage_has_the_member_s_seed_too(dataset: PortfolioDataset):
    pretrain = {"loss": {"name": "mse"}, "trainer": {"epochs": 1}}
    together = fitted(dataset, members=2, pretrain=pretrain).network
    alone = fitted(dataset, seed=1 + SEED_STEP, pretrain=pretrain).network
    assert isinstance(together, Ensemble) and alone is not None
    for name, value in alone.state_dict().items():
        assert torch.equal(together.members[1].state_dict()[name], value), name


def test_the_mean_of_standardised_members_is_predicted(dataset: PortfolioDataset):
    """Each member's scores over their spread on the training days, averaged."""
    model = fitted(dataset, members=2)
    scores = model.predict(dataset)
    days, panel = dataset.days("train"), dataset.panel(1)
    parts, spreads = [], []
    for seed in (1, 1 + SEED_STEP):
        one = fitted(dataset, seed=seed)
        parts.append(one.predict(dataset))
        train = one.predict(dataset, "train")
        spreads.append(train.groupby(level="datetime").std(ddof=0).mean())
        assert len(train.index.levels[0]) >= len(days) and len(panel) > 0
    mean = sum(spreads) / 2
    expected = sum(mean / spread * part / 2 for spread, part in zip(spreads, parts, strict=True))
    assert (scores - expected).abs().max() < 1e-12


def test_history_names_the_member_and_the_epoch_is_nobody_s(dataset: PortfolioDataset):
    model = fitted(dataset, members=3)
    assert model.best_epoch is None
    assert model.history["member"].tolist() == [1, 1, 2, 2, 3, 3]
    assert "member" not in fitted(dataset).history


def test_a_killed_training_goes_on_with_the_member_it_was_at(
    dataset: PortfolioDataset, monkeypatch: pytest.MonkeyPatch
):
    whole = fitted(dataset, members=2).network
    done, original = [], Trainer._epoch

    def killed(self, *args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            fitted(dataset, members=2)
    left = []
    monkeypatch.setattr(
        Trainer, "_epoch", lambda self, *args: (left.append(1), original(self, *args))
    )
    again = fitted(dataset, members=2).network
    assert len(left) == 1
    assert whole is not None and again is not None
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_it_is_kept_as_tensors_and_json(dataset: PortfolioDataset, tmp_path):
    model = fitted(dataset, members=2)
    model.save(tmp_path, dataset)
    assert json.loads((tmp_path / "model.json").read_text())["model"]["members"] == 2
    state = torch.load(tmp_path / "state_dict.pt", weights_only=True)
    assert "spread" in state and any(name.startswith("members.1.") for name in state)


@pytest.mark.parametrize("members", [0, 1.5, "two"])
def test_a_number_of_members_that_is_none_is_refused(members):
    with pytest.raises(ConfigError, match="members"):
        PortfolioModel(**SETTINGS, trainer=TRAINER, members=members)
