"""What a network is trained on, by name; a new loss is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config import from_mapping, lookup
from .correlation import InformationCoefficient
from .decision_value import DecisionValue
from .huber import Huber
from .mse import MeanSquaredError
from .net_sharpe import NetSharpe
from .net_utility import NetUtility
from .regret import Regret
from .spo_plus import SPOPlus
from .squared_regret import SquaredRegret
from .terms import Loss, LossTerms, decision_loss

__all__ = ["LOSSES", "Loss", "LossTerms", "build_loss", "decision_loss"]

LOSSES: dict[str, Callable[..., Loss]] = {
    "mse": MeanSquaredError,
    "huber": Huber,
    "ic": InformationCoefficient,
    "squared_regret": SquaredRegret,
    "regret": Regret,
    "decision_value": DecisionValue,
    "spo_plus": SPOPlus,
    "net_utility": NetUtility,
    "net_sharpe": NetSharpe,
}


def build_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """The training loss ``name`` with ``options``; a :class:`ConfigError` names the nearest."""
    return from_mapping(lookup(LOSSES, name, "loss"), options or {}, f"loss {name!r}")  # type: ignore[arg-type]
