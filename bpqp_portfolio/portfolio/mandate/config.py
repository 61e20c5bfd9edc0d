"""A mandate's settings read: constraints and costs by name, and the ways out of a failed day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...config import check_keys, check_number, lookup
from ...errors import ConfigError
from ..costs import TradingCosts
from .terms import CONSTRAINTS, COSTS

WAYS = ("raise", "relax", "hold", "equal_weights")
SETTINGS = ("risk_aversion", "objective", "on_failure", "tolerance", "kappa")
YEAR = "days_per_year"
"""Of every annual limit that does not count its own."""


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :class:`~.mandate.Mandate` from the mapping that its ``from_config`` takes.

    Raises
    ------
    ConfigError
        An unknown name (the nearest is named) or a bad value.
    """
    known = {**CONSTRAINTS, **COSTS}
    check_keys(config, [*SETTINGS, YEAR, "constraints", "costs", *known], "mandate")
    options = {k: config[k] for k in SETTINGS if k in config}
    if isinstance(options.get("on_failure"), str | Mapping):
        options["on_failure"] = [options["on_failure"]]
    parts = {k: v for k, v in config.items() if k in known}
    money: dict[str, Any] = {}
    for block, registry in (("constraints", CONSTRAINTS), ("costs", COSTS)):
        own = _named(config.get(block), block)
        if block == "costs" and own and set(own) <= {"buy", "sell", "minimum"}:
            money = own
            continue
        check_keys(own, registry, f"mandate.{block}")
        parts |= own
    year = {YEAR: config[YEAR]} if YEAR in config else {}
    terms = [_term(name, known[name], value, year) for name, value in parts.items()]
    costs = [TradingCosts(**money)] if money else []
    return {
        "constraints": [t for t in terms if t.name in CONSTRAINTS],
        "costs": [*costs, *(t for t in terms if t.name in COSTS)],
        **options,
    }


def fallback(one: Any, names: Sequence[str]) -> tuple[str, tuple[str, ...], float]:
    """A way out, its soft constraints and their penalty."""
    soft: Any = ()
    penalty = 1.0
    if isinstance(one, Mapping):
        check_keys(one, ("relax", "penalty"), "on_failure")
        soft, penalty = one.get("relax", ()), one.get("penalty", 1.0)
        soft = (soft,) if isinstance(soft, str) else tuple(soft)
        for name in soft:
            lookup(dict.fromkeys(names), name, "soft constraint")
        one = "relax"
    check_number(penalty, "on_failure.penalty", low=0, open_low=True)
    lookup(dict.fromkeys(WAYS), one, "way out")
    able = ("groups", "exposures", "max_turnover", "max_leverage", "max_tracking_error")
    if one == "relax":
        soft = soft or tuple(name for name in names if name in able)
        for name in soft:
            lookup(dict.fromkeys(able), name, "constraint that can be relaxed")
    return one, tuple(soft), float(penalty)


def _named(block: Any, where: str) -> dict[str, Any]:
    """name → value from a mapping or a list of names and mappings."""
    if block is None:
        return {}
    if isinstance(block, Mapping):
        return dict(block)
    if not isinstance(block, list | tuple):
        raise ConfigError(f"mandate.{where}: expected a mapping or a list, got {block!r}.")
    out: dict[str, Any] = {}
    for one in block:
        out |= {one: {}} if isinstance(one, str) else dict(one)
    return out


def _term(name: str, cls: Any, value: Any, shared: Mapping[str, Any]) -> Any:
    """The constraint or cost ``name`` from its limit or the mapping of its fields.

    ``shared`` are fields that it takes from the mandate where it has them and says nothing itself.
    """
    fields = list(cls.__dataclass_fields__)
    fields.remove("name")
    usual = {k: v for k, v in shared.items() if k in fields}
    try:
        if (isinstance(value, Mapping) and set(value) & set(fields)) or value == {}:
            check_keys(value, fields, name)
            return cls(**{**usual, **value})
        if "limit" not in fields:
            check_keys(value, fields, name)
        return cls(dict(value) if isinstance(value, Mapping) else value, **usual)
    except TypeError as error:
        raise ConfigError(f"mandate.{name}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"mandate.{error}") from error
