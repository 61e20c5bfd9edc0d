"""The data of a daily portfolio problem: features, labels, risk and universe, as Qlib's dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from qlib.config import C
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.workflow import R

from ..backtest.mandate_settings import MandateSettings
from ..config import (
    OWN_PART,
    as_mapping,
    check_keys,
    check_number,
    check_text,
    from_mapping,
    own_parts,
)
from ..data.features.panel import DailyPanel, previous_rows
from ..data.provider.provider import Provider
from ..data.universe.market import MarketData
from ..errors import ConfigError, DataError
from ..files.cache import Pieces, cached, digest
from ..portfolio.problem import PortfolioProblem, ProblemConfig
from ..portfolio.scores import mean_spread
from ..risk.config import RiskConfig
from ..risk.rolling import rolling_risk
from ..runs.timing import Timing
from .data_checks import NONE, checked_data
from .facts import check_stated_once, rules_of
from .handler_source import HandlerSource, QlibHandler, build_handler
from .handlers import CachedAlpha158
from .preflight import check_component, check_learned, check_records
from .qrun import check_variables
from .segments import Segments, check_segments, read_segments

PANEL_VERSION = 1
SETTINGS = (
    "market", "benchmark", "segments", "handler", "label_horizon", "risk", "problem", "exclusions",
    "mandate", "market_rules",
)  # fmt: skip
FILLED = (
    "instruments", "start_time", "end_time", "fit_start_time", "fit_end_time", "market", "cache_key"
)  # fmt: skip
"""Settings of the handler that follow from the dataset's."""
NEEDED = {
    "market": "",
    "benchmark": "`benchmark: null` compares with no index.",
    "segments": "",
    "mandate": "It states risk aversion, limits, costs and account: `mandate: {risk_aversion: 5, "
    "constraints: {max_weights: 0.05}, costs: {buy: 0.0005, sell: 0.0015, minimum: 5}, account: "
    "{value: 100000000, risk_degree: 0.99}}`.",
}
"""Settings that must be given, and what to say where they are not."""
MISSING: Any = object()
"""Of a setting that must be given."""
HANDLER = {"class": "CachedAlpha158", "module_path": "bpqp_portfolio.qlib_ext.handlers"}


