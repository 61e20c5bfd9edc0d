"""What a comparison runs: methods, each a change of one workflow, and their seeds."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Template
from qlib.utils.data import update_config
from ruamel.yaml import YAML, YAMLError

from ..config import check_number, from_mapping, nearest
from ..data.cache import digest
from ..errors import ConfigError

SEED = "model.kwargs.trainer.seed"


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    ``title`` as the table prints it; ``task`` changes to the workflow's task, merged as Qlib merges
    a workflow with its base (``__DROP__`` removes a key); ``control`` the method that differs from
    this one in nothing but what is under test, beside which it is always printed; ``seed`` the
    dotted place of the seed in the task; ``seeds`` how many seeds (by default the comparison's; 1
    where nothing is random).
    """

    title: str
    task: Mapping[str, Any] = field(default_factory=dict)
    control: str | None = None
    seed: str = SEED
    seeds: int | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None:
            check_number(self.seeds, "seeds", low=1, integer=True)


@dataclass(frozen=True)
class Comparison:
    """A comparison as its file says it.

    ``workflow`` that every method changes, relative to the file; ``experiment_name`` under which
    the runs are tracked; ``methods`` by name; ``seeds`` of each; ``configurations_tried`` how many
    settings were looked at on validation before this one was frozen, printed with the table;
    ``block`` days and ``level`` of the bootstrap (see :mod:`bpqp_portfolio.report.inference`).
    """

    workflow: str
    experiment_name: str
    methods: Mapping[str, Any]
    seeds: int = 5
    configurations_tried: int | None = None
    block: int = 20
    level: float = 0.95

    def __post_init__(self) -> None:
        check_number(self.seeds, "seeds", low=1, integer=True)
        if self.configurations_tried is not None:
            check_number(self.configurations_tried, "configurations_tried", low=0, integer=True)
        if not isinstance(self.methods, Mapping) or not self.methods:
            raise ConfigError("methods: expected a mapping with at least one method.")
        methods = {n: from_mapping(Method, m, f"methods.{n}") for n, m in self.methods.items()}
        for name, method in methods.items():
            if method.control is not None and (
                method.control not in methods or method.control == name
            ):
                others = [other for other in methods if other != name]
                raise ConfigError(
                    f"methods.{name}.control: no other method {method.control!r}."
                    f"{nearest(method.control, others)}"
                )
        object.__setattr__(self, "methods", methods)


@dataclass(frozen=True)
class Run:
    """One tracked run: a method with a seed.

    ``key`` is a digest of all that determines its result, so that a finished run is known again.
    """

    method: str
    seed: int
    config: dict[str, Any]
    key: str

    @property
    def name(self) -> str:
        """Name in the tracker."""
        return f"{self.method}-seed{self.seed}"


def read_comparison(path: Path) -> tuple[Comparison, dict[str, Any]]:
    """The comparison in a YAML file, and the configuration of its workflow.

    Environment variables are filled in as qrun does it.

    Raises
    ------
    ConfigError
        A file is missing or not a mapping, or a setting is unknown or outside its range.
    """
    comparison = from_mapping(Comparison, _read(path), str(path))
    workflow = path.parent / comparison.workflow
    config = _read(workflow)
    base = config.pop("BASE_CONFIG_PATH", None)
    if base is not None:
        config = update_config(_read(workflow.parent / base), config)
    for part in ("qlib_init", "task"):
        if part not in config:
            raise ConfigError(f"{workflow}: {part!r} is missing.")
    return comparison, config


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"no file {path}.")
    try:
        config = YAML(typ="safe", pure=True).load(Template(path.read_text()).render(os.environ))
    except YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a mapping.")
    return config


def plan(
    comparison: Comparison, workflow: Mapping[str, Any], seeds: int | None = None
) -> list[Run]:
    """All runs, first seeds first, so that an early look sees every method.

    ``seeds`` replaces the comparison's; a method with its own number keeps that.
    """
    runs = []
    for seed in range(seeds or comparison.seeds):
        for name, method in comparison.methods.items():
            if seed >= (method.seeds or seed + 1):
                continue
            task = update_config(copy.deepcopy(workflow["task"]), dict(method.task))
            _place(task, method.seed, seed, name)
            config = {
                "qlib_init": workflow["qlib_init"],
                "experiment_name": comparison.experiment_name,
                "task": task,
            }
            provider = workflow["qlib_init"].get("provider_uri")
            key = digest(
                {"task": task, "provider": str(provider), "version": version("bpqp-portfolio")}
            )
            runs.append(Run(name, seed, config, key))
    return runs


def _place(task: dict[str, Any], where: str, seed: int, method: str) -> None:
    *parents, last = where.split(".")
    node: Any = task
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise ConfigError(
                f"methods.{method}.seed: the task has no {where!r}; name the place of its seed, or "
                "its parent."
            )
    node[last] = seed
