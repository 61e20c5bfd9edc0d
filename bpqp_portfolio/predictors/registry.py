"""Predictors by name; a new one is a class in a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import build, from_mapping, named, resolve, title
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


def build_predictor(spec: Mapping[str, Any] | str, features: int, **options: Any) -> Predictor:
    """The predictor that ``spec`` names for F = ``features``, with options of its constructor.

    ``spec`` is what :func:`~bpqp_portfolio.config.resolve` takes: a name of ``PREDICTORS``, a
    mapping of a ``name`` and options, or ``class`` and ``module_path`` of a :class:`Predictor`.

    Raises
    ------
    ConfigError
        An unknown name or option (the nearest is named), an option outside its range, or a class
        that is no :class:`Predictor`.

    Examples
    --------
    >>> build_predictor({"name": "mlp", "hidden": [8]}, features=4).window
    1
    """
    spec = {**named(spec, "predictor"), **options}
    cls, _ = resolve(spec, PREDICTORS, "predictor")
    if not (isinstance(cls, type) and issubclass(cls, Predictor)):
        raise ConfigError(
            f"predictor {title(spec)!r}: is no subclass of bpqp_portfolio.predictors.Predictor."
        )
    return build(spec, PREDICTORS, "predictor", features)


def build_network(
    predictor: Mapping[str, Any],
    features: int,
    *,
    risk_head: Mapping[str, Any] | None = None,
    learn_kappa: bool = False,
    factors: int = 1,
) -> Predictor:
    """The predictor that a mapping names (see :func:`build_predictor`), with the heads asked for.

    ``risk_head`` has the fields of :class:`RiskHeadConfig`; ``factors`` is the risk model's k. The
    predictor is the same with and without heads.

    Raises
    ------
    ConfigError
        As :func:`build_predictor`, and for an unknown or bad field of ``risk_head``.
    """
    network = build_predictor(predictor, features)
    if risk_head is None and not learn_kappa:
        return network
    risk = None if risk_head is None else from_mapping(RiskHeadConfig, risk_head, "risk_head")
    return DecisionNetwork(network, risk, factors, learn_kappa)
