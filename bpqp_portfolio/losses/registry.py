"""What a network is trained on, by name; a new loss is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config import build, named, title
from ..errors import ConfigError
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


def build_loss(spec: Mapping[str, Any] | str, options: Mapping[str, Any] | None = None) -> Loss:
    """The training loss that ``spec`` names, with ``options`` besides its own.

    ``spec`` is what :func:`~bpqp_portfolio.config.resolve` takes: a name of ``LOSSES``, a mapping
    of a ``name`` and options, or ``class`` and ``module_path`` of a :class:`Loss`.

    Raises
    ------
    ConfigError
        An unknown name or option (the nearest is named), or an option outside its range.

    Examples
    --------
    >>> build_loss({"name": "squared_regret", "beta": 0.1}).beta
    0.1
    """
    loss = build({**named(spec, "loss"), **(options or {})}, LOSSES, "loss")
    if not callable(loss):
        raise ConfigError(f"loss {title(spec)!r}: its objects cannot be called; see losses.Loss.")
    return loss
