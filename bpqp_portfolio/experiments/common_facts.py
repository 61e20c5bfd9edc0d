"""What all methods of a comparison share: market, benchmark, test days, data, costs and account."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError

FACTS = ("market", "benchmark", "days", "data", "costs", "account")
"""Facts that may differ only where the comparison's `compare:` names them."""


def facts_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each of :data:`FACTS` in a task; ``market`` with the changes to its rules,
    ``data`` the moves that are left out (the provider is the workflow's)."""
    settings = (task.get("dataset") or {}).get("kwargs") or {}
    mandate = settings.get("mandate") or {}
    return {
        "market": (settings.get("market"), settings.get("market_rules") or {}),
        "benchmark": settings.get("benchmark"),
        "days": (settings.get("segments") or {}).get("test"),
        "data": settings.get("exclusions"),
        "costs": mandate.get("costs"),
        "account": mandate.get("account"),
    }


def check_common(tasks: Mapping[str, Mapping[str, Any]], compared: Sequence[str] = ()) -> None:
    """Methods differ in no fact but those ``compared``, and in each of these.

    ``tasks`` by method.

    Raises
    ------
    ConfigError
        Two methods, which are named with both values, differ in another fact; or none do in one
        that is to be compared.
    """
    facts = {name: facts_of(task) for name, task in tasks.items()}
    differ: dict[str, tuple[str, str]] = {}
    for fact in FACTS:
        for one, other in itertools.pairwise(facts):
            if facts[one][fact] != facts[other][fact]:
                differ[fact] = one, other
                break
    for fact, (one, other) in differ.items():
        if fact not in compared:
            raise ConfigError(
                f"methods.{one} and methods.{other} differ in {fact}: {_shown(facts[one][fact])} "
                f"and {_shown(facts[other][fact])}. Their gains would be those of the {fact}: give "
                f"both the same, or add `compare: [{fact}]` if exactly that is compared."
            )
    for fact in compared:
        if fact not in differ:
            raise ConfigError(f"compare: no two methods differ in {fact}; leave it out.")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " with ".join(repr(part) for part in value if part)
    return "none" if value is None else repr(value)
