"""Frozen dataclasses from plain mappings: an unknown key is an error that names the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the closest known name, or the list of known names."""
    known = sorted(map(str, known))
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else f" Known: {', '.join(known)}."


def check_keys(mapping: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise :class:`ConfigError` for the first key of ``mapping`` that is not in ``known``."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {type(mapping).__name__}.")
    known = list(known)
    for key in mapping:
        if key not in known:
            hint = nearest(key, known) if known else " It takes no options."
            raise ConfigError(f"{where}: unknown key {key!r}.{hint}")


def from_mapping(cls: type[T], mapping: Mapping[str, Any] | T | None, where: str) -> T:
    """Build the dataclass ``cls`` from ``mapping``; an instance of ``cls`` passes through."""
    if isinstance(mapping, cls):
        return mapping
    mapping = {} if mapping is None else mapping
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_keys(mapping, fields, where)  # type: ignore[arg-type]
    missing = [
        name
        for name, f in fields.items()
        if name not in mapping  # type: ignore[operator]
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(map(repr, missing))}.")
    try:
        return cls(**mapping)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def lookup(registry: Mapping[str, T], name: str, what: str) -> T:
    """The entry ``name`` of ``registry``, or a :class:`ConfigError` that names the nearest."""
    if name not in registry:
        raise ConfigError(f"unknown {what} {name!r}.{nearest(name, registry)}")
    return registry[name]


def render(path: Path) -> str:
    """The text of a workflow or comparison with environment variables filled in by Jinja.

    Raises
    ------
    ConfigError
        A variable without a default is not set, or the template is malformed; the message names it.
    """
    from jinja2 import Environment, StrictUndefined, TemplateError, UndefinedError

    try:
        template = Environment(undefined=StrictUndefined).from_string(path.read_text())
        return template.render(os.environ)
    except UndefinedError as error:
        raise ConfigError(
            f"{path}: {error.message}; set that environment variable, or give it a default: "
            "{{ NAME | default('...', true) }}."
        ) from error
    except TemplateError as error:
        raise ConfigError(f"{path} is no Jinja template: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}.") from error


def check_number(
    value: Any,
    name: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    integer: bool = False,
) -> None:
    """Raise :class:`ConfigError` unless ``value`` is a finite number in ``[low, high]``.

    ``open_low`` excludes ``low`` itself; ``integer`` also asks for a whole number (5.0 is one).
    """
    kind = "a whole number" if integer else "a number"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{name}: expected {kind}, got {value!r}.")
    number = float(value)
    if not math.isfinite(number) or (integer and not number.is_integer()):
        raise ConfigError(f"{name}: expected {kind}, finite, got {value!r}.")
    if number < low or number > high or (open_low and number == low):
        left = f"{'>' if open_low else '>='} {low:g}" if low > -math.inf else ""
        right = f"<= {high:g}" if high < math.inf else ""
        raise ConfigError(
            f"{name}: must be {' and '.join(filter(None, (left, right)))}, got {value!r}."
        )
