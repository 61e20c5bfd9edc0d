"""Decision losses and prediction losses, one value for each day.

Start at ``terms.py``, what a loss takes and returns; ``account.py`` has what losses with trading
costs share; a loss is a file of its own and a line in ``registry.py``.
"""

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
