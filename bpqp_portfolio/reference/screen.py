"""A block of the reference, or a single key, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from .docstrings import plain
from .keys import REQUIRED, Key
from .workflow import blocks, find


def print_place(place: str, console: Console) -> None:
    """Print the block or the key at ``place`` (see :func:`~.workflow.find`).

    Raises
    ------
    ConfigError
        There is none.
    """
    found = find(place)
    if isinstance(found, Key):
        _print_key(found, console)
        return
    console.print(f"[bold]{escape(found.place or 'a workflow')}[/]", highlight=False)
    console.print(Padding(escape(plain(found.text)), (0, 0, 1, 2)), highlight=False)
    for key in found.keys:
        _print_key(key, console)
    inside = [name for name in blocks() if found.place and name.startswith(f"{found.place}.")]
    inside = inside if found.place else [name for name in blocks() if name]
    if inside:
        console.print("blocks: " + escape(", ".join(inside)), highlight=False)


def _print_key(key: Key, console: Console) -> None:
    facts = facts_of(key)
    console.print(f"[bold]{escape(key.name)}[/]  {escape(facts)}", highlight=False)
    console.print(Padding(escape(plain(key.text)), (0, 0, 0, 2)), highlight=False)
    if key.choices:
        console.print(Padding(escape("names: " + ", ".join(key.choices)), (0, 0, 0, 2)))


def facts_of(key: Key) -> str:
    """Type, unit and default of a key on one line."""
    default = key.default if key.default == REQUIRED else f"default {key.default}"
    return " · ".join(filter(None, (key.type, key.unit, default)))