class PortfolioDataset(DatasetH):
    """Features, labels and risk of a universe over train, valid and test.

    Parameters
    ----------
    market : name of an instrument list of the provider, such as ``csi300``.
    benchmark : code of the index to compare with; null for no index.
    segments : ``train``, ``valid`` and ``test``, each a pair of dates, both included.
    handler : class of features and label: a :class:`CachedAlpha158`, or any handler of Qlib's or
        the user's own (see :class:`~.handler_source.QlibHandler`); universe and dates are filled
        in.
    label_horizon : [days] length h of another handler's label, which ends at the close of t+1+h;
        needed only where its expression does not say.
    risk : each day's covariance: fields of :class:`~bpqp_portfolio.risk.config.RiskConfig`, or the
        name of its model alone.
    problem : what is about learning of :class:`~bpqp_portfolio.portfolio.problem.ProblemConfig`;
        limits, costs and days a year are those of the mandate and the market.
    exclusions : moves that are invalid: ``check`` for what the data check finds now, a CSV
        file (``bpqp data check --write-exclusions``), or ``none`` (the same as null). The return
        into such a day is unknown to features, risk and labels, and zero in the backtest.
    mandate : risk aversion, constraints, costs, fallbacks and account: what the training problem,
        the losses, the solver, the backtest and the orders rest on; see
        :class:`~bpqp_portfolio.backtest.mandate_settings.MandateSettings`.
    market_rules : changes to the rules of Qlib's region, fields of
        :class:`~bpqp_portfolio.markets.rules.MarketRules`.

    Raises
    ------
    ProviderError, ConfigError, DataError
        Bad settings or unusable data, before any feature is computed.
    """

    def __init__(
        self,
        market: str = MISSING,
        benchmark: str | None = MISSING,
        segments: Mapping[str, Any] = MISSING,
        handler: Mapping[str, Any] | None = None,
        label_horizon: int | None = None,
        risk: Mapping[str, Any] | str | None = None,
        problem: Mapping[str, Any] | None = None,
        exclusions: str | None = None,
        mandate: Mapping[str, Any] = MISSING,
        market_rules: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        given = {
            "market": market, "benchmark": benchmark, "segments": segments, "mandate": mandate,
            "handler": handler, "label_horizon": label_horizon, "risk": risk, "problem": problem,
            "market_rules": market_rules, "exclusions": exclusions, **unknown,
        }  # fmt: skip
        named = {k: v for k, v in given.items() if v is not MISSING}
        self.check_settings(named)
        self.market_rules = rules_of(market_rules)
        self.mandate = MandateSettings.from_config(mandate, self.market_rules.days_per_year)
        self.clock = Timing()
        self.market, self.benchmark, self.exclusions = market, benchmark, exclusions or NONE
        self.risk = risk_config(risk)
        self.problem_config = self.mandate.training_problem(problem)
        _check_task(self.problem_config)
        with self.clock("data"):
            provider = self.provider.require()
            spans = check_segments(
                segments, provider.calendar, training_horizon(handler, label_horizon)
            )
            self.excluded, self._market = checked_data(
                named,
                provider,
                spans,
                self.mandate,
                self.risk,
                self.problem_config,
                getattr(C, "region", "cn"),
            )
            self.manifest = provider.manifest
            print(f"data: {self.manifest.get('source', provider.root)}", flush=True)
            self.data_key = {
                "provider": provider.fingerprint(),
                "market": market,
                "exclusions": [[e.instrument, f"{e.date:%Y-%m-%d}"] for e in self.excluded],
            }
        self._panel: DailyPanel | None = None
        self._problem: PortfolioProblem | None = None
        self.span_names = _span_names(spans)
        with self.clock("features"):
            built, self.features = self._build_handler(handler or {}, label_horizon)
        # Only now is it known how far ahead another handler's label looks.
        spans = check_segments(self.span_names, provider.calendar, self.features.horizon)
        self.span_names = _span_names(spans)
        super().__init__(handler=built, segments=self.span_names)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Check all that needs no data.

        Raises
        ------
        ConfigError
            An unknown setting (the nearest is named), one that is missing or outside its range.
        """
        check_keys(settings, SETTINGS, "dataset")
        absent = [key for key in NEEDED if key not in settings]
        if absent:
            hints = [NEEDED[key] for key in absent if NEEDED[key]]
            raise ConfigError(
                " ".join([f"dataset: missing {', '.join(map(repr, absent))}.", *hints])
            )
        check_stated_once({"dataset": {"kwargs": settings}})
        check_text(settings["market"], "market", "the name of an instrument list, such as csi300")
        if settings["benchmark"] is not None:
            check_text(settings["benchmark"], "benchmark", "a code or null")
        if settings.get("exclusions") is not None:
            check_text(settings["exclusions"], "exclusions", "check, none or a CSV file")
        read_segments(settings["segments"])
        risk_config(settings.get("risk"))
        year = rules_of(settings.get("market_rules")).days_per_year
        mandate = MandateSettings.from_config(settings["mandate"], year)
        mandate.training_problem(settings.get("problem"))
        handler = as_mapping(settings.get("handler"), "dataset.handler")
        training_horizon(handler, settings.get("label_horizon"))
        for key in handler.get("kwargs") or {}:
            if key in FILLED:
                raise ConfigError(
                    f"dataset.handler: {key!r} follows from the dataset's market and segments; "
                    "leave it out."
                )
        check_component({**HANDLER, **handler}, "dataset.handler")

    def _build_handler(
        self, handler: Mapping[str, Any], label_horizon: int | None
    ) -> tuple[DataHandlerLP, HandlerSource]:
        """The handler that Qlib's models read, and what the panel is built from."""
        cls = check_component({**HANDLER, **handler}, "dataset.handler")
        filled: dict[str, Any] = {
            "instruments": self.market,
            "start_time": self.span_names["train"][0],
            "end_time": self.span_names["test"][1],
            "fit_start_time": self.span_names["train"][0],
            "fit_end_time": self.span_names["train"][1],
        }
        if issubclass(cls, CachedAlpha158):
            if label_horizon is not None:
                raise ConfigError(
                    f"dataset.label_horizon: {cls.__name__} has the days of its label as `horizon` "
                    "among its kwargs; leave label_horizon out."
                )
            filled |= {"market": self._market, "cache_key": self.data_key}
        built = build_handler(cls, handler.get("kwargs") or {}, filled)
        if isinstance(built, CachedAlpha158):
            return built, built
        return built, QlibHandler(built, self._market, label_horizon)

    @property
    def days_per_year(self) -> float:
        """Trading days that annual figures and limits count: the market's."""
        return self.market_rules.days_per_year

    @property
    def excluded_name_days(self) -> int:
        """Excluded moves of the universe from the first train to the last test day."""
        first, last = self.span_names["train"][0], self.span_names["test"][1]
        dates = self._market.dates
        return int(self._market.excluded[(dates >= first) & (dates <= last)].sum())

    @property
    def provider(self) -> Provider:
        """The provider that Qlib reads from."""
        return Provider(Path(C.dpm.get_data_uri("day")))

    @property
    def market_data(self) -> MarketData:
        """Closes and membership of the universe."""
        return self._market

    def panel(self, window: int = 1) -> DailyPanel:
        """All days from train to test with ``window`` days of history a row.

        Only names with a risk model are in it; prepared once.
        """
        if self._panel is None:
            with self.clock("risk"):
                risk = self.risk_arrays()
            with self.clock("panel"):
                self._panel = self._build_panel(risk)
        if self._panel.window != window:
            self._panel = replace(self._panel, window=window)
        return self._panel

    def days(self, segment: str) -> torch.Tensor:
        """Positions of the days of ``segment`` in the panel."""
        return self.prepared_panel().between(*self.span_names[segment])

    def prepared_panel(self) -> DailyPanel:
        """The panel as it was last prepared, whatever its window."""
        return self.panel() if self._panel is None else self._panel

    @property
    def problem(self) -> PortfolioProblem:
        """The decision problem, its score scale fitted on the training labels.

        Raises
        ------
        DataError
            Realised returns do not vary across names in the train segment.
        """
        if self._problem is None:
            panel = self.prepared_panel()
            batch = panel.batch(self.days("train"), features=False)
            scale = float(mean_spread(batch.returns, batch.earned))
            if not scale > 0:
                raise DataError("realised returns do not vary across names in the train segment.")
            self._problem = PortfolioProblem(self.problem_config, scale)
        return self._problem

    def risk_arrays(self) -> dict[str, np.ndarray]:
        """``day``, ``name``, ``loadings``, ``specific`` and ``modelled`` of every member and day.

        Members that are suspended are among them, which the panel leaves out.
        """
        first, last = map(pd.Timestamp, (self.span_names["train"][0], self.span_names["test"][1]))
        days = np.flatnonzero((self._market.dates >= first) & (self._market.dates <= last))
        key = {**self.data_key, **_keyed("risk", self.risk), "days": [str(first), str(last)]}

        def build() -> dict[str, np.ndarray]:
            risk = rolling_risk(
                self._market.returns,
                self._market.member,
                days,
                self.risk,
                labels=[f"{d:%Y-%m-%d}" for d in self._market.dates],
            )
            counts = np.diff(risk.offsets)
            return {
                "day": np.repeat(risk.days, counts),
                "name": risk.names,
                "loadings": risk.loadings,
                "specific": risk.specific,
                "modelled": risk.modelled,
            }

        return cached("risk", key, build)

    def _build_panel(self, risk: Mapping[str, np.ndarray]) -> DailyPanel:
        index, features, learn_label, label = self.features.arrays()
        market = self._market
        day = market.dates.get_indexer(index.get_level_values("datetime"))
        name = market.names.get_indexer(index.get_level_values("instrument"))
        # Row of the risk arrays for each (day, name), -1 where the name has no model that day.
        first = int(risk["day"].min())
        lookup = np.full(
            (int(risk["day"].max()) - first + 1, len(market.names)), -1, dtype=np.int64
        )
        modelled = np.flatnonzero(risk["modelled"])
        lookup[risk["day"][modelled] - first, risk["name"][modelled]] = modelled
        risk_row = lookup[day - first, name]
        kept = np.flatnonzero(risk_row >= 0)
        self.unmodelled_rows = len(risk_row) - len(kept)
        order = kept[np.lexsort((name[kept], day[kept]))]
        day, name, risk_row = day[order], name[order], risk_row[order]
        days, start = np.unique(day, return_index=True)

        def build() -> dict[str, np.ndarray | Pieces]:
            return {
                "offsets": np.append(start, len(day)),
                "name_index": name,
                "features": Pieces.of(features, order),
                "label": learn_label[order].astype(np.float32),
                "returns": label[order].astype(np.float64),
                "loadings": risk["loadings"][risk_row],
                "specific": risk["specific"][risk_row],
                "previous": previous_rows(name),
            }

        # On disk in the order of the epoch: memory holds what a step reads, whatever the market.
        arrays = cached("panel", self._panel_key(), build)
        tensors: Any = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return DailyPanel(
            dates=market.dates[days].to_numpy("datetime64[D]"),
            names=market.names.to_numpy(str),
            oracle_value=torch.full((len(days),), torch.nan, dtype=torch.float64),
            **tensors,
        )

    def _panel_key(self) -> dict[str, Any]:
        return {
            "version": PANEL_VERSION,
            "data": self.data_key,
            "segments": self.span_names,
            "features": self.features.key,
            **_keyed("risk", self.risk),
        }

    def fill_oracle_values(self, segments: Sequence[str]) -> None:
        """Value of the hindsight portfolio on the days of ``segments``, from disk where known."""
        panel = self.prepared_panel()
        days = torch.cat([self.days(segment) for segment in segments])
        days = days[panel.oracle_value[days].isnan()]
        if not len(days):
            return

        def build() -> dict[str, np.ndarray]:
            self.problem.fill_oracle_values(panel, days)
            return {"optimal": panel.oracle_value[days].numpy()}

        key = {
            **self._panel_key(),
            "days": [str(panel.dates[int(days[0])]), str(panel.dates[int(days[-1])]), len(days)],
            **_keyed("problem", self.problem_config),
            "scale": self.problem.scale,
        }
        panel.oracle_value[days] = torch.from_numpy(cached("optimal", key, build)["optimal"])

    def run_key(self, **more: Any) -> str:
        """A key of everything that determines a training run on this dataset."""
        key = self._panel_key()
        del key["version"]
        key |= _keyed("problem", self.problem_config)
        return digest({**key, "torch": torch.__version__, **more})


def _keyed(name: str, settings: Any) -> dict[str, Any]:
    """Settings as part of a cache key, with the code of the user's own classes among them."""
    fields = asdict(settings)
    parts = own_parts(fields)
    return {name: fields, **({f"{name}_code": parts} if parts else {})}


def risk_config(risk: Mapping[str, Any] | str | None) -> RiskConfig:
    """The settings of the risk model from a workflow's ``risk:``, which may be its name alone."""
    return from_mapping(RiskConfig, {"model": risk} if isinstance(risk, str) else risk, "risk")


def _span_names(spans: Segments) -> dict[str, tuple[str, ...]]:
    return {name: tuple(f"{day:%Y-%m-%d}" for day in span) for name, span in spans.items()}


def training_horizon(handler: Mapping[str, Any] | None, label_horizon: int | None) -> int:
    """Days of the training label, 1 for another handler whose label is not known yet."""
    config = {**HANDLER, **(handler or {})}
    check_keys(config, OWN_PART, "dataset.handler")
    if label_horizon is not None:
        check_number(label_horizon, "label_horizon", low=1, integer=True)
        return int(label_horizon)
    horizon = as_mapping(config.get("kwargs"), "dataset.handler.kwargs").get("horizon", 1)
    check_number(horizon, "handler.horizon", low=1, integer=True)
    return int(horizon)


def _check_task(problem: ProblemConfig) -> None:
    """Check variables, model and records of the task that qrun is running, where there is one."""
    check_variables()
    experiment = R.exp_manager.active_experiment
    recorder = experiment.active_recorder if experiment is not None else None
    if recorder is not None and "task" in recorder.list_artifacts():
        task = recorder.load_object("task")
        check_records(task)
        model = (task.get("model") or {}).get("kwargs") or {}
        risk_head = model.get("risk_head") is not None
        check_learned(risk_head, bool(model.get("learn_kappa")), problem)
