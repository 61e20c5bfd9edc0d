"""Risk models by name; a new one is a class in a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Callable

from ..config import lookup
from .base import RiskModel
from .pca import PCA
from .qlib_models import QlibPOET, QlibShrink, QlibStructured
from .shrinkage import OAS, LedoitWolf

RISK_MODELS: dict[str, Callable[[int], RiskModel]] = {
    "pca": PCA,
    "ledoit_wolf": LedoitWolf,
    "oas": OAS,
    "qlib_shrink": QlibShrink,
    "qlib_poet": QlibPOET,
    "qlib_structured": QlibStructured,
}


def build_risk_model(name: str, factors: int) -> RiskModel:
    """The risk model ``name`` with k = ``factors``; ConfigError names the nearest known one."""
    return lookup(RISK_MODELS, name, "risk model")(factors)
