"""The one trainer: a network, a loss and the days to learn from; early stop, checkpoint, resume."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import check_number, lookup
from ..data.features.panel import DailyPanel, DayBatch
from ..errors import ConfigError, DataError
from ..losses import decision_loss, information_coefficient
from ..losses.registry import Loss
from ..portfolio.problem import PortfolioProblem
from .callbacks import Callback
from .checkpoint import load_checkpoint, save_checkpoint
from .device import placed, resolve_device
from .predictor_output import decision_inputs, network_output

logger = logging.getLogger(__name__)

# Validation metrics that can stop the training, and whether larger is better.
MONITORS = {
    "valid_ic": True,
    "valid_loss": False,
    "valid_prediction": False,
    "valid_decision": False,
}


DIVERGED = "lower the learning rate or set gradient_clip."


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of a training run.

    Parameters
    ----------
    epochs : [epochs] largest number of epochs.
    patience : [epochs] the training stops after so many without a better ``monitor``.
    batch_days : [days] consecutive days of a step; for a loss over blocks of days the length of a
        block, such as 40.
    learning_rate : [no unit] Adam's step.
    weight_decay : [no unit] Adam's L2 penalty of the weights.
    gradient_clip : [no unit] largest norm of a step's gradient; null for no limit.
    monitor : figure of the valid days by which the epoch is chosen, of :data:`MONITORS`; the
        largest IC, or the smallest of the others.
    seed : [no unit] seed of weights, order and dropout; the same seed gives the same network.

    Raises
    ------
    ConfigError
        A setting outside its range.

    >>> TrainerConfig(epochs=3).patience
    5
    >>> TrainerConfig(epochs=0)
    Traceback (most recent call last):
    bpqp_portfolio.errors.ConfigError: epochs: must be >= 1, got 0.
    """

    epochs: int = 30
    patience: int = 5
    batch_days: int = 5
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    gradient_clip: float | None = None
    monitor: str = "valid_ic"
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.epochs, "epochs", low=1, integer=True)
        check_number(self.patience, "patience", low=1, integer=True)
        check_number(self.batch_days, "batch_days", low=1, integer=True)
        check_number(self.learning_rate, "learning_rate", low=0, open_low=True)
        check_number(self.weight_decay, "weight_decay", low=0)
        if self.gradient_clip is not None:
            check_number(self.gradient_clip, "gradient_clip", low=0, open_low=True)
        check_number(self.seed, "seed", low=0, integer=True)
        lookup(MONITORS, self.monitor, "monitor")
        for name in ("epochs", "patience", "batch_days", "seed"):
            object.__setattr__(self, name, int(getattr(self, name)))


