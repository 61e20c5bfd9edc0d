"""Alpha158 features as the paper uses them, with Qlib's processors, cached on disk."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from qlib.config import C
from qlib.contrib.data.handler import Alpha158
from qlib.contrib.data.loader import Alpha158DL
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import DLWParser

from ..config import check_keys, check_number, display, nearest
from ..data.features.expressions import evaluate, fields_of, reach, read_tables
from ..data.provider.provider import Provider
from ..data.universe.market import MarketData
from ..errors import ConfigError, DataError
from ..files.cache import cached, digest
from .column_groups import by_column, process_features
from .handler_source import investable_rows, label_is_excluded
from .preflight import check_component
from .processors import fitted_state

FIELDS = ("open", "high", "low", "close", "volume")
# The paper leaves these out; VWAP0 is all NaN in most public data.
EXCLUDED_FEATURES = ("VWAP0", "KUP", "KUP2", "HIGH0", "IMIN5")
INFER_PROCESSORS: tuple[dict[str, Any], ...] = (
    {"class": "RobustZScoreNorm", "kwargs": {"fields_group": "feature", "clip_outlier": True}},
    {
        "class": "CrossSectionalFill",
        "module_path": "bpqp_portfolio.qlib_ext.processors",
        "kwargs": {"fields_group": "feature"},
    },
    {"class": "Fillna", "kwargs": {"fields_group": "feature"}},
)
LEARN_PROCESSORS: tuple[dict[str, Any], ...] = (
    {"class": "DropnaLabel"},
    {"class": "CSZScoreNorm", "kwargs": {"fields_group": "label"}},
)
VERSION = 1  # of what is kept in the cache
# What Qlib's handler takes besides; its label is not among them, since risk, regret and backtest
# all rest on the return from the close of t+1 to that of t+2: only the horizon of the training
# label can be chosen.
OWN = ("fields", "exclude", "include", "horizon", "infer_processors", "learn_processors")
PASSED_ON = (
    "instruments",
    "start_time",
    "end_time",
    "shared_processors",
    "process_type",
    "filter_pipe",
    "inst_processors",
)


def feature_config(
    fields: Sequence[str], exclude: Sequence[str], include: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Expressions and names of the Alpha158 features that use only ``fields``.

    Of those, the ones that ``include`` names (None: all), less those that ``exclude`` names.

    Raises
    ------
    ConfigError
        An unknown field or feature, or no feature is left.
    """
    config = {
        "kbar": {},
        "price": {"windows": [0], "feature": ["OPEN", "HIGH", "LOW", "VWAP"]},
        "rolling": {},
    }
    expressions, names = Alpha158DL.get_feature_config(config)
    for field in fields:
        if field not in (*FIELDS, "vwap"):
            raise ConfigError(f"fields: unknown field {field!r}.{nearest(field, FIELDS)}")
    for key, given in (("exclude", exclude), ("include", include or ())):
        for name in given:
            if name not in names:
                raise ConfigError(f"{key}: no Alpha158 feature {name!r}.{nearest(name, names)}")
    possible = [
        (expression, name)
        for expression, name in zip(expressions, names, strict=True)
        if set(re.findall(r"\$(\w+)", expression)) <= set(fields)
    ]
    for name in include or ():
        if name not in [n for _, n in possible]:
            raise ConfigError(f"include: {name} needs more price fields than {', '.join(fields)}.")
        if name in exclude:
            raise ConfigError(f"include: {name} is in exclude as well.")
    kept = [
        (expression, name)
        for expression, name in possible
        if name not in exclude and (include is None or name in include)
    ]
    if not kept and include is not None:
        raise ConfigError("include: names no feature; leave it out for all of them.")
    if not kept:
        raise ConfigError(f"fields: no Alpha158 feature uses only {', '.join(fields)}.")
    return [e for e, _ in kept], [n for _, n in kept]


def _check_list(value: Any, where: str) -> None:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {display(value)}.")


