"""The public names of bpqp_portfolio, declared in ``__init__.pyi`` and imported when first used.

Start with ``QPLayer`` for layers in a network of your own, ``Mandate`` for a portfolio under
constraints, and ``cli.py`` for the commands.
"""

import ast
import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any


def _declared() -> dict[str, str]:
    """Every public name of the stub file, and the module that it is imported from."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f".{node.module}" for node in imports for alias in node.names}


_HOMES = _declared()
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("bpqp-portfolio")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
