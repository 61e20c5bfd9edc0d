"""Docstrings of this package as autodoc takes them: sections become fields and rubrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bpqp_portfolio.reference.docstrings import entries, sections, starts

_LITERAL = re.compile(r"(``.+?``|:\w+:`[^`]+`|`[^`]+`)")


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Write the ``lines`` of a docstring anew, in place; an `autodoc-process-docstring` event."""
    lines[:] = list(rewritten("\n".join(lines)))


def rewritten(text: str) -> Iterator[str]:
    """The lines of a docstring with its sections as fields and rubrics."""
    for title, lines in sections(text).items():
        yield ""
        if title in ("Parameters", "Attributes"):
            yield from _fields(lines, "param" if title == "Parameters" else "ivar")
        elif title == "Raises":
            yield from _raises(lines)
        else:
            yield from ([f".. rubric:: {title}", ""] if title else [])
            yield from map(_safe, lines)
    yield ""


def _fields(lines: list[str], role: str) -> Iterator[str]:
    # What follows the entries is a paragraph of its own.
    ends = [i for i, line in enumerate(lines) if line and line[0] != " " and not starts(line)]
    end = ends[0] if ends else len(lines)
    for name, entry in entries(lines[:end]).items():
        unit = f"[{entry.unit}] " if entry.unit else ""
        yield f":{role} {name}: {_safe(unit + entry.text)}"
    yield from ("", *map(_safe, lines[end:]))


def _raises(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line and not line.startswith(" "):
            yield f":Raises {line}:"
        else:
            yield _safe(line)


def _safe(line: str) -> str:
    """``line`` with bars and stars outside of literals escaped: |x| is a size, w* an optimum."""
    parts = _LITERAL.split(line)
    return "".join(p if i % 2 else re.sub(r"([|*])", r"\\\1", p) for i, p in enumerate(parts))
