"""Workflows read from YAML: variables filled in, merged with their base, files of classes found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from ..config import check_text, display, render
from ..errors import ConfigError

DROP = "__DROP__"
"""The value that removes a key, as in Qlib."""
BASE = "BASE_CONFIG_PATH"
SHORT = {"predictor": "name", "loss": "name", "decision": "name", "risk": "model"}
"""Blocks that may be a name alone, and the key that the name stands for."""


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A workflow's file, which ``qrun`` runs; environment variables are filled in by Jinja.

    Parameters
    ----------
    BASE_CONFIG_PATH : workflow that this one changes, looked for in the working directory and then
        beside the file. Mappings are merged key by key, anything else is replaced, ``__DROP__``
        removes a key, and a block that names another kind replaces its base's.
    experiment_name : experiment of the tracker in which the run is kept.
    qlib_init : how Qlib is set up: data, market and tracking.
    task : data, model and records of the run.
    sys : Qlib's own: folders of modules to import, ``path`` and ``rel_path``.
    """

    BASE_CONFIG_PATH: str | None = None
    experiment_name: str = "workflow"
    qlib_init: Mapping[str, Any]
    task: Mapping[str, Any]
    sys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QlibInit:
    """Arguments of ``qlib.init``; those below are read by this package, any other by Qlib alone.

    Parameters
    ----------
    provider_uri : folder of the provider: prices, calendar and lists of names.
    region : market, whose rules ``market_rules`` of the dataset changes.
    exp_manager : class of the experiment manager, as ``class``, ``module_path`` and ``kwargs``;
        ``TrackingManager`` checks the workflow before anything is tracked.
    """

    provider_uri: str
    region: str = "cn"
    exp_manager: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """The ``task:`` block: what is learned from what, and what is recorded of it.

    Parameters
    ----------
    dataset : class of the data, with universe, segments, risk, problem and mandate as its kwargs.
    model : class that learns and gives scores.
    record : records in order, each a short name, a ``name`` and options, or a class: scores,
        backtest, report. One of them at most decides the test days.
    reweighter : refused where it is not null: days are weighed in the loss.
    """

    dataset: Mapping[str, Any]
    model: Mapping[str, Any]
    record: Sequence[Any] = ()
    reweighter: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Segments:
    """First and last day of each segment, both included, in order and without overlap.

    Parameters
    ----------
    train : days that the network, the processors and the scale of its scores are fitted to. The
        last days, whose label would reach into the next segment, are cut off.
    valid : days on which the epoch is chosen; cut off likewise.
    test : days that are decided and traded in the backtest, of which the last must have a trading
        day after it.
    """

    train: tuple[str, str]
    valid: tuple[str, str]
    test: tuple[str, str]


def read_workflow(path: Path) -> dict[str, Any]:
    """The workflow in a YAML file, merged (see :func:`merged`) with the base that it names.

    Environment variables are filled in as qrun does. The base is looked for in the working
    directory and then beside the file, as Qlib does. It names no base of its own, since qrun sets
    Qlib up from these two files alone.

    Raises
    ------
    ConfigError
        A file is missing or malformed, a variable without a default is not set, or the base names
        another.
    """
    config = read_yaml(path)
    base = config.pop(BASE, None)
    if base is None:
        return config
    check_text(base, f"{path}: {BASE}", "the path of a YAML file")
    found = Path(base) if Path(base).exists() else path.absolute().parent / base
    if not found.is_file():
        raise ConfigError(
            f"{path}: its {BASE} {base!r} is no file, neither in the working directory nor in "
            f"{path.absolute().parent}."
        )
    below = read_yaml(found)
    if BASE in below:
        raise ConfigError(
            f"{path}: its {BASE} {found} names a base itself, {below[BASE]!r}, which Qlib does "
            f"not read. Name that one in {path.name}, and put there what {found.name} changes."
        )
    return merged(below, config)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, variables filled in, .py files of classes made absolute.

    Raises
    ------
    ConfigError
        The file is missing, no YAML or no mapping, or a variable is not set.
    """
    if not path.is_file():
        hint = " It is a folder; name a YAML file in it." if path.is_dir() else _like(path)
        raise ConfigError(f"no file {path}.{hint}")
    try:
        config = YAML(typ="safe", pure=True).load(render(path))
    except YAMLError as error:
        raise ConfigError(f"{path}{_fault(error)}") from error
    if not isinstance(config, dict):
        what = "it is empty" if config is None else f"expected a mapping, got {display(config)}"
        raise ConfigError(f"{path}: {what}.")
    locate(config, path.absolute().parent)
    return config


def _like(path: Path) -> str:
    """The YAML file of the nearest name in the folder of ``path``."""
    names = [one.name for one in path.absolute().parent.glob("*.y*ml")]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.with_name(near[0])}?" if near else ""


def _fault(error: YAMLError) -> str:
    """Where a text is not YAML, and why."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return f" is not YAML: {' '.join(str(error).split())}."
    hint = "; indent by spaces, not tabs" if "\\t" in problem else ""
    begun = getattr(error, "context_mark", None)
    since = f" ({error.context}, line {begun.line + 1})" if begun is not None else ""  # type: ignore[attr-defined]
    return f", line {mark.line + 1}, column {mark.column + 1}: {problem}{since}{hint}."


def merged(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` made in order; neither is changed itself.

    Mappings are merged key by key, anything else is replaced, and ``__DROP__`` removes a key, as in
    Qlib. Unlike there, a block that names another kind (another ``name``, ``class`` or
    ``module_path``) replaces the block before it, whose options belong to the other kind; a
    ``class`` without ``module_path`` is looked for in the module of the one before.

    Examples
    --------
    >>> base = {"predictor": {"name": "mlp", "hidden": [256, 256]}}
    >>> merged(base, {"predictor": "gru"})
    {'predictor': {'name': 'gru'}}
    >>> merged(base, {"predictor": {"hidden": [64]}})
    {'predictor': {'name': 'mlp', 'hidden': [64]}}
    """
    out = deepcopy(dict(base))
    for change in changes:
        for key, value in change.items():
            if value == DROP:
                out.pop(key, None)
            else:
                out[key] = _changed(key, out.get(key), value)
    return out


def _changed(key: str, old: Any, new: Any) -> Any:
    """What a block ``old`` becomes where a change says ``new``."""
    if key in SHORT and isinstance(old, str | Mapping) and isinstance(new, str | Mapping):
        old, new = ({SHORT[key]: v} if isinstance(v, str) else v for v in (old, new))
    if not isinstance(new, Mapping):
        return deepcopy(new)
    if not isinstance(old, Mapping):
        return merged({}, new)
    if key == "kwargs" or not _is_other_kind(old, new):
        return merged(old, new)
    kept = ("module_path",) if "class" in new and "class" in old else ()
    return merged({k: old[k] for k in kept if k in old}, new)


def _is_other_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if not any(key in old for key in ("name", "class")):
        return False
    return any(key in new and new[key] != old.get(key) for key in ("name", "class", "module_path"))


def locate(config: Any, folder: Path) -> None:
    """Make each ``module_path`` of a .py file in ``folder`` absolute, in place."""
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            locate(value, folder)
    if isinstance(config, dict) and str(config.get("module_path")).endswith(".py"):
        file = folder / Path(config["module_path"]).expanduser()
        if file.is_file():
            config["module_path"] = str(file.resolve())
