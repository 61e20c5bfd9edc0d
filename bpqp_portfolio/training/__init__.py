"""The one trainer and its callbacks."""

from .callbacks import Callback, MetricLogger, Progress
from .device import resolve_device
from .predictor_output import predict, predict_scores
from .threads import torch_threads
from .trainer import FitState, Trainer, TrainerConfig

__all__ = [
    "Callback",
    "FitState",
    "MetricLogger",
    "Progress",
    "Trainer",
    "TrainerConfig",
    "predict",
    "predict_scores",
    "resolve_device",
    "torch_threads",
]
