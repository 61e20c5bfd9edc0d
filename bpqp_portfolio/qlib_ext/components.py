"""Short names of what a task is made of, written out as Qlib wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import check_keys, keys_of, lookup
from ..errors import ConfigError
from ..files.workflow import Task

TASK = keys_of(Task)
"""Keys of a task."""
_QLIB, _OURS = "qlib.workflow.record_temp", f"{__package__}."
RECORDS: dict[str, dict[str, Any]] = {
    "signal": {
        "class": "SignalRecord",
        "module_path": _QLIB,
        "kwargs": {"model": "<MODEL>", "dataset": "<DATASET>"},
    },
    "signal_analysis": {"class": "SigAnaRecord", "module_path": _QLIB},
    "backtest": {"class": "BacktestRecord", "module_path": f"{_OURS}records"},
    "mandate": {"class": "MandateRecord", "module_path": f"{_OURS}mandate_records"},
    "topk_dropout": {"class": "TopkDropoutRecord", "module_path": f"{_OURS}topk_dropout"},
    "truth": {"class": "TruthRecord", "module_path": f"{_OURS}truth_record"},
    "report": {"class": "ReportRecord", "module_path": f"{_OURS}records"},
}


def written_out(task: Mapping[str, Any]) -> dict[str, Any]:
    """``task`` with each record that is a name of ``RECORDS``, alone or with options, as a class.

    Raises
    ------
    ConfigError
        An unknown key or name (the nearest is named), or a record that is no name and no mapping.

    Examples
    --------
    >>> written_out({"record": ["signal", {"name": "topk_dropout", "topk": 9}]})["record"][1]
    {'class': 'TopkDropoutRecord', 'module_path': 'bpqp_portfolio.qlib_ext.topk_dropout', \
'kwargs': {'topk': 9}}
    """
    check_keys(task, TASK, "task")
    records = task.get("record")
    if records is None:
        return dict(task)
    listed = records if isinstance(records, list | tuple) else [records]
    return {**task, "record": [_record(one) for one in listed]}


def _record(one: Any) -> Mapping[str, Any]:
    one = {"name": one} if isinstance(one, str) else one
    if not isinstance(one, Mapping):
        raise ConfigError(f"task.record: expected a name or a mapping, got {one!r}.")
    if "name" not in one:
        return one
    options = dict(one)
    known = lookup(RECORDS, options.pop("name"), "record")
    return {**known, "kwargs": {**known.get("kwargs", {}), **options}}
