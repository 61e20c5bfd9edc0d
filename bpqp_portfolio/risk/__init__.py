"""Factor-model covariances, point in time: Σ = B Bᵀ + diag(d) for every day of a universe.

``base.py`` has the protocol of a risk model, ``rolling.py`` fits one for every day from the days
before it; a model is a file of its own and a line in ``registry.py``.
"""

from .base import RiskModel
from .config import RiskConfig
from .registry import RISK_MODELS, build_risk_model
from .returns import daily_returns
from .rolling import RiskPanel, rolling_risk

__all__ = [
    "RISK_MODELS",
    "RiskConfig",
    "RiskModel",
    "RiskPanel",
    "build_risk_model",
    "daily_returns",
    "rolling_risk",
]
