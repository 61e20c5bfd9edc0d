"""Checks of LightGBM's parameters, which it would drop or refuse only when it trains."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from qlib.contrib.model.gbdt import LGBModel

from ..config import check_number, nearest
from ..errors import ConfigError

LOSSES = ("mse", "binary")
"""Those that Qlib's model takes."""


def check_lightgbm(settings: Mapping[str, Any], where: str) -> None:
    """Check the settings of Qlib's ``LGBModel``: names by LightGBM's own list, values by a trial.

    LightGBM ignores a name that it does not know, and Qlib silences its warning. The values are
    tried by one tree on twenty rows.

    Raises
    ------
    ConfigError
        An unknown parameter, the nearest is named; a loss that Qlib does not take; or a value that
        LightGBM refuses, with its reason.

    Examples
    --------
    >>> check_lightgbm({"loss": "mse", "num_leafs": 210}, "task.model")
    Traceback (most recent call last):
    bpqp_portfolio.errors.ConfigError: task.model: unknown LightGBM parameter 'num_leafs'. ...
    """
    from lightgbm import Dataset, train
    from lightgbm.basic import LightGBMError, _ConfigAliases

    own = [name for name in inspect.signature(LGBModel).parameters if name != "kwargs"]
    aliases = _ConfigAliases._get_all_param_aliases()
    known = {*own, *aliases, *(name for names in aliases.values() for name in names)}
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"{where}: unknown LightGBM parameter {name!r}.{nearest(name, known)}"
            )
    if settings.get("loss", "mse") not in LOSSES:
        raise ConfigError(f"{where}: LGBModel.loss: {settings['loss']!r} is not mse or binary.")
    for name in ("num_boost_round", "early_stopping_rounds"):
        if name in settings:
            check_number(settings[name], f"{where}: LGBModel.{name}", low=1, integer=True)
    rest = {name: value for name, value in settings.items() if name not in own}
    rows = np.arange(20.0)
    try:
        train({**rest, "verbosity": -1}, Dataset(rows[:, None], rows % 2), num_boost_round=1)
    except (LightGBMError, TypeError, ValueError) as error:
        reason = re.sub(r" at \S+, line \d+ ?\.?$", "", str(error).strip())
        raise ConfigError(f"{where}: LightGBM refuses these parameters: {reason}.") from error
