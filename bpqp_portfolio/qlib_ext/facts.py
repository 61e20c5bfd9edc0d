"""Facts that a workflow states once, and refusals of keys that would state them a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from qlib.config import C

from ..errors import ConfigError
from ..markets.rules import MarketRules, market_rules

PAYS = "; `trading_costs: true` lets the problem pay the mean of its two rates"
HOMES = {
    "problem": {
        "risk_aversion": "mandate.risk_aversion",
        "max_weight": "mandate.constraints.max_weights",
        "turnover_cost": "mandate.costs",
        "costs": "mandate.costs",
        "days_per_year": "market_rules.days_per_year",
    },
    "mandate": {"days_per_year": "market_rules.days_per_year"},
    "loss": {
        "buy": "mandate.costs.buy",
        "sell": "mandate.costs.sell",
        "days_per_year": "market_rules.days_per_year",
    },
    "record": {
        "risk_degree": "mandate.account.risk_degree",
        "account": "mandate.account.value",
        "open_cost": "mandate.costs.buy",
        "close_cost": "mandate.costs.sell",
        "min_cost": "mandate.costs.minimum",
        "trade_unit": "market_rules.lot",
        "board_limits": "market_rules.price_limits",
    },
}
"""By part of a workflow: a key that it does not have → where in the dataset its fact is stated."""


def rules_of(changes: Mapping[str, Any] | None) -> MarketRules:
    """The rules of Qlib's region with a workflow's ``changes``; China's before Qlib has started,
    whose default that is."""
    return market_rules(getattr(C, "region", "cn"), changes)


def refuse_restated(
    part: str, settings: Any, where: str, dataset: Mapping[str, Any] | None = None
) -> None:
    """Refuse keys of ``settings`` whose fact has another home.

    ``part`` is one of :data:`HOMES`; ``dataset`` the settings of the workflow's dataset, whose
    value is then shown beside the other.

    Raises
    ------
    ConfigError
        Such a key, with both places and both values.
    """
    if not isinstance(settings, Mapping):
        return
    for key, home in HOMES[part].items():
        if key in settings:
            found = _stated(dataset or {}, home)
            there = "is its place" if found is None else f"is {found!r}"
            raise ConfigError(
                f"{where}.{key} is {settings[key]!r}, and dataset.{home} {there}: the fact is "
                f"stated there alone. Leave {key} out here, and change it there"
                f"{PAYS if key == 'turnover_cost' else ''}."
            )


def check_stated_once(task: Mapping[str, Any]) -> None:
    """Refuse what a dataset or a loss of ``task`` states a second time (see :data:`HOMES`).

    Raises
    ------
    ConfigError
        Such a key, with both places and both values.
    """
    dataset = _kwargs(task, "dataset")
    refuse_restated("problem", dataset.get("problem"), "dataset.problem", dataset)
    mandate = dataset.get("mandate")
    refuse_restated("mandate", mandate, "dataset.mandate", dataset)
    for name, value in _terms(mandate):
        refuse_restated("mandate", value, f"dataset.mandate.{name}", dataset)
    model = _kwargs(task, "model")
    refuse_restated("loss", model.get("loss"), "model.loss", dataset)
    first = model.get("pretrain")
    if isinstance(first, Mapping):
        refuse_restated("loss", first.get("loss"), "model.pretrain.loss", dataset)


def _kwargs(task: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    config = task.get(part)
    kwargs = config.get("kwargs") if isinstance(config, Mapping) else None
    return kwargs if isinstance(kwargs, Mapping) else {}


def _terms(mandate: Any) -> Iterator[tuple[str, Any]]:
    """Constraints of a ``mandate:`` block by place, beside its settings or under `constraints`."""
    if not isinstance(mandate, Mapping):
        return
    yield from mandate.items()
    block = mandate.get("constraints")
    for one in block if isinstance(block, list | tuple) else [block]:
        if isinstance(one, Mapping):
            yield from ((f"constraints.{name}", value) for name, value in one.items())


def _stated(dataset: Mapping[str, Any], home: str) -> Any:
    """The value at ``home`` in the dataset's settings, None where there is none."""
    first, *rest = home.split(".")
    changes = dataset.get("market_rules")
    value = asdict(rules_of(changes)) if first == "market_rules" else dataset.get(first)
    for key in rest:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
