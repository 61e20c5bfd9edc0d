"""Checks of a workflow's task without its data: its classes, their settings and its records."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from qlib.utils.mod import get_module_by_module_path
from qlib.workflow.record_temp import PortAnaRecord

from ..backtest.mandate_settings import MandateSettings
from ..config import (
    OWN_PART,
    as_mapping,
    check_keys,
    check_number,
    check_text,
    display,
    nearest,
    title,
)
from ..errors import ConfigError
from ..portfolio.problem import ProblemConfig
from .components import TASK
from .facts import check_stated_once, refuse_restated, rules_of

# What Qlib fills in, and what a workflow may therefore name as a placeholder.
FILLED = {"model": "<MODEL>", "dataset": "<DATASET>"}
RECORDS = (
    "SignalRecord",
    "SigAnaRecord",
    "BacktestRecord",
    "MandateRecord",
    "TopkDropoutRecord",
    "TruthRecord",
    "ReportRecord",
)
RECORD_MODULE = "qlib.workflow.record_temp"
"""Where Qlib looks for a record whose module is not named."""
LIGHTGBM = "qlib.contrib.model.gbdt"
TRADING = ("BacktestRecord", "MandateRecord", "TopkDropoutRecord")


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


def check_records(task: Mapping[str, Any]) -> list[type]:
    """Every record of ``task`` exists, its settings are known, and what it needs comes before it.

    Returns their classes, in order.

    What the records trade by is stated, once: costs and account in the mandate, and no constraint
    that a record would not obey. One record decides the test days.

    Qlib itself would find that out after the training, or leave a record out with a warning.

    Raises
    ------
    ConfigError
        An unknown key of the task, a record that cannot be found, a bad setting of one, a fact
        that is missing or stated twice, or two records that decide the test days.
    """
    check_keys(task, TASK, "task")
    for part in ("model", "dataset"):
        check_keys(task.get(part, {}), OWN_PART, f"task.{part}")
        as_mapping(task.get(part, {}).get("kwargs"), f"task.{part}.kwargs")
    check_stated_once(task)
    settings = (task.get("dataset") or {}).get("kwargs") or {}
    records = task.get("record") or []
    if not isinstance(records, list | tuple | Mapping):
        raise ConfigError(f"task.record: expected a list of records, got {display(records)}.")
    done: list[type] = []
    for place, record in _listed(records):
        check_keys(record, OWN_PART, place)
        name = str(record.get("class"))
        if isinstance(record, Mapping) and name in TRADING:
            refuse_restated("record", record.get("kwargs"), name, settings)
        cls = check_component(record, place, RECORD_MODULE, RECORDS)
        trades = bool(getattr(cls, "trades", False))
        if "mandate" in settings and issubclass(cls, PortAnaRecord) and not trades:
            raise ConfigError(
                f"{place}: {name} trades at costs and an account of its own, which "
                "dataset.mandate.costs and dataset.mandate.account state. Use BacktestRecord, "
                "MandateRecord or TopkDropoutRecord, which trade by these, or a subclass."
            )
        needed = getattr(cls, "depend_cls", None)
        if needed is not None and not any(issubclass(earlier, needed) for earlier in done):
            raise ConfigError(f"{place}: {name} needs {needed.__name__} before it.")
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
    return done


def trades_by_mandate(task: Mapping[str, Any]) -> bool:
    """Does a record of ``task`` solve each day of its backtest by the mandate, from what is held?

    Otherwise the weights of the training problem are traded, or a rival's.
    """
    return any(
        getattr(check_component(record, place, RECORD_MODULE, RECORDS), "by_mandate", False)
        for place, record in _listed(task.get("record") or [])
    )


def _listed(records: Any) -> list[tuple[str, Any]]:
    """The place and the configuration of each of one record or several."""
    if isinstance(records, Mapping):
        return [("task.record", records)]
    return [(f"task.record[{i}]", record) for i, record in enumerate(records)]


def check_task(task: Mapping[str, Any]) -> tuple[type, list[type]]:
    """All that can be said of ``task`` without data: its classes exist and know their settings.

    Returns the dataset's class and the records'.

    Raises
    ------
    ConfigError
        What is unknown, missing or outside its range; the nearest known name.
    """
    records, parts = check_records(task), {}
    for part in ("model", "dataset"):
        if part not in task:
            raise ConfigError(f"task: {part!r} is missing.")
        parts[part] = check_component(task[part], f"task.{part}")
    return parts["dataset"], records


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
    check_keys(config, OWN_PART, where)
    what = where.rpartition(".")[2].partition("[")[0].removesuffix("s").replace("_", " ")
    given = config.get("class")
    if not isinstance(given, type):  # as from Python
        check_text(given, f"{where}.class", f"the name of a {what}")
    if config.get("module_path") is not None:
        check_text(config["module_path"], f"{where}.module_path", "a module or a .py file")
    name = given.__name__ if isinstance(given, type) else str(given)
    for key in as_mapping(config.get("kwargs"), f"{where}.kwargs"):
        check_text(key, f"{where}.kwargs", "names of settings")
    cls = given
    if not isinstance(cls, type):
        cls = _load_class(name, config.get("module_path") or module, where, what, usual)
    kwargs = config.get("kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise ConfigError(f"{where}: the kwargs of {name} are no mapping: {display(kwargs)}.")
    for key, value in kwargs.items():
        if key in FILLED and value != FILLED[key]:
            raise ConfigError(
                f"{where}: {name}.{key} is filled in by Qlib; write {key}: {FILLED[key]}, or leave "
                f"it out (got {display(value)})."
            )
    settings = {key: value for key, value in kwargs.items() if key not in FILLED}
    if hasattr(cls, "check_settings"):
        cls.check_settings(settings)
        return cls
    known = inspect.signature(cls).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        check_keys(settings, known, name)
    for key, value in settings.items():
        if key in known:
            _check_like(value, known[key].default, f"{where}: {name}.{key}")
    if cls.__module__ == LIGHTGBM:
        from .lightgbm_checks import check_lightgbm

        check_lightgbm(settings, where)
    return cls


def _load_class(name: str, module: str | None, where: str, what: str, usual: Iterable[str]) -> type:
    """The class ``name`` of ``module``, which Qlib also takes as the last part of a dotted name."""
    *parents, last = name.split(".")
    module = ".".join(parents) or module
    if module is None:
        raise ConfigError(f"{where}.module_path: missing; name the module that {name} lives in.")
    try:
        found = get_module_by_module_path(module)
    except (ImportError, SyntaxError, OSError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{where}.module_path: {module!r} cannot be imported ({type(error).__name__}: "
            f"{error}); name a .py file beside the workflow, or a module in a folder of PYTHONPATH."
        ) from error
    cls = getattr(found, last, None)
    if not isinstance(cls, type):
        own = (k for k, v in vars(found).items() if isinstance(v, type) and k[0] != "_")
        known = {*usual, *(k for k in own if getattr(found, k).__module__ == found.__name__)}
        raise ConfigError(f"{where}.class: no {what} {last!r} in {module}.{nearest(last, known)}")
    return cls


def _check_like(value: Any, usual: Any, where: str) -> None:
    """Refuse words where a class of Qlib's has a number or a truth value by default."""
    if isinstance(usual, bool) and not isinstance(value, bool):
        raise ConfigError(f"{where}: expected true or false, got {display(value)}.")
    if isinstance(usual, int | float) and not isinstance(usual, bool):
        check_number(value, where)
