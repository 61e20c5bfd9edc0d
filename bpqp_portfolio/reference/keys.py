"""A key of a workflow: its text and unit from the docstring, its type and default from the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .docstrings import Entry, parameters, prose

REQUIRED = "required"
NUMBERS = re.compile(r"\b(int|float|Number|ByName)\b")
"""Annotations of values that need a unit."""
_TYPES = {
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "str": "text",
    "None": "null",
    "Number": "number",
    "ByName": "number or mapping",
    "_empty": "",
    "Path": "path",
}
_PLURALS = {"int": "whole numbers", "float": "numbers", "str": "texts", "dict": "mappings"}


@dataclass(frozen=True)
class Key:
    """A key of a block: ``type``, ``default`` and ``choices`` in words; ``unit`` None for what has
    no number; ``text`` as in the docstring; ``annotation`` as in the code."""

    name: str
    type: str
    unit: str | None
    default: str
    text: str
    choices: tuple[str, ...] = ()
    annotation: str = ""

    @property
    def needs_unit(self) -> bool:
        """Is its value, or a part of it, a number?"""
        return bool(NUMBERS.search(self.annotation))


@dataclass(frozen=True)
class Block:
    """A block of a workflow: where it stands, the class that reads it, its keys, and ``text``, the
    paragraphs of the class's docstring."""

    place: str
    source: Any
    keys: tuple[Key, ...]
    text: str = ""

    @property
    def reader(self) -> str:
        """The dotted name of the class or function that reads it."""
        return f"{self.source.__module__}.{self.source.__qualname__}"

    def __getitem__(self, name: str) -> Key:
        return {key.name: key for key in self.keys}[name]


def block(
    place: str,
    source: Any,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    passed_on: Collection[str] = (),
    choices: Mapping[str, Collection[str]] | None = None,
    instead: Mapping[str, Mapping[str, Any]] | None = None,
    unit: str | None = None,
) -> Block:
    """The block at ``place`` that ``source`` reads, a dataclass or a constructor.

    ``only`` or ``without`` some of its parameters; ``passed_on`` what its ``**kwargs`` hand to a
    base; ``choices`` the names that a key takes;
    ``instead`` by key what a workflow knows otherwise than the constructor, such as a default;
    ``unit`` of numbers whose text has none.
    """
    texts = parameters(source)
    found = []
    for name, (annotation, default) in {**accepted(source), **inherited(source, passed_on)}.items():
        if name in without or (only is not None and name not in only):
            continue
        entry = texts.get(name, Entry(None, ""))
        own = entry.unit or (unit if NUMBERS.search(annotation) else None)
        names = tuple((choices or {}).get(name, ()))
        kind = type_text(annotation)
        if names:
            kind = kind.replace("text", "name") if "text" in kind else f"name or {kind}"
        key = Key(name, kind, own, default, entry.text, names, annotation)
        found.append(dataclasses.replace(key, **(instead or {}).get(name, {})))
    return Block(place, source, tuple(found), prose(source))


def accepted(source: Any) -> dict[str, tuple[str, str]]:
    """Annotation and default of each key that ``source`` takes; the default as YAML writes it."""
    if dataclasses.is_dataclass(source):
        return {
            f.name.removesuffix("_"): (_annotation(f.type), _default_of(f))
            for f in dataclasses.fields(source)
            if f.init
        }
    found = inspect.signature(source).parameters.values()
    return {
        p.name: (_annotation(_annotated(p)), _default(p.default))
        for p in found
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def inherited(source: Any, names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Annotation and default of each of ``names`` where the nearest base takes it."""
    bases = [accepted(base) for base in inspect.getmro(source)[1:-1]] if names else []
    return {name: next(one[name] for one in bases if name in one) for name in names}


def _annotated(parameter: inspect.Parameter) -> Any:
    """Its annotation; where it has none, the type of its default."""
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    known = parameter.default not in (None, parameter.empty)
    return type(parameter.default) if known else parameter.empty


def _annotation(found: Any) -> str:
    if isinstance(found, str):
        return found
    return getattr(found, "__forward_arg__", getattr(found, "__name__", str(found)))


def _default_of(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return shown(field.default_factory())
    return REQUIRED if field.default is dataclasses.MISSING else _default(field.default)


def _default(value: Any) -> str:
    missing = value is inspect.Parameter.empty or type(value) is object
    return REQUIRED if missing else shown(value)


def shown(value: Any) -> str:
    """A value as YAML writes it.

    Examples
    --------
    >>> shown({"name": "mlp"}), shown((256, 256)), shown(None), shown(1e-10)
    ('{name: mlp}', '[256, 256]', 'null', '1e-10')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(shown, value)) + "]"
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def type_text(annotation: str) -> str:
    """An annotation in words, for people who write YAML.

    Examples
    --------
    >>> type_text("int | None"), type_text("Sequence[str]"), type_text("tuple[str, str]")
    ('whole number or null', 'list of texts', 'list of 2 texts')
    """
    parts = [part.strip() for part in re.split(r"\|(?![^\[]*\])", annotation)]
    words = list(dict.fromkeys(_one_type(part) for part in parts))
    return " or ".join(words)


def _one_type(part: str) -> str:
    name, _, inner = part.removesuffix("]").partition("[")
    if name == "tuple":
        items = inner.split(", ")
        return f"list of {len(items)} {_PLURALS[items[0]]}"
    if name in ("Sequence", "list"):
        return f"list of {_PLURALS[inner]}" if inner in _PLURALS else "list"
    if name in ("Mapping", "dict"):
        return "mapping"
    return _TYPES.get(name, "mapping")
