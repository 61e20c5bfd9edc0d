"""Decision losses and prediction losses, one value for each day."""

from .prediction import huber_error, information_coefficient, mean_squared_error
from .registry import LOSSES, LossTerms, build_loss, decision_loss

__all__ = [
    "LOSSES",
    "LossTerms",
    "build_loss",
    "decision_loss",
    "huber_error",
    "information_coefficient",
    "mean_squared_error",
]
