"""What a dataset needs of any Qlib handler: rows to invest in, features, labels, a key."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from qlib.data.dataset.handler import DataHandlerLP

from ..data.features.expressions import reach
from ..data.universe.market import MarketData
from ..errors import ConfigError, DataError
from .processors import fitted_state

Arrays = tuple[pd.MultiIndex, np.ndarray, np.ndarray, np.ndarray]


class HandlerSource(Protocol):
    """Features and labels as a :class:`~.dataset.PortfolioDataset` takes them.

    ``horizon`` are the days of the training label, ``processors`` those of the features with what
    they were fitted to, as JSON.
    """

    horizon: int
    processors: list[dict[str, Any]]

    @property
    def key(self) -> str:
        """A digest of all that determines features and labels."""
        ...

    @property
    def loader(self) -> str:
        """How they are computed: ``market`` where a single day can be, for live weights."""
        ...

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, (F,)."""
        ...

    def get_feature_config(self) -> tuple[list[str], list[str]]:
        """Expressions and names of the features, (F,) each."""
        ...

    def arrays(self) -> Arrays:
        """Index (datetime, instrument), features (R, F), training label (R,) and raw label (R,)."""
        ...


class QlibHandler:
    """A Qlib handler of any class (Alpha158, Alpha360, the user's own) as a source.

    Only rows that can be invested in are kept. The raw label, which is what a decision earns, is
    the return from the close of t+1 to that of t+2 in ``market``, whatever the handler's own label
    is; the training label is its last label column, NaN where it spans an excluded move.

    Parameters
    ----------
    handler : with the column groups ``feature`` and ``label``.
    horizon : days h of its label, which ends at the close of t+1+h; None where its expression says.

    Raises
    ------
    ConfigError
        No such column groups, or a label whose horizon is neither given nor known.
    DataError
        No row of the universe, or a training label that is constant.
    """

    loader = "handler"

    def __init__(self, handler: DataHandlerLP, market: MarketData, horizon: int | None) -> None:
        self._handler, self._market = handler, market
        self.horizon = _label_horizon(handler) if horizon is None else horizon
        self.processors = fitted_state(
            [*(handler.shared_processors or []), *handler.infer_processors]
        )

    @cached_property
    def _arrays(self) -> Arrays:
        features = _group(self._handler, "feature", DataHandlerLP.DK_I)
        learn = _group(self._handler, "label", DataHandlerLP.DK_L).iloc[:, -1]
        keep = investable_rows(self._market, features.index)[2]
        features = features[keep].sort_index()
        if not len(features):
            raise DataError(
                f"{self.title} has no row that can be invested in: check the universe and dates."
            )
        day, name, _ = investable_rows(self._market, features.index)
        label = learn.reindex(features.index).to_numpy(np.float64, copy=True)
        label[label_is_excluded(self._market, day, name, self.horizon)] = np.nan
        if np.isfinite(label).sum() == 0 or np.nanmin(label) == np.nanmax(label):
            raise DataError(
                f"the training label of {self.title} is constant or missing on all rows: check its "
                "label and its learn_processors."
            )
        later = day + 2
        raw = np.full(len(day), np.nan)
        inside = later < len(self._market.dates)
        raw[inside] = self._market.returns[later[inside], name[inside]]
        return features.index, features.to_numpy(np.float32), label, raw

    @property
    def title(self) -> str:
        """The name of the handler's class."""
        return type(self._handler).__name__

    @cached_property
    def key(self) -> str:
        """A digest of features and labels themselves."""
        index, *arrays = self._arrays
        found = hashlib.sha256("\n".join(self.feature_names).encode())
        found.update(index.get_level_values("datetime").to_numpy("datetime64[D]").tobytes())
        found.update("\n".join(index.get_level_values("instrument")).encode())
        for array in arrays:
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the features, (F,)."""
        return [str(column) for column in _group(self._handler, "feature", DataHandlerLP.DK_I)]

    def get_feature_config(self) -> tuple[list[str], list[str]]:
        """Names of the features in place of their expressions, and the names, (F,) each."""
        return self.feature_names, self.feature_names

    def arrays(self) -> Arrays:
        """Index (datetime, instrument), features (R, F), training label (R,) and raw label (R,)."""
        return self._arrays


def build_handler(cls: type, given: Mapping[str, Any], filled: Mapping[str, Any]) -> Any:
    """The handler of a class with settings ``given``, and those ``filled`` in that it takes.

    Raises
    ------
    ConfigError
        A setting that the class does not know or that it lacks, or a class of no ``DataHandlerLP``.
    """
    if not issubclass(cls, DataHandlerLP):
        raise ConfigError(f"dataset.handler: {cls.__name__} is no DataHandlerLP of Qlib.")
    taken = _taken(cls)
    settings = {**given, **{k: v for k, v in filled.items() if k in taken}}
    try:
        inspect.signature(cls).bind(**settings)
    except TypeError as error:
        raise ConfigError(f"dataset.handler: {cls.__name__}: {error}.") from error
    try:
        return cls(**settings)
    except TypeError as error:
        # A class that hands on what it does not know is refused by its base.
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"dataset.handler: {cls.__name__}: {error}.") from error


def investable_rows(
    market: MarketData, index: pd.Index
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Day and name (R,) of each row in ``market``, -1 if absent, and whether to keep it, (R,)."""
    day = market.dates.get_indexer(index.get_level_values("datetime"))
    name = market.names.get_indexer(index.get_level_values("instrument"))
    return day, name, (day >= 0) & (name >= 0) & market.investable[day, name]


def label_is_excluded(
    market: MarketData, day: np.ndarray, name: np.ndarray, horizon: int
) -> np.ndarray:
    """Does a label of ``horizon`` days, of the moves t+2 to t+1+h, span an excluded one? (R,)"""
    out = np.zeros(len(day), dtype=bool)
    for step in range(2, horizon + 2):
        later = np.minimum(day + step, len(market.dates) - 1)
        out |= market.excluded[later, name]
    return out


def _taken(cls: type) -> set[str]:
    """Names of the settings that the constructor takes, its bases' where it passes on the rest."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def _group(handler: DataHandlerLP, group: str, key: str) -> pd.DataFrame:
    name = type(handler).__name__
    table = handler.fetch(col_set=DataHandlerLP.CS_RAW, data_key=key)
    # Qlib gives all columns, the label among them, where there are no groups.
    if table.columns.nlevels < 2 or group not in table.columns.get_level_values(0):
        raise ConfigError(
            f"dataset.handler: {name} has no column group {group!r}; its data loader needs "
            "`feature` and `label`, as Qlib's models do."
        )
    if set(table.index.names) != {"datetime", "instrument"}:
        raise ConfigError(
            f"dataset.handler: the rows of {name} are indexed by {list(table.index.names)}, not by "
            "datetime and instrument."
        )
    return table[group]


def _label_horizon(handler: DataHandlerLP) -> int:
    """Days h of the last label's expression, which ends at the close of t+1+h."""
    fields = getattr(handler.data_loader, "fields", None)
    label = fields.get("label") if isinstance(fields, Mapping) else None
    unknown = (
        f"dataset.label_horizon: cannot tell how many days ahead the label of "
        f"{type(handler).__name__} looks; say it, 1 for Ref($close, -2)/Ref($close, -1) - 1."
    )
    if label is None:
        raise ConfigError(unknown)
    try:
        ahead = reach([label[0][-1]])[1]
    except ConfigError as error:
        raise ConfigError(f"{unknown} ({error})") from error
    return max(ahead - 1, 1)
