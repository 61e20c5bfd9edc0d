"""Docstrings hold what they promise: examples run, references resolve, raised errors are named."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpqp_portfolio

PACKAGE = Path(bpqp_portfolio.__file__).parent
SOURCES = {
    ".".join(("bpqp_portfolio", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
TEXT_OF_HELP = "bpqp_portfolio.cli"
"""Docstrings that typer shows to users as help."""
REFERENCE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([^`]+)`")


@pytest.mark.parametrize("name", [name for name, text in SOURCES.items() if ">>> " in text])
def test_examples_run(name):
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testmod(module, optionflags=flags)
    assert outcome.attempted and not outcome.failed


def undocumented(name: str) -> Iterator[str]:
    """Public functions, classes and methods of a module without a docstring, inherited ones too."""
    module = importlib.import_module(name)
    own = [v for v in vars(module).values() if getattr(v, "__module__", None) == name]
    for item in own:
        if not (inspect.isfunction(item) or inspect.isclass(item)) or item.__name__[0] == "_":
            continue
        if not inspect.getdoc(item):
            yield f"{name}: {item.__name__}"
        methods = vars(item).items() if inspect.isclass(item) else ()
        for key, member in methods:
            callable_ = inspect.isfunction(member) or isinstance(member, property | classmethod)
            if key[0] != "_" and callable_ and not inspect.getdoc(getattr(item, key)):
                yield f"{name}: {item.__name__}.{key}"


def test_what_is_public_is_documented():
    found = [line for name in SOURCES for line in undocumented(name)]
    assert not found


# Errors that are raised are named ---------------------------------------------------------------


def raised_in(function: ast.FunctionDef) -> Iterator[str]:
    """What the body of ``function`` raises itself, nested functions left out."""
    below: list[ast.AST] = list(function.body)
    while below:
        node = below.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield ast.unparse(node.exc).partition("(")[0]
        below += ast.iter_child_nodes(node)


def silent(body: list[ast.stmt], prefix: str = "", about: str = "") -> Iterator[str]:
    """Public functions that raise an error, and have no ``Raises`` in their docstring.

    The docstring of a class speaks for its construction.
    """
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from silent(node.body, f"{prefix}{node.name}.", ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef):
            makes = node.name in ("__init__", "__post_init__")
            if node.name.startswith("_") and not makes:
                continue
            text = (ast.get_docstring(node) or "") + (about if makes else "")
            errors = {name for name in raised_in(node) if name.endswith("Error")}
            errors -= {"NotImplementedError"}  # what a subclass implements
            if errors and "Raise" not in text:
                yield f"{prefix}{node.name} raises {', '.join(sorted(errors))}"


def test_public_functions_name_what_they_raise():
    found = [
        f"{name}: {line}"
        for name, text in SOURCES.items()
        if not name.startswith(TEXT_OF_HELP)
        for line in silent(ast.parse(text).body)
    ]
    assert not found


def test_a_function_that_does_not_name_its_error_is_found():
    source = '''
class A:
    """Raises nothing."""
    def __init__(self): raise ValueError
    def bad(self):
        """No word of it."""
        if self: raise ConfigError("x")
    def good(self):
        """Raises ConfigError."""
        raise ConfigError("x")
    def outer(self):
        """What it makes may raise, not it."""
        def inner(): raise ConfigError("x")
'''
    assert list(silent(ast.parse(source).body)) == ["A.bad raises ConfigError"]


# References resolve -----------------------------------------------------------------------------


def there(place: str) -> bool:
    """Is ``place`` a module, or what a module or a class has (a field of a dataclass too)?"""
    parts = place.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if isinstance(found, type) and part in inspect.get_annotations(found):
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def resolves(reference: str, module: str, package: str) -> bool:
    if reference.startswith("."):
        levels = len(reference) - len(reference.lstrip("."))
        base = package.split(".")[: len(package.split(".")) + 1 - levels]
        return there(".".join([*base, reference.lstrip(".")]))
    if there(f"{module}.{reference}") or ("." in reference and there(reference)):
        return True
    owners = vars(importlib.import_module(module)).values()
    return any(isinstance(o, type) and there(f"{o.__module__}.{o.__qualname__}.{reference}")
               for o in owners)  # fmt: skip


def test_references_resolve():
    wrong = []
    for name, text in SOURCES.items():
        is_package = (PACKAGE.parent / Path(*name.split("."))).is_dir()
        package = name if is_package else name.rpartition(".")[0]
        for reference in REFERENCE.findall(text):
            if not resolves(reference, name, package):
                wrong.append(f"{name}: {reference}")
    assert not wrong


def test_paths_in_contributing_exist():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`([\w./-]+(?:\.py|/))`", text)
    lost = [p for p in paths if not ((PACKAGE.parent / p).exists() or (PACKAGE / p).exists())]
    assert paths and not lost
