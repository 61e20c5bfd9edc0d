"""The README's Python examples run, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_are_examples():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_example_runs(block):
    scope: dict = {}
    exec(compile(block, "README.md", "exec"), scope)
    assert scope["mu"].grad is not None
    assert scope["mu"].grad.abs().sum() > 0
    assert float(scope["z"].sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", re.findall(r"`(\w+\.yaml)`", TEXT))
def test_named_workflows_exist(name):
    assert (ROOT / "workflows" / name).is_file()


@pytest.mark.parametrize("target", ("demo", "test"))
def test_commands_are_targets_of_the_makefile(target):
    assert f"make {target}" in TEXT
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
