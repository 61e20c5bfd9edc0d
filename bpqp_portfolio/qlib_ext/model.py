"""Qlib's model interface over the trainer: a network learned through the portfolio problem."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from qlib.model.base import Model
from qlib.workflow import R

from ..backtest.learned_risk import LearnedRisk
from ..config import (
    as_mapping,
    check_keys,
    check_number,
    from_mapping,
    keys_of,
    named,
    own_parts,
    title,
)
from ..data.features.panel import DailyPanel
from ..errors import ConfigError
from ..files.atomic import replacing_file
from ..files.cache import cache_root
from ..files.screen import detail
from ..losses import LOSSES, build_loss
from ..losses.terms import KAPPA, RISK
from ..portfolio.problem import PortfolioProblem
from ..portfolio.scores import mean_spread
from ..predictors import Ensemble, Predictor, build_network
from ..training import (
    MetricLogger,
    Progress,
    Trainer,
    TrainerConfig,
    predict,
    predict_scores,
    resolve_device,
    torch_threads,
)
from ..training.device import AUTO
from .dataset import PortfolioDataset
from .preflight import check_learned


@dataclass(frozen=True)
class ModelConfig:
    """Settings of a :class:`PortfolioModel`: the network, and what and how it learns.

    Parameters
    ----------
    predictor : network that gives the scores: a name, a ``name`` and options, or ``class`` and
        ``module_path`` (see :func:`~bpqp_portfolio.config.resolve`).
    loss : what the training minimises; a name, a ``name`` and options, or a class, as above.
    trainer : fields of :class:`~bpqp_portfolio.training.trainer.TrainerConfig`.
    pretrain : stage by which the network learns first, such as the forecast alone; see
        :class:`Pretraining`.
    members : [networks] number of networks that are trained, each from a seed of its own, whose
        mean score is what is decided on (:class:`~bpqp_portfolio.predictors.Ensemble`).
    risk_head : fields of :class:`~bpqp_portfolio.predictors.RiskHeadConfig`, for a network that
        learns the covariance it decides with.
    learn_kappa : makes the problem's κ a parameter of the network.
    threads : [threads] threads of torch in training; batches of a few days seldom gain from more
        than one (see :func:`~bpqp_portfolio.training.torch_threads`).
    device : where the network trains: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or
        ``cuda:1``. A saved run decides on any machine.

    Raises
    ------
    ConfigError
        A setting outside its range, or a device that is not there.
    """

    predictor: Mapping[str, Any] = field(default_factory=lambda: {"name": "mlp"})
    loss: Mapping[str, Any] = field(default_factory=lambda: {"name": "squared_regret"})
    trainer: Mapping[str, Any] = field(default_factory=dict)
    pretrain: Mapping[str, Any] | None = None
    members: int = 1
    risk_head: Mapping[str, Any] | None = None
    learn_kappa: bool = False
    threads: int = 1
    device: str = AUTO

    def __post_init__(self) -> None:
        for part in ("predictor", "loss"):
            object.__setattr__(self, part, named(getattr(self, part), part))
        object.__setattr__(self, "trainer", as_mapping(self.trainer, "trainer"))
        check_number(self.members, "members", low=1, integer=True)
        check_number(self.threads, "threads", low=1, integer=True)
        if not isinstance(self.learn_kappa, bool):
            raise ConfigError(f"learn_kappa: expected true or false, got {self.learn_kappa!r}.")
        resolve_device(self.device)


@dataclass(frozen=True)
class Pretraining:
    """A stage of training before that of ``loss`` and ``trainer``.

    Parameters
    ----------
    loss : as the model's.
    trainer : settings that differ from the model's ``trainer``, which gives the others.
    """

    loss: Mapping[str, Any]
    trainer: Mapping[str, Any] = field(default_factory=dict)


# Name of a stage of the training, its loss and its trainer.
Stage = tuple[str, Mapping[str, Any], TrainerConfig]
# Between the seeds of an ensemble's members, so that runs of neighbouring seeds share none.
SEED_STEP = 10_000


class PortfolioModel(Model):
    """A predictor trained on a prediction loss, a decision loss, or both.

    Parameters
    ----------
    predictor, loss, trainer, pretrain, members : see :class:`ModelConfig`.

    Attributes
    ----------
    network : what was learned, None before :meth:`fit`; ``pretrained`` has each member as its first
        stage left it, where there are two. ``history`` has a row for each epoch of the
        last stage, with the ``member`` (from 1) where there are several; ``best_epoch`` is the
        epoch that was kept, None where there are several networks.

    Raises
    ------
    ConfigError
        An unknown name or option; the message names the nearest known one.
    """

    def __init__(self, **config: Any) -> None:
        self.settings = from_mapping(ModelConfig, config, "model")
        self.trainer_config = from_mapping(TrainerConfig, self.settings.trainer, "model.trainer")
        for _, loss, _ in self._learning():
            build_loss(loss)
        self._check_taught()
        self._predictor(features=1)
        self.network: Predictor | None = None
        self.pretrained: list[Predictor] = []
        self.history = pd.DataFrame()
        self.best_epoch: int | None = None

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Raise :class:`ConfigError` for an unknown setting or one outside its range."""
        cls(**settings)

    @property
    def stages(self) -> tuple[str, ...]:
        """What the network learns by, one after the other."""
        return tuple(name for name, _, _ in self._learning())

    def _learning(self) -> list[Stage]:
        """Each stage's name, loss and trainer: Qlib's pickle of a model keeps no private data."""
        pretrain = self.settings.pretrain
        first = [] if pretrain is None else [self._first_stage(pretrain)]
        return [*first, ("training", self.settings.loss, self.trainer_config)]

    def _first_stage(self, pretrain: Mapping[str, Any]) -> Stage:
        check_keys(pretrain, keys_of(Pretraining), "model.pretrain")
        loss = named(pretrain.get("loss") or {}, "model.pretrain.loss")
        own = as_mapping(pretrain.get("trainer"), "model.pretrain.trainer")
        given = {**self.settings.trainer, **own}
        config = from_mapping(TrainerConfig, given, "model.pretrain.trainer")
        return "pretraining", loss, config

    def _check_taught(self) -> None:
        """Raise ConfigError where the loss has no gradient in what is to be learned."""
        name, settings = title(self.settings.loss), self.settings
        taught = getattr(build_loss(settings.loss), "learns", ())
        wanted = {RISK: settings.risk_head is not None, KAPPA: settings.learn_kappa}
        for part, key in ((RISK, "risk_head"), (KAPPA, "learn_kappa")):
            if wanted[part] and part not in taught:
                able = [k for k, v in LOSSES.items() if part in getattr(v, "learns", ())]
                raise ConfigError(
                    f"model.{key}: the loss {name!r} has no gradient in it; train on "
                    f"{', '.join(able)} (a two-stage loss may come before it, as `pretrain`), or "
                    f"leave {key} out."
                )

    def _predictor(self, features: int, seed: int | None = None, factors: int = 1) -> Predictor:
        settings = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.trainer_config.seed if seed is None else seed)
            return build_network(
                settings.predictor,
                features,
                risk_head=settings.risk_head,
                learn_kappa=settings.learn_kappa,
                factors=factors,
            )

    def fit(self, dataset: PortfolioDataset, reweighter: Any = None) -> None:
        """Train on the dataset's train days, choose the epoch on its valid days.

        An interrupted training continues after its last finished epoch.

        Raises
        ------
        ConfigError
            A ``reweighter`` is given.
        DataError
            A segment has no day to learn from, or scores or loss are not finite.
        """
        if reweighter is not None:
            raise ConfigError("model: a reweighter is not supported; weigh days in the loss.")
        count = self.settings.members
        risk, kappa = self.settings.risk_head is not None, self.settings.learn_kappa
        check_learned(risk, kappa, dataset.problem_config)
        if any(getattr(build_loss(loss), "pays_costs", False) for _, loss, _ in self._learning()):
            _ = PortfolioProblem(dataset.problem_config).costs  # asked for before any long work
        features = len(dataset.features.feature_names)
        panel = dataset.panel(self._predictor(features).window)
        factors = panel.loadings.shape[1]
        with dataset.clock("hindsight"), torch_threads(self.settings.threads):
            dataset.fill_oracle_values(["train", "valid"])
        # A training may continue on another device, and one member's is that of a run of its own.
        own = {k: v for k, v in asdict(self.settings).items() if k not in ("device", "members")}
        if parts := own_parts(own):
            own["own_parts"] = parts
        checkpoints, members, histories = [], [], []
        self.pretrained = []
        for member in range(count):
            if count > 1:
                detail(f"network {member + 1} of {count}")
            shift = SEED_STEP * member
            stages = [
                (name, loss, replace(config, seed=config.seed + shift))
                for name, loss, config in self._learning()
            ]
            key = dataset.run_key(model={**own, **({"seed_shift": shift} if shift else {})})
            network = self._predictor(features, stages[-1][2].seed, factors)
            for name, loss, config in stages:
                checkpoints.append(cache_root() / "checkpoints" / f"{key[:32]}-{name}.pt")
                trainer = Trainer(
                    network,
                    build_loss(loss),
                    dataset.problem,
                    config,
                    callbacks=[Progress(), *(_tracking(member) if name == "training" else [])],
                    checkpoint=checkpoints[-1],
                    checkpoint_key=f"{key} {name}",
                    device=self.settings.device,
                )
                last = member == count - 1
                with dataset.clock(name, last), torch_threads(self.settings.threads):
                    state = trainer.fit(panel, dataset.days("train"), dataset.days("valid"))
                if name == "pretraining":
                    self.pretrained.append(copy.deepcopy(network).cpu())
            # What is kept can be read where there is no GPU.
            members.append(network.cpu())
            history = pd.DataFrame(state.history)
            histories.append(history if count == 1 else history.assign(member=member + 1))
        self.history = pd.concat(histories, ignore_index=True)
        self.network = self._together(members, dataset)
        self.best_epoch = state.best_epoch if count == 1 else None
        for checkpoint in checkpoints:
            checkpoint.unlink(missing_ok=True)

    def _together(self, members: Sequence[Predictor], dataset: PortfolioDataset) -> Predictor:
        """The one network, or the ensemble of several."""
        if len(members) == 1:
            return members[0]
        return Ensemble(members, self._spread(members, dataset))

    def _spread(self, members: Sequence[Predictor], dataset: PortfolioDataset) -> torch.Tensor:
        """Mean cross-sectional standard deviation of each member's scores on train days, (K,)."""
        panel, days = dataset.prepared_panel(), dataset.days("train")
        mask = panel.batch(days, features=False).mask
        out = []
        with torch_threads(self.settings.threads):
            for network in members:
                rows = predict_scores(network, panel, days)
                table = rows.new_zeros(mask.shape).masked_scatter(mask, rows)
                out.append(mean_spread(table, mask))
        return torch.stack(out)

    def _fitted(self, what: str, dataset: PortfolioDataset) -> tuple[Predictor, DailyPanel]:
        """A copy of the network on the device that it works on, and the panel that it reads."""
        if self.network is None:
            raise ConfigError(f"model: fit it before {what}.")
        network = copy.deepcopy(self.network).to(resolve_device(self.settings.device))
        return network, dataset.panel(self.network.window)

    def predict(
        self, dataset: PortfolioDataset, segment: str = "test", stage: str = "training"
    ) -> pd.Series:
        """Scores of ``segment``, indexed by (datetime, instrument).

        A score of 1 stands for one cross-sectional standard deviation of daily returns. With
        ``stage`` pretraining they are those of the network as its first loss left it.

        Raises
        ------
        ConfigError
            The model is not fitted, or has no such stage.
        """
        if stage not in self.stages:
            raise ConfigError(f"model: no stage {stage!r}, only {', '.join(self.stages)}.")
        network, panel = self._fitted("predicting", dataset)
        if stage == "pretraining":
            network = self._together(self.pretrained, dataset)
            network = copy.deepcopy(network).to(resolve_device(self.settings.device))
        days = dataset.days(segment)
        with torch_threads(self.settings.threads):
            scores = predict_scores(network, panel, days).numpy()
        return pd.Series(scores, index=panel.index(days), name="score")

    def problem(self, dataset: PortfolioDataset) -> PortfolioProblem:
        """The dataset's problem with the κ that was learned, where one was."""
        log_kappa = getattr(self.network, "log_kappa", None)
        if log_kappa is None:
            return dataset.problem
        kappa = float(dataset.problem.with_signal_scale(log_kappa.detach()).unit)
        return PortfolioProblem(replace(dataset.problem_config, kappa=kappa), dataset.problem.scale)

    def learned_risk(self, dataset: PortfolioDataset, segment: str = "test") -> LearnedRisk:
        """What the network decides with on ``segment`` besides its scores.

        Raises
        ------
        ConfigError
            The model is not fitted.
        """
        network, panel = self._fitted("asking for its risk", dataset)
        if self.settings.risk_head is None:
            return LearnedRisk(self.problem(dataset))
        days = dataset.days(segment)
        with torch_threads(self.settings.threads):
            said = predict(network, panel, days)
        rows, dates = panel.index(days), pd.DatetimeIndex(panel.dates[days.numpy()])
        specific, factors = said.log_specific, said.log_factors
        return LearnedRisk(
            self.problem(dataset),
            None if specific is None else pd.Series(specific.numpy(), rows, name="log_specific"),
            None if factors is None else pd.DataFrame(factors.numpy(), dates.rename("datetime")),
        )

    def save(self, folder: Path, dataset: PortfolioDataset) -> None:
        """Write the network as tensors and its settings as JSON, for use without pickle.

        Raises
        ------
        ConfigError
            The model is not fitted.
        """
        if self.network is None:
            raise ConfigError("model: fit it before saving.")
        with replacing_file(Path(folder) / "state_dict.pt") as scratch:
            buffer = io.BytesIO()  # torch itself would not say that a disk is full
            torch.save(self.network.state_dict(), buffer)
            scratch.write_bytes(buffer.getvalue())
        settings = {
            "model": {**asdict(self.settings), "device": AUTO},
            "features": dataset.features.feature_names,
            "score_scale": dataset.problem.scale,
            "factors": dataset.prepared_panel().loadings.shape[1],
            "best_epoch": self.best_epoch,
        }
        with replacing_file(Path(folder) / "model.json") as scratch:
            scratch.write_text(json.dumps(settings, indent=2) + "\n")


EPOCH_METRICS = {"seconds": "epoch_seconds", "train_seconds": "epoch_train_seconds"}
"""Figures of an epoch that are tracked by another name, beside the seconds of the run's stages."""


def _tracking(member: int) -> list[MetricLogger]:
    """A callback that tracks epochs, where a run is being recorded.

    The first network's have the plain names, another's are marked with its number.
    """
    experiment = R.exp_manager.active_experiment
    if experiment is None or experiment.active_recorder is None:
        return []
    recorder = experiment.active_recorder
    prefix = "bpqp." if member == 0 else f"bpqp.network_{member + 1}."

    def log(metrics: dict[str, float], step: int) -> None:
        named = {EPOCH_METRICS.get(k, k): v for k, v in metrics.items()}
        recorder.log_metrics(step=step, **{f"{prefix}{k}": v for k, v in named.items()})

    return [MetricLogger(log)]
