"""A whole workflow checked before any work: Qlib's settings, task, data and outputs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlib.config import MODE_CONF, _default_config, _default_region_config

from ..config import as_mapping, check_keys, check_text, display, lookup
from ..data.provider.provider import Provider
from ..errors import ConfigError
from ..markets.rules import MARKET_RULES
from .components import written_out
from .data_checks import check_named
from .dataset import PortfolioDataset, training_horizon
from .outputs import check_outputs
from .preflight import check_component, check_task
from .segments import check_segments

BLOCKS = ("qlib_init", "task", "experiment_name", "sys", "BASE_CONFIG_PATH")
"""Keys of a workflow that Qlib reads; any other is the user's, for YAML's anchors."""
QLIB_SETTINGS = (
    *_default_config, *MODE_CONF["client"], *MODE_CONF["server"], *_default_region_config["cn"],
    "default_conf", "skip_if_reg", "clear_mem_cache",
)  # fmt: skip
"""Keys that ``qlib.init`` takes."""
TRACKER = (
    "`exp_manager: {class: TrackingManager, module_path: bpqp_portfolio.qlib_ext.tracking, kwargs: "
    "{uri: 'sqlite:///mlflow.db', default_exp_name: bpqp}}`"
)


def check_workflow(config: Any) -> None:
    """All of a workflow that can be checked before any feature is computed, in its order.

    ``config`` as :func:`~bpqp_portfolio.files.workflow.read_workflow` reads it. Not checked are
    the prices themselves, which the dataset looks at before it computes features.

    Raises
    ------
    ConfigError, DataError
        What is missing, unknown, of a wrong type, outside its range, not there or not writable.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"the workflow: expected a mapping, got {display(config)}.")
    for key in config:
        near = difflib.get_close_matches(str(key), BLOCKS, n=1, cutoff=0.75)
        if key not in BLOCKS and near:
            raise ConfigError(f"the workflow: unknown key {key!r}. Did you mean {near[0]!r}?")
    for key in ("qlib_init", "task"):
        if key not in config:
            raise ConfigError(
                f"the workflow: {key!r} is missing, in it and in its BASE_CONFIG_PATH; "
                "`bpqp init DIR` writes a workflow that has all there is to state."
            )
    if "experiment_name" in config:
        check_text(config["experiment_name"], "experiment_name", "a name")
    check_qlib_init(config["qlib_init"])
    task = written_out(as_mapping(config["task"], "task"))
    check_task(task)
    cls = check_component(task["dataset"], "task.dataset")
    if issubclass(cls, PortfolioDataset):
        _check_data(task["dataset"]["kwargs"], _folder(config["qlib_init"]["provider_uri"]))
    check_outputs({**config, "task": task})


def check_qlib_init(block: Any) -> None:
    """Where Qlib reads prices and tracks runs, and by which market's rules.

    Raises
    ------
    ConfigError
        No provider, an unknown region or key, or no experiment manager of its own.
    """
    settings = as_mapping(block, "qlib_init")
    check_keys(settings, QLIB_SETTINGS, "qlib_init")
    uri = settings.get("provider_uri")
    folder = uri.get("day") if isinstance(uri, Mapping) else uri
    check_text(folder, "qlib_init.provider_uri", "the folder of a provider")
    lookup(MARKET_RULES, settings.get("region", "cn"), "region", "qlib_init.region")
    where = "qlib_init.exp_manager"
    manager = settings.get("exp_manager")
    if not isinstance(manager, Mapping) or "class" not in manager:
        raise ConfigError(
            f"{where}: {'missing' if manager is None else display(manager)}; runs are tracked by "
            f"{TRACKER}, which configs/portfolio.yaml states."
        )
    check_component(manager, where)
    kwargs = as_mapping(manager.get("kwargs"), f"{where}.kwargs")
    check_text(kwargs.get("uri"), f"{where}.kwargs.uri", "an address such as sqlite:///mlflow.db")


def _folder(uri: Any) -> Path:
    return Path(uri["day"] if isinstance(uri, Mapping) else uri)


def _check_data(settings: Mapping[str, Any], folder: Path) -> None:
    provider = Provider(folder)
    check_named(settings, provider)
    horizon = training_horizon(settings.get("handler"), settings.get("label_horizon"))
    check_segments(settings["segments"], provider.calendar, horizon, quiet=True)
