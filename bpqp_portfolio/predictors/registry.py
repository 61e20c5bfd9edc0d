"""Predictors by name; a new one is a class in a file of its own and one line here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ..config import check_keys, from_mapping, lookup
from ..errors import ConfigError
from .alstm import ALSTM
from .base import Predictor
from .decision import DecisionNetwork, RiskHeadConfig
from .gru import GRU
from .mlp import MLP
from .transformer import Transformer

PREDICTORS: dict[str, type[Predictor]] = {
    "mlp": MLP,
    "gru": GRU,
    "alstm": ALSTM,
    "transformer": Transformer,
}


def build_predictor(name: str, features: int, **options: Any) -> Predictor:
    """The predictor ``name`` for F = ``features``, with options of its constructor.

    Raises
    ------
    ConfigError
        An unknown name or option (the nearest is named), or an option outside its range.
    """
    cls = lookup(PREDICTORS, name, "predictor")
    known = [key for key in inspect.signature(cls).parameters if key != "features"]
    check_keys(options, known, f"predictor {name}")
    try:
        return cls(features, **options)
    except ConfigError as error:
        raise ConfigError(f"predictor {name}: {error}") from error


def build_network(
    predictor: Mapping[str, Any],
    features: int,
    *,
    risk_head: Mapping[str, Any] | None = None,
    learn_kappa: bool = False,
    factors: int = 1,
) -> Predictor:
    """The predictor of a mapping with its ``name`` and options, with the heads that are asked for.

    ``risk_head`` has the fields of :class:`RiskHeadConfig`; ``factors`` is the risk model's k. The
    predictor is the same with and without heads.

    Raises
    ------
    ConfigError
        As :func:`build_predictor`, and for an unknown or bad field of ``risk_head``.
    """
    options = dict(predictor)
    network = build_predictor(options.pop("name"), features, **options)
    if risk_head is None and not learn_kappa:
        return network
    risk = None if risk_head is None else from_mapping(RiskHeadConfig, risk_head, "risk_head")
    return DecisionNetwork(network, risk, factors, learn_kappa)
