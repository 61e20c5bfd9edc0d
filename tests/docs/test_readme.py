"""The README: short, its example prints what it says, and what it names exists."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = 1000
FIRST_SCREEN = 40
"""Lines; above them stand the install lines, both commands and the example."""


def test_it_is_read_in_minutes():
    assert len(TEXT.split()) <= WORDS


def test_the_example_prints_what_it_says():
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (said,) = re.findall(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), {})
    assert printed.getvalue() == said
    assert len([line for line in source.splitlines() if "import" not in line and line]) <= 10


def test_the_first_screen_holds_installation_commands_and_example():
    screen = "\n".join(TEXT.splitlines()[:FIRST_SCREEN])
    for part in ("git clone", "pip install", "make demo", "make test", "```python", "```text"):
        assert part in screen


@pytest.mark.parametrize("target", ("demo", "test", "docs"))
def test_commands_are_targets_of_the_makefile(target):
    assert f"make {target}" in TEXT
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
