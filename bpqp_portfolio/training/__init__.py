"""The one trainer, its callbacks and checkpoints.

Start at ``trainer.py``; ``predictor_output.py`` turns a network's outputs into what the portfolio
problem decides on, ``checkpoint.py`` resumes a run to the same result.
"""

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
