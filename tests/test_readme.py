"""The README's Python examples run, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bpqp_portfolio.files.workflow import read_workflow
from bpqp_portfolio.portfolio.scores import build_normalisation
from bpqp_portfolio.qlib_ext.model import PortfolioModel

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


def test_own_parts_of_the_example_are_built(tmp_path):
    (source,) = re.findall(r"```py\n(.*?)```", TEXT, flags=re.DOTALL)
    (flow,) = re.findall(r"```yaml\n(# mine\.yaml.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "desk.py").write_text(source)
    (tmp_path / "mine.yaml").write_text(flow.replace("..", str(ROOT)))
    task = read_workflow(tmp_path / "mine.yaml")["task"]
    model = PortfolioModel(**task["model"]["kwargs"])
    assert model.settings.predictor["module_path"] == str(tmp_path / "desk.py")
    assert model.settings.loss == {"name": "huber"} and model.settings.members == 3
    settings = task["dataset"]["kwargs"]
    assert settings["risk"]["model"] == "ledoit_wolf" and settings["risk"]["window"] == 240
    normalise = build_normalisation(settings["problem"]["normalisation"])
    assert normalise(torch.tensor([[-9.0, 1.0]]), None).tolist() == [[-2.5, 1.0]]
