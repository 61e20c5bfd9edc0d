"""Risk models by name; a new one is a class in a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config import build, resolve, title
from ..errors import ConfigError
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


def build_risk_model(spec: Mapping[str, Any] | str, factors: int) -> RiskModel:
    """The risk model that ``spec`` names, with k = ``factors``.

    ``spec`` is what :func:`~bpqp_portfolio.config.resolve` takes: a name of ``RISK_MODELS``, a
    mapping of a ``name`` and options, or ``class`` and ``module_path`` of a :class:`RiskModel`.

    Raises
    ------
    ConfigError
        An unknown name or option (the nearest is named), or a class without ``estimate``.
    """
    cls, _ = resolve(spec, RISK_MODELS, "risk model")
    if not callable(getattr(cls, "estimate", None)):
        raise ConfigError(f"risk model {title(spec)!r}: has no `estimate`; see risk.RiskModel.")
    return build(spec, RISK_MODELS, "risk model", factors)
