"""The example of docs/how-to/own-parts.md is built as a workflow builds it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from bpqp_portfolio.files.workflow import read_workflow
from bpqp_portfolio.portfolio.scores import build_normalisation
from bpqp_portfolio.qlib_ext.model import PortfolioModel

ROOT = Path(__file__).parents[2]


def test_own_parts_of_the_example_are_built(tmp_path):
    text = (ROOT / "docs" / "how-to" / "own-parts.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    (flow,) = re.findall(r"```yaml\n(# mine\.yaml.*?)```", text, flags=re.DOTALL)
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
