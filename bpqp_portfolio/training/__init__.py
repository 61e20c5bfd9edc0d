"""The one trainer and its callbacks."""

from .callbacks import Callback, MetricLogger, Progress
from .trainer import FitState, Trainer, TrainerConfig, predict_scores

__all__ = [
    "Callback",
    "FitState",
    "MetricLogger",
    "Progress",
    "Trainer",
    "TrainerConfig",
    "predict_scores",
]
