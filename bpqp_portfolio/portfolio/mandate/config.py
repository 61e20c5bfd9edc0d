"""A mandate's settings read: constraints and costs by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from ...config import build, check_keys, from_mapping
from ...errors import ConfigError
from ..costs import TradingCosts
from .terms import CONSTRAINTS, COSTS, Term

SETTINGS = ("risk_aversion", "objective", "on_failure", "tolerance", "kappa")
MONEY = ("buy", "sell", "minimum")
"""Fields of :class:`TradingCosts`, which stand beside the costs of the optimiser alone."""
YEAR = "days_per_year"
"""Of every annual limit that does not count its own."""


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :class:`~.mandate.Mandate` from the mapping that its ``from_config`` takes.

    Raises
    ------
    ConfigError
        An unknown name (the nearest is named), a name that is stated twice, or a bad value.
    """
    known = {**CONSTRAINTS, **COSTS}
    check_keys(config, [*SETTINGS, YEAR, "constraints", "costs", *known], "mandate")
    options = {k: config[k] for k in SETTINGS if k in config}
    stated = [(f"mandate.{k}", k, v) for k, v in config.items() if k in known]
    money: dict[str, Any] = {}
    for block, registry in (("constraints", CONSTRAINTS), ("costs", COSTS)):
        own = by_name(config.get(block), block)
        if block == "costs":
            money = {k: own.pop(k) for k in MONEY if k in own}
            check_keys(own, [*MONEY, *registry], "mandate.costs")
        check_keys(own, registry, f"mandate.{block}")
        stated += [one for one in _entries(config.get(block), block) if one[1] in own]
    parts = _once(stated)
    year = {YEAR: config[YEAR]} if YEAR in config else {}
    terms = [_term(name, known[name], value, year) for name, value in parts.items()]
    terms += [*_own(config.get("constraints"), "constraint"), *_own(config.get("costs"), "cost")]
    costs = [from_mapping(TradingCosts, money, "mandate.costs")] if money else []
    return {
        "constraints": [t for t in terms if not t.is_cost],
        "costs": [*costs, *(t for t in terms if t.is_cost)],
        **options,
    }


def in_order(terms: Sequence[Any]) -> list[Any]:
    """``terms`` in the order of the registries, a user's own last.

    Raises
    ------
    ConfigError
        Something that is no term, a term that is given twice, or two that fix the budget.
    """
    for term in terms:
        if not isinstance(term, Term):
            raise ConfigError(f"expected a constraint or cost of a mandate, got {term!r}.")
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name}: given {names.count(name)} times; give it once.")
    totals = [term.name for term in terms if term.sets_budget]
    if len(totals) > 1:
        raise ConfigError(f"{' and '.join(totals)} both fix the sum of the weights; give one.")
    order = [*CONSTRAINTS, *COSTS]
    return sorted(
        terms, key=lambda term: order.index(term.name) if term.name in order else len(order)
    )


def by_name(block: Any, where: str) -> dict[str, Any]:
    """name → value from a mapping or a list of names and mappings, but for a user's own classes.

    Raises
    ------
    ConfigError
        Something else, or a name that is stated twice; ``where`` is the block that the message
        names.
    """
    return _once(_entries(block, where))


def _entries(block: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """(place, name, value) of all that ``block`` states, but for a user's own classes."""
    if block is None:
        return
    place = f"mandate.{where}"
    if not isinstance(block, Mapping | list | tuple):
        raise ConfigError(f"{place}: expected a mapping or a list, got {block!r}.")
    if isinstance(block, Mapping):
        yield from ((f"{place}.{k}", k, v) for k, v in block.items() if not _is_own(v))
        return
    for i, one in enumerate(block):
        one = {one: {}} if isinstance(one, str) else one
        if not isinstance(one, Mapping):
            raise ConfigError(f"{place}[{i}]: expected a name or a mapping, got {one!r}.")
        if not _is_own(one):
            yield from ((f"{place}[{i}].{k}", k, v) for k, v in one.items())


def _once(stated: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """name → value of ``stated`` (place, name, value), each name once.

    Raises
    ------
    ConfigError
        A name that is stated twice, with both places and values.
    """
    found: dict[str, tuple[str, Any]] = {}
    for place, name, value in stated:
        if name in found:
            before, other = found[name]
            raise ConfigError(
                f"{before} is {other!r}, and {place} is {value!r}: {name} is stated twice; leave "
                "one of them out."
            )
        found[name] = place, value
    return {name: value for name, (_, value) in found.items()}


def _is_own(value: Any) -> bool:
    return isinstance(value, Mapping) and "module_path" in value


def _own(block: Any, what: str) -> list[Term]:
    """The user's own terms, those that are given by ``class`` and ``module_path``."""
    listed = block.values() if isinstance(block, Mapping) else block or ()
    terms = [build(one, {}, what) for one in listed if _is_own(one)]
    for term in terms:
        if not isinstance(term, Term):
            raise ConfigError(f"{what}: {term!r} is no Term of bpqp_portfolio.portfolio.")
        if term.is_cost != (what == "cost"):
            raise ConfigError(f"{what}: {term.name} is none; move it to the other block.")
    return terms


def _term(name: str, cls: Any, value: Any, shared: Mapping[str, Any]) -> Any:
    """The constraint or cost ``name`` from its limit or the mapping of its fields.

    ``shared`` are fields that it takes from the mandate where it has them and says nothing itself.
    """
    known = {f.name: f for f in fields(cls)}
    usual = {k: v for k, v in shared.items() if k in known}
    if not (isinstance(value, Mapping) and (set(value) & set(known) or not value)):
        if "limit" not in known:
            check_keys(value, known, name)
        value = {"limit": dict(value) if isinstance(value, Mapping) else value}
    check_keys(value, known, f"mandate.{name}")
    value = {**usual, **value}
    missing = [k for k, f in known.items() if f.default is MISSING and k not in value]
    if missing:
        raise ConfigError(f"mandate.{name}: missing {', '.join(map(repr, missing))}.")
    try:
        return cls(**value)
    except ConfigError as error:
        raise ConfigError(f"mandate.{error}") from error
