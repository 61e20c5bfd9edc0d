"""The ``Parameters`` sections of docstrings: a text, and where there is one a unit, by name."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

_ENTRY = re.compile(r"(\w+(?:, \w+)*) : (.+)")
_UNIT = re.compile(r"\[([^\]]+)\] ?(.*)", re.DOTALL)
_ROLE = re.compile(r":(?:\w+:)?(\w+):`~?\.*([^`]+)`")


@dataclass(frozen=True)
class Entry:
    """What a docstring says about a parameter: its ``unit``, None without one, and the text."""

    unit: str | None
    text: str

    @classmethod
    def of(cls, text: str) -> Entry:
        """An entry from ``[unit] text``, or a text without a unit.

        Examples
        --------
        >>> Entry.of("[days] of the window")
        Entry(unit='days', text='of the window')
        """
        text = " ".join(text.split())
        found = _UNIT.fullmatch(text)
        return cls(found[1], found[2]) if found else cls(None, text)


def sections(text: str) -> dict[str, list[str]]:
    """The lines of a docstring by title; those before the first title under ``""``.

    Examples
    --------
    >>> sections("Sum.\\n\\nRaises\\n------\\nValueError")
    {'': ['Sum.', ''], 'Raises': ['ValueError']}
    """
    out: dict[str, list[str]] = {"": []}
    lines = inspect.cleandoc(text).splitlines()
    current = ""
    for i, line in enumerate(lines):
        below = lines[i + 1] if i + 1 < len(lines) else ""
        if line and len(below) >= 3 and set(below) == {"-"}:
            current = line
            out[current] = []
        elif not (current and not out[current] and line and set(line) == {"-"}):
            out[current].append(line)
    return out


def starts(line: str) -> bool:
    """Does an entry of a section begin with this line?"""
    return bool(_ENTRY.fullmatch(line))


def entries(lines: list[str]) -> dict[str, Entry]:
    """The entries ``name : text`` of a section; lines that go on are indented.

    Raises
    ------
    ValueError
        A line is neither.

    Examples
    --------
    >>> entries(["low, high : [days] limits,", "    both included."])["high"]
    Entry(unit='days', text='limits, both included.')
    """
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        match = _ENTRY.fullmatch(line)
        if match:
            found.append((match[1], [match[2]]))
        elif found and line.startswith(" "):
            found[-1][1].append(line)
        elif found and line:
            raise ValueError(f"expected `name : text` or an indented line, got {line!r}.")
    return {name: Entry.of(" ".join(t)) for names, t in found for name in names.split(", ")}


def parameters(cls: Any) -> dict[str, Entry]:
    """The entries of the ``Parameters`` section of a class or function, its bases' among them."""
    out: dict[str, Entry] = {}
    for base in reversed(inspect.getmro(cls) if isinstance(cls, type) else (cls,)):
        text = vars(base).get("__doc__") if isinstance(base, type) else base.__doc__
        module = getattr(base, "__module__", "").partition(".")[0]
        if text and module == __name__.partition(".")[0]:
            out |= entries(sections(text).get("Parameters", []))
    return out


def opening(cls: Any) -> str:
    """The first paragraph of a docstring, on one line; empty without one."""
    text = vars(cls).get("__doc__") if isinstance(cls, type) else cls.__doc__
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


def prose(cls: Any) -> str:
    """What a docstring says before its sections and examples: paragraphs, between empty lines."""
    text = vars(cls).get("__doc__") if isinstance(cls, type) else cls.__doc__
    lead = "\n".join(sections(text or "")[""])
    return lead.partition(">>> ")[0].strip()


def plain(text: str) -> str:
    """``text`` without the marks of reStructuredText, for a terminal.

    Examples
    --------
    >>> plain("a :class:`~.keys.Key` such as ``seed``")
    'a Key such as seed'
    """
    text = _ROLE.sub(lambda m: m[2] if m[1] == "math" else m[2].rpartition(".")[2], text)
    return text.replace("``", "").replace(".. math:: ", "")
