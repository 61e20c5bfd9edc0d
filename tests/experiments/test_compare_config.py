"""The comparison that ships: every method is a task that can run."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from panels import random_panel
from qlib.utils import init_instance_by_config

from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.experiments.plan import plan, read_comparison
from bpqp_portfolio.losses import build_loss
from bpqp_portfolio.losses.account import trades
from bpqp_portfolio.markets.rules import market_rules
from bpqp_portfolio.portfolio.costs import TradingCosts
from bpqp_portfolio.portfolio.problem import PortfolioProblem
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.facts import HOMES
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
    PortfolioDataset.check_settings(dataset)
    kinds = [record["class"] for record in task["record"]]
    # Who decides by a mandate pays its costs in training too, and nobody else does.
    assert ("MandateRecord" in kinds) == dataset["problem"]["trading_costs"]


@pytest.mark.parametrize("method", COMPARISON.methods)
def test_one_edit_of_the_costs_reaches_loss_problem_solver_backtest_and_orders(method, tmp_path):
    """Of every method: nothing but the mandate states what a trade costs."""
    for folder in ("configs", "workflows"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    base = tmp_path / "configs" / "portfolio.yaml"
    text = base.read_text()
    old, new = "{buy: 0.0005, sell: 0.0015, minimum: 5}", "{buy: 0.002, sell: 0.006, minimum: 9}"
    assert text.count(old) == 1 and "0.0005" not in text.replace(old, "")
    base.write_text(text.replace(old, new))
    comparison = read_comparison(tmp_path / "configs" / "compare_csi300.yaml")
    (task,) = [run.config["task"] for run in plan(*comparison, seeds=1) if run.method == method]
    check_records(task)
    settings = task["dataset"]["kwargs"]
    rules = market_rules("cn")
    mandate = MandateSettings.from_config(settings["mandate"], rules.days_per_year)
    costs = TradingCosts(0.002, 0.006, 9)
    # The optimiser's term, and what the records give the exchange, the strategy and saved runs.
    assert [(t.buy, t.sell) for t in mandate.build().terms if t.name == "linear_cost"] == [
        (0.002, 0.006)
    ]
    assert mandate.book_rules(rules).costs == mandate.build().costs == costs
    for record in task["record"]:
        assert not set(HOMES["record"]) & set(record.get("kwargs") or {})
    config = mandate.training_problem(settings["problem"])
    assert config.costs == costs
    assert config.turnover_cost == (0.004 if settings["problem"]["trading_costs"] else 0.0)
    problem = PortfolioProblem(config)
    model = task["model"]["kwargs"]
    loss = model.get("loss")
    if isinstance(loss, dict) and loss["name"].startswith("net_"):
        batch = random_panel(3, 12).batch(torch.arange(3))
        w = batch.mask / batch.mask.sum(-1, keepdim=True).double()
        bought, sold = trades(w, batch)
        paid = build_loss(loss).cost(w, batch, problem)
        assert paid.sum() > 0
        torch.testing.assert_close(paid, 0.002 * bought + 0.006 * sold)


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
