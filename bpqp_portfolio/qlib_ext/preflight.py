"""Checks that come before any long work: segments, universe, problem, and the task's records."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.utils import get_callable_kwargs
from qlib.workflow.record_temp import PortAnaRecord

from ..backtest.mandate_settings import MandateSettings
from ..config import check_keys, nearest, title
from ..data.provider.provider import Provider
from ..data.universe.market import MarketData
from ..errors import ConfigError, DataError
from ..portfolio.problem import ProblemConfig
from ..risk.config import RiskConfig
from .facts import check_stated_once, refuse_restated, rules_of

COMPONENT = ("class", "module_path", "kwargs")
# What Qlib fills in, and what a workflow may therefore name as a placeholder.
FILLED = ("model", "dataset", "recorder")
RECORDS = (
    "SignalRecord",
    "SigAnaRecord",
    "BacktestRecord",
    "MandateRecord",
    "TopkDropoutRecord",
    "ReportRecord",
)
TRADING = ("BacktestRecord", "MandateRecord", "TopkDropoutRecord")
SEGMENTS = ("train", "valid", "test")
LEAST_TEST = 3
"""Days of a test: the target of the first is traded on the second and earns on the third."""
Segments = dict[str, tuple[pd.Timestamp, pd.Timestamp]]


def check_segments(
    segments: Mapping[str, Any], calendar: pd.DatetimeIndex, horizon: int = 1
) -> Segments:
    """Segments as trading days of ``calendar``, in order and without a label that looks ahead.

    Train and valid end early enough for their last label, of ``horizon`` days, to be known before
    the next segment begins. The test ends before the calendar does, since the last trade needs a
    day after it.

    Raises
    ------
    ConfigError
        A segment is missing, not a pair of dates, outside the calendar, empty or overlapping, or
        the test is too short for a trade to earn anything.
    """
    check_keys(segments, SEGMENTS, "segments")
    out: Segments = {}
    for name in SEGMENTS:
        if name not in segments:
            raise ConfigError(f"segments: {name!r} is missing.")
        try:
            start, end = (pd.Timestamp(str(d)) for d in segments[name])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"segments.{name}: expected two dates, got {segments[name]!r} ({error})."
            ) from error
        if start > end:
            raise ConfigError(f"segments.{name}: {start:%Y-%m-%d} is after {end:%Y-%m-%d}.")
        if start > calendar[-1] or end < calendar[0]:
            raise ConfigError(
                f"segments.{name}: {start:%Y-%m-%d} to {end:%Y-%m-%d} is outside the calendar, "
                f"which runs from {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}."
            )
        if start < calendar[0] - pd.Timedelta(days=15):
            raise ConfigError(
                f"segments.{name}: begins on {start:%Y-%m-%d}, before the calendar "
                f"({calendar[0]:%Y-%m-%d})."
            )
        days = calendar[(calendar >= start) & (calendar <= end)]
        if not len(days):
            raise ConfigError(f"segments.{name}: no trading day in it.")
        out[name] = (days[0], days[-1])
    for first, second in itertools.pairwise(SEGMENTS):
        if out[first][1] >= out[second][0]:
            raise ConfigError(
                f"segments: {first} (to {out[first][1]:%Y-%m-%d}) overlaps {second} "
                f"(from {out[second][0]:%Y-%m-%d})."
            )
    # The label of day t needs the closes of t+1 and t+1+h.
    reach = 1 + horizon
    for first, second in itertools.pairwise(SEGMENTS):
        start, end = out[first]
        latest = calendar.get_loc(out[second][0]) - 1 - reach
        if latest < calendar.get_loc(start):
            raise ConfigError(f"segments.{first}: needs more than {reach} trading days.")
        out[first] = (start, min(end, calendar[latest]))
    start, end = out["test"]
    if end >= calendar[-1]:
        end = calendar[-2]
        print(
            f"note: the test segment ends on the calendar's last day; it is cut to {end:%Y-%m-%d}, "
            "since the last trade needs a day after it.",
            flush=True,
        )
        if start > end:
            raise ConfigError("segments.test: needs a trading day before the calendar's last.")
        out["test"] = (start, end)
    days = int(((calendar >= start) & (calendar <= end)).sum())
    if days < LEAST_TEST:
        raise ConfigError(
            f"segments.test: {days} trading day{'s' if days > 1 else ''} ({start:%Y-%m-%d} to "
            f"{end:%Y-%m-%d}), on which nothing could be earned: the target of the first day is "
            f"traded at the close of the second and earns on the third. Take {LEAST_TEST} days or "
            "more; a figure a year needs at least a month of them."
        )
    return out


def check_benchmark(benchmark: str | None, market: str, provider: Provider) -> None:
    """The index has prices, and is no name of the universe that it is compared with.

    Raises
    ------
    ConfigError
        No such prices, or the index is a member of ``market``.
    """
    if benchmark is None:
        return
    if not isinstance(benchmark, str):
        raise ConfigError(f"benchmark: expected a code or null, got {benchmark!r}.")
    if benchmark.lower() not in provider.folders:
        raise ConfigError(
            f"benchmark: no prices of {benchmark!r} in {provider.root}; an index has a code such "
            "as SH000300, and `benchmark: null` compares with none."
        )
    if benchmark.upper() in set(provider.spells(market)["instrument"]):
        raise ConfigError(
            f"benchmark: {benchmark} is itself a member of the universe {market!r}, so the "
            f"portfolio could hold it. Take it out of {provider.root}/instruments/{market}.txt, or "
            f"import the data again with `bpqp data import … --index {benchmark}`."
        )


def check_universe(
    market: MarketData, segments: Segments, risk: RiskConfig, problem: ProblemConfig
) -> None:
    """Every day has enough names for the risk model and for the largest weight.

    Counted are the names that can be invested in and that have a risk model on the day.

    Raises
    ------
    DataError, ConfigError
        A day without a name, with too few for the factors, or for ``max_weight``.
    """
    first, last = segments["train"][0], segments["test"][1]
    days = (market.dates >= first) & (market.dates <= last)
    dates = market.dates[days]
    tradable = market.investable[days].sum(1)
    if tradable.min() == 0:
        raise DataError(
            f"no name can be invested in on {dates[tradable.argmin()]:%Y-%m-%d} "
            f"({(tradable == 0).sum()} such days): the universe is empty or all its prices are "
            "missing. Run `bpqp data check`, or choose other segments."
        )
    before = int(np.flatnonzero(days)[0])
    if before < risk.min_history:
        raise DataError(
            f"the risk model needs {risk.min_history} returns up to the first training day, but "
            f"the data begin {before} days before {first:%Y-%m-%d}: start the train segment later "
            "or lower risk.min_history."
        )
    returns = pd.DataFrame(np.isfinite(market.returns)).rolling(risk.window, min_periods=1).sum()
    modelled = returns.to_numpy()[days] >= risk.min_history
    count = (market.investable[days] & modelled).sum(1)
    fewest, worst = int(count.min()), dates[count.argmin()]
    if fewest <= risk.factors:
        raise DataError(
            f"{fewest} of the {tradable[count.argmin()]} names of {worst:%Y-%m-%d} have a history "
            f"of {risk.min_history} returns, but the risk model has {risk.factors} factors and "
            "needs more names than that: lower risk.factors or risk.min_history, or start the "
            "train segment later."
        )
    if fewest * problem.max_weight < 1 - 1e-9:
        least = math.ceil(1e4 / fewest) / 1e4
        raise ConfigError(
            f"mandate.constraints.max_weights {problem.max_weight:g} cannot reach a sum of 1 with "
            f"the {fewest} names that have a risk model on {worst:%Y-%m-%d}: set it to at least "
            f"{least:g}."
        )


def check_learned(risk_head: bool, learn_kappa: bool, problem: ProblemConfig) -> None:
    """What a model is to learn of the decision is there to be learned.

    Raises
    ------
    ConfigError
        A learned risk or κ in a problem that is not solved by bpqp, or a κ without a normalisation.
    """
    decision = title(problem.decision)
    for key, asked in (("risk_head", risk_head), ("learn_kappa", learn_kappa)):
        if asked and decision != "bpqp":
            raise ConfigError(
                f"model.{key}: is learned through the portfolio problem, which the decision "
                f"{decision!r} does not solve; decide by bpqp, or leave {key} out."
            )
    if learn_kappa and problem.normalisation == "none":
        raise ConfigError(
            "model.learn_kappa: needs scores of a fixed spread; set problem.normalisation to "
            "standardise, or leave it out: without one the network learns the scale itself."
        )


def check_records(task: Mapping[str, Any]) -> None:
    """Every record of ``task`` exists, its settings are known, and what it needs comes before it.

    What the records trade by is stated, once: costs and account in the mandate, and no constraint
    that a record would not obey. One record decides the test days.

    Qlib itself would find that out after the training, or leave a record out with a warning.

    Raises
    ------
    ConfigError
        An unknown key of the task, a record that cannot be found, a bad setting of one, a fact
        that is missing or stated twice, or two records that decide the test days.
    """
    check_stated_once(task)
    check_keys(task, ("model", "dataset", "record", "reweighter"), "task")
    for part in ("model", "dataset"):
        check_keys(task.get(part, {}), COMPONENT, f"task.{part}")
    settings = (task.get("dataset") or {}).get("kwargs") or {}
    records = task.get("record", [])
    done: list[type] = []
    for record in [records] if isinstance(records, Mapping) else records:
        check_keys(record, COMPONENT, "task.record")
        name = str(record.get("class"))
        if isinstance(record, Mapping) and name in TRADING:
            refuse_restated("record", record.get("kwargs"), name, settings)
        cls = check_component(record, "task.record", "qlib.workflow.record_temp", RECORDS)
        trades = bool(getattr(cls, "trades", False))
        if "mandate" in settings and issubclass(cls, PortAnaRecord) and not trades:
            raise ConfigError(
                f"task.record: {name} trades at costs and an account of its own, which "
                "dataset.mandate.costs and dataset.mandate.account state. Use BacktestRecord, "
                "MandateRecord or TopkDropoutRecord, which trade by these, or a subclass."
            )
        needed = getattr(cls, "depend_cls", None)
        if needed is not None and not any(issubclass(earlier, needed) for earlier in done):
            raise ConfigError(f"task.record: {name} needs {needed.__name__} before it.")
        done.append(cls)
    traders = [cls.__name__ for cls in done if getattr(cls, "trades", False)]
    if len(traders) > 1:
        raise ConfigError(
            f"task.record: {' and '.join(traders)} each decide the test days, and the later would "
            "overwrite the weights and figures of the other. Keep one; `bpqp compare` runs several."
        )
    if traders and "mandate" in settings:
        rules = rules_of(settings.get("market_rules"))
        mandate = MandateSettings.from_config(settings["mandate"], rules.days_per_year)
        mandate.book_rules(rules)
        beyond = mandate.beyond_training
        if beyond and not trades_by_mandate(task):
            raise ConfigError(
                f"task.record: {traders[0]} trades the weights of the training problem, which "
                f"knows nothing of mandate: {', '.join(beyond)}. Use MandateRecord, or drop them."
            )


def trades_by_mandate(task: Mapping[str, Any]) -> bool:
    """Does a record of ``task`` solve each day of its backtest by the mandate, from what is held?

    Otherwise the weights of the training problem are traded, or a rival's.
    """
    records = task.get("record") or []
    return any(
        getattr(
            check_component(record, "task.record", "qlib.workflow.record_temp", RECORDS),
            "by_mandate",
            False,
        )
        for record in ([records] if isinstance(records, Mapping) else records)
    )


def check_task(task: Mapping[str, Any]) -> None:
    """All that can be said of ``task`` without data: its classes exist and know their settings.

    Raises
    ------
    ConfigError
        What is unknown, missing or outside its range; the nearest known name.
    """
    check_records(task)
    for part in ("model", "dataset"):
        if part not in task:
            raise ConfigError(f"task: {part!r} is missing.")
        check_component(task[part], f"task.{part}")


def check_component(
    config: Mapping[str, Any] | str,
    where: str,
    module: str | None = None,
    usual: Iterable[str] = (),
) -> type:
    """The class that ``config`` names (``class``, ``module_path``, ``kwargs``), settings checked.

    ``module`` is where it lives unless ``config`` says so; ``usual`` names are offered for a wrong
    one.

    Raises
    ------
    ConfigError
        No such class, or a setting that it does not know; the nearest is named.
    """
    config = {"class": config} if isinstance(config, str) else config
    check_keys(config, COMPONENT, where)
    name = str(config.get("class"))
    try:
        cls, kwargs = get_callable_kwargs({"kwargs": {}, **config}, module)
    except (AttributeError, KeyError, ModuleNotFoundError, ValueError, TypeError) as error:
        what = where.rpartition(".")[2].removesuffix("s").replace("_", " ")
        hint = nearest(name, usual) if usual else ""
        raise ConfigError(f"{where}: no {what} {name!r} ({error}).{hint}") from error
    if not isinstance(kwargs, Mapping):
        raise ConfigError(f"{where}: the kwargs of {name} are no mapping: {kwargs!r}.")
    settings = {key: value for key, value in kwargs.items() if key not in FILLED}
    if hasattr(cls, "check_settings"):
        cls.check_settings(settings)
        return cls
    known = inspect.signature(cls).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        check_keys(settings, known, name)
    return cls
