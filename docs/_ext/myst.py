"""Text of docstrings, which is reStructuredText, as MyST Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

_TOKEN = re.compile(r"``(.+?)``|:(?:py:)?(\w+):`(~?)([^`]+)`|`([^`]+)`|(?<!\w)(--[a-z][\w-]*)")
_SPECIAL = re.compile(r"([\\*_\[\]<>$|#{}])")


def escaped(text: str) -> str:
    """``text`` with what Markdown would take for marks escaped."""
    return _SPECIAL.sub(r"\\\1", text)


def markdown(text: str) -> str:
    """A line of a docstring as Markdown: literals and references kept, all else escaped.

    >>> markdown("a name of :data:`~.x.LOSSES`, ``mse`` or w_b")
    'a name of {py:obj}`~.x.LOSSES`, `mse` or w\\\\_b'
    """
    out, last = [], 0
    for found in _TOKEN.finditer(text):
        out.append(escaped(text[last : found.start()]))
        literal, role, _, target, plain, option = found.groups()
        if role == "math":
            out.append(f"${target}$")
        elif role:
            out.append(f"{{py:{role}}}`~{target}`")
        else:
            out.append(f"`{literal or plain or option}`")
        last = found.end()
    return "".join([*out, escaped(text[last:])])


def paragraphs(text: str) -> str:
    """Paragraphs of a docstring as Markdown: lists stay lists, what is indented is a formula."""
    out = []
    for part in re.split(r"\n\s*\n", text):
        if part.startswith("- "):
            items = re.split(r"\n(?=- )", part)
            out.append("\n".join("- " + markdown(" ".join(i[2:].split())) for i in items))
        elif part.startswith(".. math::"):
            out.append(f"$$\n{' '.join(part.removeprefix('.. math::').split())}\n$$")
        elif part.startswith(" "):
            out.append(f"```text\n{textwrap.dedent(part)}\n```")
        else:
            out.append(markdown(" ".join(part.split())))
    return "\n\n".join(out)


def code(text: str) -> str:
    """A literal; nothing for an empty text."""
    return f"`{text}`" if text else ""


def capital(text: str) -> str:
    """``text`` with a capital at its beginning, but for a symbol such as γ."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown themselves."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    # Escaped already in prose, but not in literals.
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what they mean, on narrow screens too."""
    return "\n\n".join(f"{term}\n: {meaning}" for term, meaning in pairs)
