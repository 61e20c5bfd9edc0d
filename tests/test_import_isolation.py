"""What importing the package may and may not bring along, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

FOREIGN = ("qlib", "mlflow", "pandas", "matplotlib")

LAYERS_ALONE = """
import torch, bpqp_portfolio as bp
for name in bp.available_solvers("qp"):
    q = torch.ones(2, requires_grad=True)
    bp.QPLayer(name, name)(torch.eye(2), q, lb=torch.zeros(2)).sum().backward()
"""


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter that has run ``code``."""
    code += "\nimport sys\nprint('LOADED', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("code", ["import bpqp_portfolio", LAYERS_ALONE], ids=["import", "solve"])
def test_the_layers_bring_no_finance(code):
    loaded = modules_after(code)
    assert "bpqp_portfolio" in loaded
    assert not loaded & set(FOREIGN)


def test_the_bare_import_is_light():
    assert not modules_after("import bpqp_portfolio") & {"torch", "numpy", "osqp", "clarabel"}


def test_the_check_sees_a_foreign_import():
    assert "pandas" in modules_after("import bpqp_portfolio, pandas")


def test_unused_solvers_are_not_loaded():
    code = LAYERS_ALONE.replace('bp.available_solvers("qp")', "['clarabel']")
    loaded = modules_after(code)
    assert "clarabel" in loaded and "osqp" not in loaded
