"""The comparison that ships: every method is a task that can run."""

from __future__ import annotations

from pathlib import Path

import pytest
from qlib.utils import init_instance_by_config

from bpqp_portfolio.compare.plan import plan, read_comparison
from bpqp_portfolio.config import from_mapping
from bpqp_portfolio.portfolio.problem import ProblemConfig
from bpqp_portfolio.qlib_ext.mandate_settings import MandateSettings
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


def test_the_default_is_the_workflow(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"workflow: {ROOT / 'workflows' / 'bpqp_csi300.yaml'}\n"
        "experiment_name: x\nseeds: 1\nmethods: {a: {title: ours}}\n"
    )
    (default,) = plan(*read_comparison(config), seeds=1)
    assert RUNS["default"].config["task"] == default.config["task"]
