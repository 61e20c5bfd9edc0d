"""What watches a training run: progress on the terminal, metrics to a tracker."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm.auto import tqdm

from ..files.screen import detail


class Callback:
    """Called by the trainer; a method that is not overridden does nothing.

    Epochs and steps count from 1. A continued training reports the epochs it continues from by
    ``on_epoch``, after ``on_start``.
    """

    def on_start(self, epochs: int, done: int) -> None:
        """Training begins: at most ``epochs``, of which ``done`` come from a checkpoint."""

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """A step of an epoch of ``steps`` is done, with the batch's mean ``loss``."""

    def on_epoch(self, epoch: int, record: dict[str, float]) -> None:
        """An epoch is done: its figures, as in :attr:`~.trainer.FitState.history`."""

    def on_end(self, best_epoch: int) -> None:
        """Training is done, and the network of ``best_epoch`` kept."""


class Progress(Callback):
    """A progress bar within the epoch (on a terminal), and in the log a line for each epoch."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._epochs = 0
        self._epoch = 0

    def on_start(self, epochs: int, done: int) -> None:
        self._epochs, self._epoch = epochs, done

    def on_step(self, step: int, steps: int, loss: float) -> None:
        if step == 1:
            self._epoch += 1
            self._bar = tqdm(
                total=steps,
                desc=f"epoch {self._epoch}/{self._epochs}",
                leave=False,
                disable=not sys.stderr.isatty(),
            )
        assert self._bar is not None
        self._bar.update()
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

    def on_epoch(self, epoch: int, record: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.close()
        parts = [f"epoch {epoch}/{self._epochs}", f"train loss {record['train_loss']:.4f}"]
        for name in ("prediction", "decision"):
            if f"train_{name}" in record:
                parts.append(f"{name} {record[f'train_{name}']:.4f}")
        parts.append(
            f"| valid prediction {record['valid_prediction']:.4f} "
            f"decision {record['valid_decision']:.4f} IC {record['valid_ic']:+.4f}"
        )
        detail("  ".join([*parts, f"{record['seconds']:.1f} s"]))

    def on_end(self, best_epoch: int) -> None:
        detail(f"best epoch: {best_epoch}")


class MetricLogger(Callback):
    """Send every epoch's record to ``log(metrics, step)``."""

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        self._log = log

    def on_epoch(self, epoch: int, record: dict[str, float]) -> None:
        self._log({k: v for k, v in record.items() if k != "epoch"}, epoch)

    def on_end(self, best_epoch: int) -> None:
        self._log({"best_epoch": float(best_epoch)}, best_epoch)
