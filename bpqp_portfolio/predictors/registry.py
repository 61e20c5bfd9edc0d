"""Predictors by name; a new one is a class in a file of its own and one line here."""

from __future__ import annotations

import inspect
from typing import Any

from ..config import check_keys, lookup
from ..errors import ConfigError
from .alstm import ALSTM
from .base import Predictor
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
