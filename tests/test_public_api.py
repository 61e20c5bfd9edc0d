"""The public names: declared once, typed, documented with examples that run; and the version."""

from __future__ import annotations

import ast
import doctest
import importlib
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import bpqp_portfolio as bp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGE = ROOT / "bpqp_portfolio"
EXEMPLARY = (
    "ConvexLayer",
    "Mandate",
    "QPLayer",
    "SOCPLayer",
    "SolverCache",
    "available_solvers",
    "from_cvxpy",
)
LAYERS = ("QPLayer", "SOCPLayer", "ConvexLayer", "from_cvxpy", "PortfolioLayer", "Mandate")


def test_every_declared_name_is_there_and_no_other():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    declared = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(bp.__all__) == set(declared) and set(LAYERS) <= set(declared)
    for name, module in declared.items():
        home = importlib.import_module(f"bpqp_portfolio.{module}")
        assert getattr(bp, name) is getattr(home, name)
        assert getattr(bp, name).__module__ == home.__name__
        assert name in dir(bp)
    with pytest.raises(AttributeError, match="no attribute 'QPLayr'"):
        _ = bp.QPLayr


def test_the_init_file_names_none_of_them():
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    names = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    assert not names & set(bp.__all__)


def test_the_version_is_the_projects():
    assert bp.__version__ == PROJECT["project"]["version"]
    command = [sys.executable, "-m", "bpqp_portfolio.cli", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    for part in (bp.__version__, platform.python_version(), torch.__version__, "pyqlib 0."):
        assert part in shown


def test_types_are_shipped():
    shipped = PROJECT["tool"]["setuptools"]["package-data"]["bpqp_portfolio"]
    assert {"py.typed", "__init__.pyi"} <= set(shipped)
    assert all((PACKAGE / name).is_file() for name in shipped)


@pytest.mark.parametrize("name", bp.__all__)
def test_public_names_are_documented_and_their_examples_run(name):
    public = getattr(bp, name)
    assert public.__doc__ and public.__doc__.strip()
    module = importlib.import_module(public.__module__)
    found = doctest.DocTestFinder().find(public, name, module=module)
    assert name not in EXEMPLARY or any(case.examples for case in found)
    outcomes = [doctest.DocTestRunner(verbose=False).run(case) for case in found]
    assert not sum(outcome.failed for outcome in outcomes)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_say_what_they_raise(name):
    public = getattr(bp, name)
    assert "Parameters\n" in public.__doc__
    assert all("Raises\n" in one.__doc__ for one in (public, getattr(public, "solve", public)))