class MarketLoader(DLWParser):
    """Features of the names that can be invested in, each from its look-back alone.

    Qlib's own loader computes one name after the other and takes a minute for a single day of 300
    names; its rolling sums also depend on the first day that is loaded.
    """

    def __init__(self, config: Mapping[str, Any], market: MarketData) -> None:
        super().__init__(dict(config))
        self._market = market

    def load_group_df(
        self,
        instruments: Any,
        exprs: list[str],
        names: list[str],
        start_time: Any = None,
        end_time: Any = None,
        gp_name: str | None = None,
    ) -> pd.DataFrame:
        """Values by (datetime, instrument), float32."""
        index, values = self.arrays(exprs, start_time, end_time)
        return pd.DataFrame(values, index=index, columns=names)

    def arrays(
        self, exprs: list[str], start_time: Any = None, end_time: Any = None
    ) -> tuple[pd.MultiIndex, np.ndarray]:
        """Index (datetime, instrument) of R rows and the values (R, E) of the expressions."""
        market, (back, ahead) = self._market, reach(exprs)
        days = market.dates.slice_indexer(start_time, end_time)
        read = slice(max(days.start - back, 0), min(days.stop + ahead, len(market.dates)))
        keep = np.zeros((read.stop - read.start, len(market.names)), dtype=bool)
        inside = slice(days.start - read.start, days.stop - read.start)
        keep[inside] = market.investable[days]
        provider = Provider(Path(C.dpm.get_data_uri("day")))
        tables = read_tables(provider, list(market.names), fields_of(exprs), read)
        day, name = np.nonzero(keep)
        index = pd.MultiIndex.from_arrays(
            [market.dates[day + read.start], market.names[name]], names=["datetime", "instrument"]
        )
        return index, evaluate(exprs, tables, keep)


