"""Decision losses and prediction losses, one value for each day."""

from .objectives import OBJECTIVES, LossTerms, build_objective, decision_loss
from .prediction import huber_error, information_coefficient, mean_squared_error

__all__ = [
    "OBJECTIVES",
    "LossTerms",
    "build_objective",
    "decision_loss",
    "huber_error",
    "information_coefficient",
    "mean_squared_error",
]
