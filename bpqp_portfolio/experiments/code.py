"""Which code made a run: a digest of the package's sources, as far as they determine results."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..files.cache import digest

PACKAGE = Path(__file__).parents[1]
# They show results, and do not make them.
WITHOUT = ("cli", "experiments", "reference", "report")


@cache
def code_digest(package: Path = PACKAGE, without: Iterable[str] = WITHOUT) -> str:
    """Digest of what the sources below ``package`` do, but for the files and folders ``without``.

    It is taken of the parsed sources, so comments, docstrings and layout do not enter. Another
    version of Python parses to another digest.
    """
    return digest(
        {
            path.relative_to(package).as_posix(): _meaning(path)
            for path in sorted(package.rglob("*.py"))
            if path.relative_to(package).parts[0] not in without
        }
    )


def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    """Is it a docstring, or any other string without use?"""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