class CachedAlpha158(Alpha158):
    """Alpha158 for the names that can be invested in, with labels of valid moves only.

    Parameters
    ----------
    fields : price fields the provider has; features that need others are left out.
    exclude : names of features to leave out.
    include : names of the features to use, None for all.
    horizon : [days] length h of the training label, the return from the close of t+1 to that of
        t+1+h. The raw label, which is what a decision earns, stays the return of the first of them.
    market : closes, membership and exclusions. A row of a name without a close that day, or
        with an excluded one, is dropped; a label that spans an excluded move is NaN.
    cache_key : what determines the data besides the settings of this handler; an intact cache
        entry under it replaces the computation.
    infer_processors : processors of the features, each ``class``, ``module_path`` and ``kwargs``;
        by default Qlib's robust z-scores, then the day's mean for what is missing. Only those that
        need no more than the day once they are fitted let `bpqp weights` decide.
    learn_processors : processors of the training label; by default days without one are dropped,
        and the rest standardised by day.
    fit_start_time, fit_end_time : first and last day that processors are fitted to.
    instruments, start_time, end_time : universe, first and last day.
    shared_processors : processors of features and label before all others, as Qlib's handler.
    process_type : ``append`` (the label's processors see processed features) or ``independent``, as
        Qlib's handler.
    filter_pipe : filters of names by Qlib; the handler then takes Qlib's own, slower loader.
    inst_processors : processors of single names by Qlib; likewise slower.

    Attributes
    ----------
    processors : the processors of the features with what they were fitted to, as JSON; see
        :func:`~.processors.restored`.

    Raises
    ------
    ConfigError
        An unknown setting, field or feature.
    DataError
        A feature that is NaN on all training rows, or a constant label.
    """

    def __init__(
        self,
        *,
        market: MarketData,
        cache_key: Mapping[str, Any],
        fields: Sequence[str] = FIELDS,
        exclude: Sequence[str] = EXCLUDED_FEATURES,
        include: Sequence[str] | None = None,
        horizon: int = 1,
        infer_processors: Sequence[dict] = INFER_PROCESSORS,
        learn_processors: Sequence[dict] = LEARN_PROCESSORS,
        fit_start_time: str,
        fit_end_time: str,
        **kwargs: Any,
    ) -> None:
        self.check_settings(
            {
                **kwargs,
                "fields": fields,
                "exclude": exclude,
                "include": include,
                "horizon": horizon,
                "infer_processors": infer_processors,
                "learn_processors": learn_processors,
            }
        )
        self.horizon = int(horizon)
        self._feature_config = feature_config(fields, exclude, include)
        # Qlib writes the dates of the fit into the settings that it is given.
        infer_processors = copy.deepcopy(list(infer_processors))
        learn_processors = copy.deepcopy(list(learn_processors))
        self._market = market
        # Qlib's filters and processors of single names need Qlib's loader.
        self._by_market = not (kwargs.get("filter_pipe") or kwargs.get("inst_processors"))
        self._fit_span = (pd.Timestamp(fit_start_time), pd.Timestamp(fit_end_time))
        self._cache_key = {
            "data": dict(cache_key),
            "loader": self.loader,
            "qlib": qlib.__version__,
            "pandas": pd.__version__,
            "numpy": np.__version__,
            "features": self.get_feature_config(),
            "label": self.get_label_config(),
            "version": VERSION,
            "infer": infer_processors,
            "learn": learn_processors,
            "fit": [str(d) for d in self._fit_span],
            "settings": {k: str(v) for k, v in sorted(kwargs.items())},
        }
        super().__init__(
            infer_processors=infer_processors,
            learn_processors=learn_processors,
            fit_start_time=fit_start_time,
            fit_end_time=fit_end_time,
            **kwargs,
        )

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Raise :class:`ConfigError` for an unknown setting or one outside its range."""
        check_keys(settings, (*OWN, *PASSED_ON), "handler")
        check_number(settings.get("horizon", 1), "handler.horizon", low=1, integer=True)
        lists = {"fields": FIELDS, "exclude": EXCLUDED_FEATURES}
        for key, usual in lists.items():
            _check_list(settings.get(key, usual), f"handler.{key}")
        include = settings.get("include")
        if include is not None:
            _check_list(include, "handler.include")
        fields, exclude = (settings.get(key, usual) for key, usual in lists.items())
        feature_config(fields, exclude, include)
        for part in ("infer_processors", "learn_processors"):
            _check_list(settings.get(part) or (), f"handler.{part}")
            for item in settings.get(part) or ():
                check_component(item, f"handler.{part}", "qlib.data.dataset.processor")

    def get_feature_config(self) -> tuple[list[str], list[str]]:
        """Expressions and names of the features."""
        return self._feature_config

    def get_label_config(self) -> tuple[list[str], list[str]]:
        """Expressions and names: the return of one day first, the training label last."""
        spans = [1] if self.horizon == 1 else [1, self.horizon]
        return (
            [f"Ref($close, {-1 - h})/Ref($close, -1) - 1" for h in spans],
            [f"LABEL{i}" for i in range(len(spans))],
        )

    def setup_data(self, *args: Any, **kwargs: Any) -> None:
        """Fill the data from the cache, or by Qlib's computation where there is no intact entry."""

        def build() -> dict[str, np.ndarray]:
            if self._by_market:
                self.data_loader = MarketLoader(
                    {"feature": self.get_feature_config(), "label": self.get_label_config()},
                    self._market,
                )
            if self._by_market and not self.shared_processors and self._is_by_column():
                arrays = self._arrays_by_column()
            else:
                super(CachedAlpha158, self).setup_data(*args, **kwargs)
                arrays = self._arrays()
                del self._data, self._infer, self._learn
            fitted = fitted_state([*(self.shared_processors or []), *self.infer_processors])
            # As bytes, which the cache can keep.
            packed = np.frombuffer(json.dumps(fitted).encode(), dtype=np.uint8)
            return {**arrays, "fitted": packed}

        arrays = cached("features", self._cache_key, build)
        self._index = pd.MultiIndex.from_arrays(
            [pd.DatetimeIndex(arrays["date"]), pd.Index(arrays["instrument"].astype(str))],
            names=["datetime", "instrument"],
        )
        self._features, self._label = arrays["features"], arrays["label"]
        self._learn_label = arrays["learn_label"]
        self.processors: list[dict[str, Any]] = json.loads(arrays["fitted"].tobytes())
        # Read back, fresh or not, so that both ways give the same numbers.
        self._infer = self._frame(self._features, self._label)
        self._data = self._infer[["label"]]
        self._learn = None

    def _is_by_column(self) -> bool:
        appended = self.process_type == DataHandlerLP.PTYPE_A
        return appended and by_column(self.infer_processors, self.learn_processors)

    def _arrays_by_column(self) -> dict[str, np.ndarray]:
        """What :meth:`_arrays` gives, with the features in memory once, in place."""

        loader, span = self.data_loader, (self.start_time, self.end_time)
        assert isinstance(loader, MarketLoader)
        index, values = loader.arrays(self.get_feature_config()[0], *span)
        expressions, names = self.get_label_config()
        columns = pd.MultiIndex.from_product([["label"], names])
        label = pd.DataFrame(loader.arrays(expressions, *span)[1], index=index, columns=columns)
        label = self._valid(label)
        if not index.is_monotonic_increasing or len(label) != len(index):
            label = label.sort_index()
            values = values[index.get_indexer(label.index)]
            index = label.index
        self._check_train_label(label)
        self._check_empty(values, index)
        process_features(values, index, self.feature_names, self.infer_processors)
        learn = label
        for item in self.learn_processors:
            item.fit(learn)
            learn = item(learn.copy())
        return {**self._label_arrays(label["label"], learn["label"]), "features": values}

    def fit_process_data(self) -> None:
        """Drop what cannot be invested in and labels that are invalid, then process."""
        self._data = self._valid(self._data)
        self._check_train_label(self._data)
        self._check_empty(self._data["feature"].to_numpy(), self._data.index)
        super().fit_process_data()

    def _valid(self, data: pd.DataFrame) -> pd.DataFrame:
        day, name, keep = investable_rows(self._market, data.index)
        data, day, name = data[keep].copy(), day[keep], name[keep]
        for column, ahead in zip(data["label"].columns, (1, self.horizon), strict=False):
            excluded = label_is_excluded(self._market, day, name, ahead)
            data.loc[excluded, ("label", column)] = np.nan
        return data

    def _train_rows(self, index: pd.Index) -> np.ndarray:
        dates = index.get_level_values("datetime")
        return np.asarray((dates >= self._fit_span[0]) & (dates <= self._fit_span[1]))

    def _check_train_label(self, data: pd.DataFrame) -> None:
        train = data["label"].iloc[self._train_rows(data.index), 0]
        if train.empty:
            raise DataError(
                f"no row of the universe between {self._fit_span[0]:%Y-%m-%d} and "
                f"{self._fit_span[1]:%Y-%m-%d}: check the universe and the train segment."
            )
        if train.nunique() <= 1:
            raise DataError(
                "the label is constant on the training rows: prices do not move, or the label's "
                "expression is wrong. Run `bpqp data check` on the provider."
            )

    def _check_empty(self, features: np.ndarray, index: pd.Index) -> None:
        train, names = self._train_rows(index), self.feature_names
        empty = [name for i, name in enumerate(names) if np.isnan(features[train, i]).all()]
        if empty:
            raise DataError(
                f"features {', '.join(empty[:8])} ({len(empty)} in all) are NaN on every training "
                "row: remove their price field from the handler's `fields`, or name them in "
                "`exclude`."
            )

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self._learn is not None
        infer = self._infer.sort_index()
        return {
            **self._label_arrays(infer["label"], self._learn["label"]),
            "features": infer["feature"].to_numpy(np.float32),
        }

    @staticmethod
    def _label_arrays(label: pd.DataFrame, learn: pd.DataFrame) -> dict[str, np.ndarray]:
        """Rows in order, their raw label and their training label, NaN where it was dropped."""
        return {
            "date": label.index.get_level_values("datetime").to_numpy("datetime64[D]"),
            "instrument": label.index.get_level_values("instrument").to_numpy(str).astype("S"),
            "label": label.iloc[:, 0].to_numpy(np.float64),
            "learn_label": learn.iloc[:, -1].reindex(label.index).to_numpy(np.float64),
        }

    def _frame(self, features: np.ndarray, label: np.ndarray) -> pd.DataFrame:
        names = self.get_feature_config()[1]
        columns = pd.MultiIndex.from_product([["feature"], names])
        table = pd.DataFrame(features, index=self._index, columns=columns, copy=False)
        table[("label", self.get_label_config()[1][0])] = label
        return table

    def _get_df_by_key(self, data_key: str = DataHandlerLP.DK_I) -> pd.DataFrame:
        # The learning table is a copy of the features: made only for models that ask for it.
        if data_key == self.DK_L and self._learn is None:
            known = np.isfinite(self._learn_label)
            self._learn = self._frame(self._features, self._learn_label)[known]
        return super()._get_df_by_key(data_key)

    @property
    def loader(self) -> str:
        """``market`` where features are computed by :class:`MarketLoader`, ``qlib`` otherwise."""
        return "market" if self._by_market else "qlib"

    @property
    def key(self) -> str:
        """A digest of everything that determines the features and labels."""
        return digest(self._cache_key)

    @property
    def feature_names(self) -> list[str]:
        """Names of the features, (F,)."""
        return list(self.get_feature_config()[1])

    def arrays(self) -> tuple[pd.MultiIndex, np.ndarray, np.ndarray, np.ndarray]:
        """Index (datetime, instrument), features (R, F), training label (R,) and raw label (R,)."""
        return self._index, self._features, self._learn_label, self._label
