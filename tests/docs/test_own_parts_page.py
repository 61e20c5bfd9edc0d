"""The example of docs/how-to/own-parts.md is built as a workflow builds it; its parts work."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bpqp_portfolio.files.workflow import read_workflow
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.portfolio import Mandate, Market
from bpqp_portfolio.portfolio.scores import build_normalisation
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_task

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The task of the page's workflow, whose classes are read from the page's file."""
    folder = tmp_path_factory.mktemp("own")
    text = (ROOT / "docs" / "how-to" / "own-parts.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    (flow,) = re.findall(r"```yaml\n(# mine\.yaml.*?)```", text, flags=re.DOTALL)
    (folder / "desk.py").write_text(source)
    (folder / "mine.yaml").write_text(flow.replace("..", str(ROOT)))
    return read_workflow(folder / "mine.yaml")["task"]


def test_own_parts_of_the_example_are_built(task):
    check_task(task)
    model = PortfolioModel(**task["model"]["kwargs"])
    assert model.settings.predictor["class"] == "Linear" and model.settings.members == 1
    assert Path(model.settings.predictor["module_path"]).name == "desk.py"
    settings = task["dataset"]["kwargs"]
    assert settings["risk"]["model"] == "pca" and settings["risk"]["factors"] == 5
    normalise = build_normalisation(settings["problem"]["normalisation"])
    assert normalise(torch.tensor([[-9.0, 1.0]]), None).tolist() == [[-2.5, 1.0]]


def test_what_the_workflow_says_of_its_data_is_the_demonstration_s(task):
    demo = read_workflow(ROOT / "workflows" / "bpqp_demo.yaml")["task"]["dataset"]["kwargs"]
    own = task["dataset"]["kwargs"]
    for key in ("market", "benchmark", "handler", "segments", "risk"):
        assert own[key] == demo[key], key


def test_the_loss_weighs_an_error_upwards_more(task):
    loss = build_loss(task["model"]["kwargs"]["loss"])
    batch = SimpleNamespace(
        label=torch.tensor([[0.0, 0.0, 5.0]]), known=torch.tensor([[True, True, False]])
    )
    scores = torch.tensor([[2.0, -2.0, 0.0]], requires_grad=True)
    terms = loss(scores, batch, None)
    assert terms.total.tolist() == [5.0] and terms.prediction.tolist() == [4.0]
    terms.total.sum().backward()
    assert scores.grad.tolist() == [[3.0, -2.0, 0.0]] and terms.decision is None


def test_the_constraint_holds_and_binds(task):
    constraints = task["dataset"]["kwargs"]["mandate"]["constraints"]
    mandate = Mandate.from_config({"constraints": {"long_only": True, **constraints}})
    n = 20
    mu = torch.zeros(1, n).double()
    mu[0, :5] = 0.05  # the volatile names are the best
    specific = torch.full((1, n), 0.01**2).double()
    specific[0, :5] = 0.03**2
    market = Market(mu, torch.zeros(1, n, 1).double(), specific, torch.ones(1, n, dtype=torch.bool))
    w = mandate.solve(market).w
    assert float(w[0, :5].sum()) == pytest.approx(0.1, abs=1e-8)
    assert float(w.sum()) == pytest.approx(1.0) and float(w.max()) <= 0.1 + 1e-9
