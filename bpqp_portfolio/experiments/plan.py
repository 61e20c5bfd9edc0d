"""What a comparison runs: methods, each a change of one workflow, and their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config import check_number, from_mapping, lookup, nearest
from ..errors import BPQPError, ConfigError
from ..files.cache import digest
from ..files.workflow import merged, read_workflow, read_yaml
from ..qlib_ext.components import written_out
from .common_facts import FACTS, check_common

SEED = "model.kwargs.trainer.seed"


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Parameters
    ----------
    title : as the table prints it.
    task : changes to the workflow's task, merged as a workflow is with its base (see
        :func:`~bpqp_portfolio.files.workflow.merged`).
    like : another method whose changes come before this one's own, so that the two differ in these
        alone.
    control : a method, or several, that this one has to beat, and beside which it is always
        printed.
    seed : dotted place of the seed in the task; null for that of ``like``, or else
        ``model.kwargs.trainer.seed``.
    seeds : [runs] number of runs, one for each seed from 0; null for those of ``like``, or else the
        comparison's. 1 where nothing is random.

    Raises
    ------
    ConfigError
        A number outside its range, or controls that are no names.
    """

    title: str
    task: Mapping[str, Any] = field(default_factory=dict)
    like: str | None = None
    control: str | Sequence[str] | None = None
    seed: str | None = None
    seeds: int | None = None

    def __post_init__(self) -> None:
        if self.seeds is not None:
            check_number(self.seeds, "seeds", low=1, integer=True)
        given = self.control
        names = [] if given is None else [given] if isinstance(given, str) else given
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise ConfigError(f"control: expected a name or a list of names, got {given!r}.")
        if len(set(names)) < len(names):
            raise ConfigError(f"control: a method is named twice in {list(names)}.")
        object.__setattr__(self, "control", tuple(names))

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the methods that this one has to beat."""
        return self.control  # type: ignore[return-value]


@dataclass(frozen=True)
class Comparison:
    """A comparison as its file states it.

    Parameters
    ----------
    workflow : file of the workflow that every method changes, relative to this file.
    experiment_name : experiment of the tracker in which the runs are kept.
    methods : name → method, fields of :class:`Method`.
    seeds : [runs] number of runs of each method, one for each seed from 0; ``--seeds`` replaces it.
    configurations_tried : [settings] number of settings that were looked at on validation before
        these were frozen, printed with the table.
    block : [days] length of a block of the bootstrap (see
        :mod:`bpqp_portfolio.report.statistics`).
    level : [no unit] confidence of the intervals, in (0, 1).
    compare : facts, of :data:`~.common_facts.FACTS`, in which methods differ on purpose; in any
        other they must agree.

    Raises
    ------
    ConfigError
        No methods, a number outside its range, two methods of one title, or a ``like`` or
        ``control`` that is no other method.
    """

    workflow: str
    experiment_name: str
    methods: Mapping[str, Any]
    seeds: int = 5
    configurations_tried: int | None = None
    block: int = 20
    level: float = 0.95
    compare: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.compare, str) or not isinstance(self.compare, Sequence):
            raise ConfigError(f"compare: expected a list of facts, got {self.compare!r}.")
        for fact in self.compare:
            lookup(dict.fromkeys(FACTS), fact, "fact to compare")
        check_number(self.seeds, "seeds", low=1, integer=True)
        if self.configurations_tried is not None:
            check_number(self.configurations_tried, "configurations_tried", low=0, integer=True)
        if not isinstance(self.methods, Mapping) or not self.methods:
            raise ConfigError("methods: expected a mapping with at least one method.")
        methods = {n: from_mapping(Method, m, f"methods.{n}") for n, m in self.methods.items()}
        titles: dict[str, str] = {}
        for name, method in methods.items():
            named = [("control", control) for control in method.controls]
            for key, other in [*named, *([("like", method.like)] if method.like else [])]:
                if other not in methods or other == name:
                    others = [known for known in methods if known != name]
                    raise ConfigError(
                        f"methods.{name}.{key}: no other method {other!r}.{nearest(other, others)}"
                    )
            if method.title in titles:
                raise ConfigError(
                    f"methods.{name}.title: {method.title!r} is also that of "
                    f"{titles[method.title]!r}; the table could not distinguish them."
                )
            titles[method.title] = name
        object.__setattr__(self, "methods", methods)
        for name in methods:
            self.lineage(name)

    def lineage(self, name: str) -> list[Method]:
        """The method and those that it is like, each after the one it is like.

        Raises
        ------
        ConfigError
            A method is like itself, by way of others.
        """
        chain = [name]
        while (like := self.methods[chain[-1]].like) is not None:
            if like in chain:
                raise ConfigError(f"methods.{name}.like: {' is like '.join([*chain, like])}.")
            chain.append(like)
        return [self.methods[one] for one in reversed(chain)]


@dataclass(frozen=True)
class Run:
    """One tracked run: a method with a seed.

    ``key`` is a digest of its whole configuration, so that a finished run is known again; the code
    that makes it is distinguished by :func:`~.code.code_digest`.
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
    comparison = from_mapping(Comparison, read_yaml(path), str(path))
    workflow = path.parent / comparison.workflow
    config = read_workflow(workflow)
    for part in ("qlib_init", "task"):
        if part not in config:
            raise ConfigError(f"{workflow}: {part!r} is missing.")
    dataset = (config["task"].get("dataset") or {}).get("kwargs") or {}
    if dataset.get("benchmark", "") is None:
        raise ConfigError(
            f"{workflow}: benchmark is null, but a comparison shows what its methods earn over an "
            "index; name one."
        )
    return comparison, config


def plan(
    comparison: Comparison, workflow: Mapping[str, Any], seeds: int | None = None
) -> list[Run]:
    """All runs, first seeds first, so that an early look sees every method.

    ``seeds`` replaces the comparison's; a method with its own number keeps that.

    Raises
    ------
    ConfigError
        No place for a method's seed; or methods whose market, benchmark, days, data, costs or
        account differ, which ``compare:`` does not name.
    """
    runs = []
    tasks: dict[str, dict[str, Any]] = {}
    for seed in range(seeds or comparison.seeds):
        for name in comparison.methods:
            lineage = comparison.lineage(name)
            if seed >= next((m.seeds for m in reversed(lineage) if m.seeds), seed + 1):
                continue
            task = written_out(merged(workflow["task"], *(m.task for m in lineage)))
            tasks.setdefault(name, task)
            _place(task, next((m.seed for m in reversed(lineage) if m.seed), SEED), seed, name)
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
    check_common(tasks, comparison.compare)
    return runs


def check_methods(runs: Sequence[Run]) -> None:
    """Check the workflow of every method as qrun would, so that none fails after hours of others.

    Raises
    ------
    ConfigError, DataError
        As :func:`~bpqp_portfolio.qlib_ext.workflow_checks.check_workflow`; the method is named.
    """
    from ..qlib_ext.workflow_checks import check_workflow

    for method, run in {run.method: run for run in runs}.items():
        try:
            check_workflow(run.config)
        except BPQPError as error:
            raise type(error)(f"methods.{method}: {error}") from error


def _place(task: dict[str, Any], where: str, seed: int, method: str) -> None:
    *parents, last = where.split(".")
    node: Any = task
    for parent in parents:
        if parent == "kwargs" and isinstance(node, dict):
            node.setdefault(parent, {})
        node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise ConfigError(
                f"methods.{method}.seed: the task has no {where!r}; name the place of its seed, or "
                "its parent."
            )
    node[last] = seed
