"""The Sphinx extension of the reference: marks in pages, keys as objects, docstrings."""

from __future__ import annotations

from typing import Any

import docstrings
import pages
from sphinx import addnodes


def _signature(env: Any, sig: str, node: Any) -> str:
    """Show the last part of a key's place; all of it is the name that references go by."""
    node += addnodes.desc_name("", sig.rpartition(".")[2])
    return sig


def _fill(app: Any, name: str, source: list[str]) -> None:
    source[0] = pages.filled(source[0])


def _outdated(app: Any, env: Any, added: set, changed: set, removed: set) -> list[str]:
    """Pages with a mark: the code may have changed where the page has not."""
    return [name for name in env.found_docs if pages.is_filled(env.doc2path(name))]


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, whose docstrings say nothing."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field") else None


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_object_type("key", "key", objname="workflow key", parse_node=_signature)
    app.connect("env-get-outdated", _outdated)
    app.connect("source-read", _fill)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", docstrings.process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