@dataclass
class FitState:
    """Everything that a resumed training needs, and what callbacks see after each epoch.

    ``history`` has a dictionary for each finished epoch; ``best_epoch`` counts from 1.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_value: float = float("nan")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def _epoch_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63


def _span(panel: DailyPanel, days: Tensor) -> str:
    return f"{panel.dates[int(days[0])]} to {panel.dates[int(days[-1])]}"


def _day_blocks(
    days: Tensor, size: int, generator: torch.Generator, least: int = 1
) -> list[Tensor]:
    """Blocks of ``size`` consecutive days, cut from a random offset, in random order.

    A first or last block shorter than ``least`` joins its neighbour.
    """
    offset = int(torch.randint(min(size, len(days)), (), generator=generator))
    blocks = _joined([b for b in (days[:offset], *days[offset:].split(size)) if len(b)], least)
    return [blocks[i] for i in torch.randperm(len(blocks), generator=generator).tolist()]


def _joined(blocks: Sequence[Tensor], least: int) -> list[Tensor]:
    """``blocks`` in order, those shorter than ``least`` joined to the next, the last to the one
    before."""
    out: list[Tensor] = []
    for block in blocks:
        if out and (len(out[-1]) < least or len(block) < least):
            out[-1] = torch.cat([out[-1], block])
        else:
            out.append(block)
    return out


class Trainer:
    """Train ``network`` on daily cross-sections.

    Parameters
    ----------
    network : module of the predictors' signature, (R, L, F) → (R,); a
        :class:`~bpqp_portfolio.predictors.DecisionNetwork` decides with its own risk and κ as well.
    objective : training loss (see :mod:`bpqp_portfolio.losses`).
    problem : turns scores into weights and regret.
    config : :class:`TrainerConfig`.
    callbacks : see :class:`Callback`.
    checkpoint : file to continue from and to write after every epoch; None keeps nothing.
    checkpoint_key : what determines the run; a checkpoint of another key is not continued.
    device : where network, batches and solver work, as a name of :func:`resolve_device`; the
        network stays there. A checkpoint of one device continues on another.

    Raises
    ------
    ConfigError
        ``batch_days`` below the ``least_days`` of a loss over blocks of consecutive days.

    Notes
    -----
    Every epoch seeds its own order and dropout, so an interrupted run that continues from its
    checkpoint ends with the weights of an uninterrupted one, and a seed gives the same twice.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Loss,
        problem: PortfolioProblem,
        config: TrainerConfig,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
        checkpoint_key: str = "",
        device: str = "cpu",
    ) -> None:
        self.network, self.objective, self.problem = network, objective, problem
        self._least_days = int(getattr(objective, "least_days", 1))
        if config.batch_days < self._least_days:
            raise ConfigError(
                f"trainer.batch_days: {config.batch_days} is too few for a loss over blocks of "
                "consecutive days; set it to the length of a block, such as 40."
            )
        self.config, self.callbacks = config, list(callbacks)
        self.checkpoint, self.checkpoint_key = checkpoint, checkpoint_key
        self.device = resolve_device(device)

    def fit(self, panel: DailyPanel, train: Tensor, valid: Tensor) -> FitState:
        """Train on the days ``train``, choose the epoch on ``valid``, load its weights.

        ``train``, ``valid`` : positions of days in ``panel``.

        Raises
        ------
        DataError
            No day to train or to validate on; scores or a loss that are not finite.
        """
        for name, days in (("train", train), ("valid", valid)):
            if not len(days):
                raise DataError(f"the {name} segment has no day with a portfolio problem.")
        panel = placed(panel, self.device)
        self.network.to(self.device)
        optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        state = self._resume(optimiser)
        for callback in self.callbacks:
            callback.on_start(self.config.epochs, state.epoch)
            for record in state.history:
                callback.on_epoch(int(record["epoch"]), record)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            while state.epoch < self.config.epochs and not self._exhausted(state):
                self._epoch(panel, train, valid, optimiser, state)
                if self.checkpoint is not None:
                    save_checkpoint(
                        self.checkpoint,
                        self.checkpoint_key,
                        network=self.network.state_dict(),
                        optimiser=optimiser.state_dict(),
                        state=asdict(state),
                    )
                for callback in self.callbacks:
                    callback.on_epoch(state.epoch, state.history[-1])
        for callback in self.callbacks:
            callback.on_end(state.best_epoch)
        self.network.load_state_dict(state.best_weights)
        self.network.eval()
        return state

    def _resume(self, optimiser: torch.optim.Optimizer) -> FitState:
        resumed: dict[str, Any] | None = None
        if self.checkpoint is not None:
            resumed = load_checkpoint(self.checkpoint, self.checkpoint_key)
        if resumed is None:
            return FitState()
        self.network.load_state_dict(resumed["network"])
        optimiser.load_state_dict(resumed["optimiser"])
        state = FitState(**resumed["state"])
        logger.info("continuing after epoch %d from %s", state.epoch, self.checkpoint)
        return state

    def _exhausted(self, state: FitState) -> bool:
        return bool(state.epoch) and state.epoch - state.best_epoch >= self.config.patience

    def _epoch(
        self,
        panel: DailyPanel,
        train: Tensor,
        valid: Tensor,
        optimiser: torch.optim.Optimizer,
        state: FitState,
    ) -> None:
        started = time.perf_counter()
        seed = _epoch_seed(self.config.seed, state.epoch)
        torch.manual_seed(seed)
        size = self.config.batch_days
        # Half a block still shows mean and spread; what is cut off by chance may not.
        least = 1 if self._least_days == 1 else max(self._least_days, size // 2)
        blocks = _day_blocks(train, size, torch.Generator().manual_seed(seed), least)
        # One step for each block of days.
        self.network.train()
        sums = dict.fromkeys(("loss", "prediction", "decision"), 0.0)
        undecided: list[tuple[Tensor, Tensor]] = []
        for step, days in enumerate(blocks):
            batch = panel.batch(days).to(self.device)
            scores, batch, problem = self._forward(panel, batch, f"epoch {state.epoch + 1}")
            terms = self.objective(scores, batch, problem)
            loss = terms.total.mean()
            if not bool(torch.isfinite(loss)):
                raise DataError(
                    f"the training loss is {loss.item()} in epoch {state.epoch + 1}, on the days "
                    f"{_span(panel, days)}; {DIVERGED}"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if self.config.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
            optimiser.step()
            if terms.decision is None:
                undecided.append((days, scores.detach()[batch.mask]))
            for name, term in zip(sums, terms, strict=True):
                sums[name] += 0.0 if term is None else float(term.detach().sum())
            for callback in self.callbacks:
                callback.on_step(step + 1, len(blocks), float(loss.detach()))
        # The figures of the epoch, on train and valid.
        sums["decision"] += self._decide(panel, undecided)
        record = {"epoch": float(state.epoch + 1)}
        record |= {f"train_{name}": value / len(train) for name, value in sums.items()}
        train_seconds = time.perf_counter() - started
        record |= self.validate(panel, valid)
        log_kappa = getattr(self.network, "log_kappa", None)
        if log_kappa is not None:
            record["kappa"] = float(self.problem.with_signal_scale(log_kappa.detach()).unit)
        record |= {"train_seconds": train_seconds, "seconds": time.perf_counter() - started}
        # The best epoch so far keeps its weights.
        state.epoch += 1
        state.history.append(record)
        value, larger = record[self.config.monitor], MONITORS[self.config.monitor]
        better = value > state.best_value if larger else value < state.best_value
        first = state.best_epoch == 0 or (math.isnan(state.best_value) and not math.isnan(value))
        if first or better:
            state.best_epoch, state.best_value = state.epoch, value
            state.best_weights = copy.deepcopy(self.network.state_dict())

    def _forward(
        self, panel: DailyPanel, batch: DayBatch, stage: str
    ) -> tuple[Tensor, DayBatch, PortfolioProblem]:
        """Scores (T, n), batch and problem to decide on; ``stage`` names the pass in errors.

        Raises DataError where an output is not finite: the problem would only see NaN.
        """
        output = network_output(self.network, batch)
        if not all(bool(torch.isfinite(part).all()) for part in output if part is not None):
            finite = bool(torch.isfinite(batch.features).all())
            raise DataError(
                f"the network's scores are not finite in {stage}, on the days "
                f"{_span(panel, batch.days)}; "
                + (
                    DIVERGED
                    if finite
                    else "its features are not: let the handler's processors fill them (Fillna)."
                )
            )
        return decision_inputs(output, batch, self.problem)

    @torch.no_grad()
    def _decide(self, panel: DailyPanel, parts: list[tuple[Tensor, Tensor]]) -> float:
        """Sum of the regrets of days that a two-stage loss left undecided, in large batches.

        Such a loss leaves risk and κ of the network as they start, which changes no decision.
        """
        total = 0.0
        for i in range(0, len(parts), 32):
            days, scores = zip(*parts[i : i + 32], strict=True)
            batch = panel.batch(torch.cat(days), features=False).to(self.device)
            total += float(decision_loss(batch.pad(torch.cat(scores)), batch, self.problem).sum())
        return total

    @torch.no_grad()
    def validate(self, panel: DailyPanel, days: Tensor, rows: int = 40_000) -> dict[str, float]:
        """Means over ``days`` of loss, prediction loss, regret and IC, as ``valid_*``."""
        self.network.eval()
        values: dict[str, list[Tensor]] = {"loss": [], "prediction": [], "decision": [], "ic": []}
        for part in _joined(panel.chunks(days, rows), self._least_days):
            batch = panel.batch(part).to(self.device)
            scores, batch, problem = self._forward(panel, batch, "validation")
            total, prediction, decision = self.objective(scores, batch, problem)
            if decision is None:
                decision = decision_loss(scores, batch, problem)
            values["loss"].append(total)
            values["prediction"].append(prediction)
            values["decision"].append(decision)
            values["ic"].append(information_coefficient(scores, batch.returns, batch.earned))
        return {f"valid_{name}": float(torch.cat(v).nanmean()) for name, v in values.items()}
