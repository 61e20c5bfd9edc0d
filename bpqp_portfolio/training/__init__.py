"""The one trainer and its callbacks."""

from .callbacks import Callback, MetricLogger, Progress
from .device import resolve_device
from .threads import torch_threads
from .trainer import FitState, Trainer, TrainerConfig, predict_scores

__all__ = [
    "Callback",
    "FitState",
    "MetricLogger",
    "Progress",
    "Trainer",
    "TrainerConfig",
    "predict_scores",
    "resolve_device",
    "torch_threads",
]
