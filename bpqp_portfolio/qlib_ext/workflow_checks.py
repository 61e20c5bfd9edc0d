"""A whole workflow checked before any work: Qlib's settings, task, data and outputs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlib.config import MODE_CONF, _default_config, _default_region_config

from ..backtest.mandate_settings import MandateSettings
from ..config import as_mapping, check_keys, check_text, display, keys_of, lookup
from ..data.provider.provider import Provider
from ..errors import ConfigError, ProviderError
from ..files.workflow import Workflow, read_workflow
from ..markets.rules import MARKET_RULES, market_rules
from .components import written_out
from .data_checks import check_named, checked_data
from .dataset import PortfolioDataset, risk_config, training_horizon
from .outputs import check_outputs
from .preflight import check_component, check_task
from .segments import Segments, check_segments

BLOCKS = keys_of(Workflow)
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
    dataset, records = check_task(task)
    if issubclass(dataset, PortfolioDataset):
        folder = _folder(config["qlib_init"]["provider_uri"])
        _check_data(task["dataset"]["kwargs"], folder)
        for record in records:
            if hasattr(record, "check_data"):
                record.check_data(folder)
    check_outputs({**config, "task": task})


def check_file(path: Path) -> str:
    """Check the workflow in a file and its prices; returns what it would run on, as text.

    Raises
    ------
    ConfigError, DataError
        As :func:`check_workflow`, and what the dataset finds wrong with its prices.
    """
    config = read_workflow(path)
    check_workflow(config)
    settings = config["task"]["dataset"]["kwargs"]
    if "mandate" not in settings:  # a dataset of the user's own
        return f"{path}: the data of its dataset are not known here, and were not looked at."
    uri, region = config["qlib_init"]["provider_uri"], config["qlib_init"].get("region", "cn")
    provider = Provider(_folder(uri))
    year = market_rules(region, settings.get("market_rules")).days_per_year
    mandate = MandateSettings.from_config(settings["mandate"], year)
    spans = _spans(settings, provider, quiet=False)
    _, market = checked_data(
        settings,
        provider,
        spans,
        mandate,
        risk_config(settings.get("risk")),
        mandate.training_problem(settings.get("problem")),
        region,
    )
    days = {name: f"{a:%Y-%m-%d} to {b:%Y-%m-%d}" for name, (a, b) in spans.items()}
    return (
        f"{path}: {len(market.names)} names of {settings['market']!r} in {provider.root}; "
        f"{', '.join(f'{name} {span}' for name, span in days.items())}."
    )


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
            f"{where}.class: missing, so Qlib would track runs in a folder, which MLflow refuses. "
            f"Write {TRACKER}, as configs/portfolio.yaml does."
        )
    check_component(manager, where)
    kwargs = as_mapping(manager.get("kwargs"), f"{where}.kwargs")
    check_text(kwargs.get("uri"), f"{where}.kwargs.uri", "an address such as sqlite:///mlflow.db")


def _folder(uri: Any) -> Path:
    return Path(uri["day"] if isinstance(uri, Mapping) else uri)


def _check_data(settings: Mapping[str, Any], folder: Path) -> None:
    try:
        provider = Provider(folder.expanduser().absolute()).require()
    except ProviderError as error:
        raise ProviderError(f"qlib_init.provider_uri: {error}") from error
    check_named(settings, provider)
    _spans(settings, provider, quiet=True)


def _spans(settings: Mapping[str, Any], provider: Provider, *, quiet: bool) -> Segments:
    horizon = training_horizon(settings.get("handler"), settings.get("label_horizon"))
    return check_segments(settings["segments"], provider.calendar, horizon, quiet=quiet)
