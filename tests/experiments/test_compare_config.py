"""The comparison that ships: every method is a task that can run."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from qlib.utils import init_instance_by_config

from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.config import from_mapping
from bpqp_portfolio.experiments.plan import plan, read_comparison
from bpqp_portfolio.portfolio.problem import ProblemConfig
from bpqp_portfolio.qlib_ext.preflight import check_records

ROOT = Path(__file__).parents[2]
COMPARISON, WORKFLOW = read_comparison(ROOT / "configs" / "compare_csi300.yaml")
RUNS = {run.method: run for run in plan(COMPARISON, WORKFLOW, seeds=1)}


@pytest.mark.parametrize("method", COMPARISON.methods)
def test_a_method_is_a_task(method):
    task = RUNS[method].config["task"]
    check_records(task)
    init_instance_by_config(task["model"])
    dataset = task["dataset"]["kwargs"]
    problem = from_mapping(ProblemConfig, dataset["problem"], "problem")
    kinds = [record["class"] for record in task["record"]]
    # Who decides by a mandate pays its costs in training too, and nobody else does.
    assert ("mandate" in dataset) == ("MandateRecord" in kinds) == (problem.turnover_cost > 0)
    if "mandate" in dataset:
        assert problem.decision["name"] == "bpqp"
        MandateSettings.from_config(dataset["mandate"])


def without_loss(task):
    task = copy.deepcopy(task)
    task["model"]["kwargs"].pop("loss", None)
    return task


@pytest.mark.parametrize("method", [n for n, m in COMPARISON.methods.items() if m.controls])
def test_what_is_tested_has_its_matched_controls(method):
    """The same in all but the loss, another label, random scores, through the same problem."""
    task = RUNS[method].config["task"]
    controls = {name: RUNS[name].config["task"] for name in COMPARISON.methods[method].controls}
    problems = ("problem", "mandate", "risk", "segments", "market")

    def shared(other):
        kwargs = [t["dataset"]["kwargs"] for t in (task, other)]
        return all(kwargs[0].get(part) == kwargs[1].get(part) for part in problems)

    decides = task["dataset"]["kwargs"]["problem"].get("decision")
    alike = [name for name, other in controls.items() if without_loss(other) == without_loss(task)]
    if decides is None:
        assert alike and controls[alike[0]]["model"]["kwargs"]["loss"] == {"name": "mse"}
        same = {name for name, other in controls.items() if shared(other)}
        assert {name for name in controls if not name.endswith("topk")} == same
    else:  # a rival of the optimiser, beside the optimiser on the same loss
        ours = copy.deepcopy(task)
        del ours["dataset"]["kwargs"]["problem"]["decision"]
        assert ours in controls.values()
    handlers = [other["dataset"]["kwargs"]["handler"]["kwargs"] for other in controls.values()]
    assert {kwargs["horizon"] for kwargs in handlers} == {1, 10}
    assert any(other["model"]["class"] == "RandomScores" for other in controls.values())


def test_the_default_is_the_workflow(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"workflow: {ROOT / 'workflows' / 'bpqp_csi300.yaml'}\n"
        "experiment_name: x\nseeds: 1\nmethods: {a: {title: ours}}\n"
    )
    (default,) = plan(*read_comparison(config), seeds=1)
    assert RUNS["default"].config["task"] == default.config["task"]
