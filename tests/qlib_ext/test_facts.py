"""Each fact of a workflow has one place: what follows from it, and refusals of a second place."""

from __future__ import annotations

import copy

import pytest
from qlib_markets import FEW, MODEL, SETTINGS, build, connect, mandate

from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.errors import ConfigError
from bpqp_portfolio.markets.rules import market_rules
from bpqp_portfolio.qlib_ext.components import written_out
from bpqp_portfolio.qlib_ext.facts import HOMES
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_task
from bpqp_portfolio.qlib_ext.records import BacktestRecord

OURS = "bpqp_portfolio.qlib_ext"
TASK = {
    "model": {"class": "PortfolioModel", "module_path": f"{OURS}.model", "kwargs": MODEL},
    "dataset": {
        "class": "PortfolioDataset", "module_path": f"{OURS}.dataset", "kwargs": SETTINGS
    },
    "record": [
        {"class": "SignalRecord", "kwargs": {"model": "<MODEL>", "dataset": "<DATASET>"}},
        {"class": "BacktestRecord", "module_path": f"{OURS}.records", "kwargs": {}},
    ],
}  # fmt: skip
# Where a workflow said the fact before, with a value of its own.
RESTATED = {
    "problem": ("dataset.kwargs.problem", "dataset.problem"),
    "mandate": ("dataset.kwargs.mandate", "dataset.mandate"),
    "loss": ("model.kwargs.loss", "model.loss"),
    "record": ("record.1.kwargs", "BacktestRecord"),
}


@pytest.fixture
def task(market):
    connect(market.root)
    return copy.deepcopy(TASK)


def at(task, place: str):
    """The mapping at a dotted place of the task, made where there is none."""
    for key in place.split("."):
        task = task[int(key)] if key.isdigit() else task.setdefault(key, {})
    return task


@pytest.mark.parametrize(("part", "key"), [(part, key) for part in HOMES for key in HOMES[part]])
def test_a_second_place_is_refused_with_both_places_and_values(task, part, key):
    check_task(task)
    place, shown = RESTATED[part]
    at(task, place)[key] = 0.123
    home = HOMES[part][key]
    with pytest.raises(
        ConfigError, match=rf"{shown}\.{key} is 0\.123, and dataset\.{home} is "
    ) as e:
        check_task(task)
    first, *rest = home.split(".")
    rules = {"days_per_year": 252, "lot": 1, "price_limits": None}
    value = rules if first == "market_rules" else SETTINGS[first]
    for part_of in rest:
        value = value[part_of]
    expected = "is its place" if value is None else f"is {value!r}"
    assert expected in str(e.value)


def test_a_first_stage_and_a_single_constraint_are_looked_at_too(task):
    task["model"]["kwargs"]["pretrain"] = {"loss": {"name": "net_utility", "sell": 0.01}}
    with pytest.raises(ConfigError, match=r"model\.pretrain\.loss\.sell is 0\.01.* is 0\.0015"):
        check_task(task)
    del task["model"]["kwargs"]["pretrain"]
    limit = {"max_tracking_error": {"limit": 0.1, "days_per_year": 250}}
    for place in ("dataset.kwargs.mandate.constraints", "dataset.kwargs.mandate"):
        changed = copy.deepcopy(task)
        at(changed, place).update(limit)
        with pytest.raises(ConfigError, match=r"max_tracking_error\.days_per_year is 250.* is 252"):
            check_task(changed)


def test_in_python_too(market):
    with pytest.raises(ConfigError, match=r"problem\.max_weight is 0\.1, .*max_weights is 0\.25"):
        build(market.root, problem={"max_weight": 0.1})
    with pytest.raises(ConfigError, match=r"BacktestRecord\.account is 1, and dataset\.mandate"):
        BacktestRecord(None, None, account=1)
    with pytest.raises(ConfigError, match=r"trading_costs: true` lets"):
        build(market.root, problem={"turnover_cost": 0.001})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "costs",
            r"mandate\.costs: missing\. State what a trade costs, zero too: `mandate",
        ),
        ("account", r"mandate\.account: missing\. State what the backtest trades in"),
    ],
)
def test_a_backtest_asks_for_costs_and_account(task, part, message):
    del task["dataset"]["kwargs"]["mandate"][part]
    with pytest.raises(ConfigError, match=message):
        check_task(task)
    task["record"] = task["record"][:1]
    check_task(task)


def record(name, module, **kwargs):
    return {"class": name, "module_path": f"{OURS}.{module}", "kwargs": kwargs}


@pytest.mark.parametrize("name", ["PortAnaRecord", "MultiPassPortAnaRecord"])
def test_qlibs_own_backtest_has_costs_and_an_account_of_its_own(task, name):
    backtest = {"account": 5e6, "exchange_kwargs": {"open_cost": 0.02, "min_cost": 0}}
    task["record"][1] = {"class": name, "kwargs": {"config": {"backtest": backtest}}}
    with pytest.raises(ConfigError, match=rf"{name} trades at .* of its own.* Use BacktestRecord"):
        check_task(task)
    with pytest.raises(ConfigError, match="unknown record 'portfolio_analysis'"):
        written_out({"record": ["signal", "portfolio_analysis"]})


@pytest.mark.parametrize(
    "other",
    [
        record("MandateRecord", "mandate_records"),
        record("TopkDropoutRecord", "topk_dropout", topk=5, n_drop=1),
        record("BacktestRecord", "records"),
    ],
    ids=lambda other: other["class"],
)
def test_one_record_decides_the_test_days(task, other):
    task["record"] += [other, record("ReportRecord", "records")]
    both = f"BacktestRecord and {other['class']} each decide the test days"
    with pytest.raises(ConfigError, match=both):
        check_task(task)
    del task["record"][1]
    check_task(task)


@pytest.mark.parametrize("objective", [None, "mean_variance", "maximum_utility", "robust"])
def test_a_mandate_asks_for_its_risk_aversion(task, objective):
    block = task["dataset"]["kwargs"]["mandate"]
    del block["risk_aversion"]
    block |= {} if objective is None else {"objective": objective, "kappa": 0.1}
    message = (
        rf"risk_aversion: missing, .* {objective or 'mean_variance'} weighs.* `mandate: {{risk"
    )
    with pytest.raises(ConfigError, match=message):
        check_task(task)
    assert MandateSettings.from_config({**block, "objective": "minimum_variance", "kappa": 0}, 252)


def test_a_block_loss_asks_for_costs_before_any_work(market):
    block = {key: value for key, value in mandate().items() if key != "costs"}
    data = build(market.root, handler=FEW, mandate=block)
    model = {**MODEL, "loss": "net_utility"}
    with pytest.raises(ConfigError, match="State what a trade costs"):
        PortfolioModel(**model).fit(data)
    with pytest.raises(ConfigError, match=r"problem\.trading_costs: .*State what a trade costs"):
        build(market.root, handler=FEW, mandate=block, problem={"trading_costs": True})


@pytest.mark.parametrize(
    ("costs", "missing"), [({"buy": 0.01}, "'sell', 'minimum'"), ({"minimum": 5}, "'buy', 'sell'")]
)
def test_costs_are_stated_whole(costs, missing):
    with pytest.raises(ConfigError, match=rf"mandate\.costs: missing {missing}"):
        MandateSettings.from_config(mandate(costs=costs), 252)


def test_an_optimisers_cost_stands_beside_what_an_order_costs():
    costs = {**mandate()["costs"], "quadratic_cost": 0.1}
    built = MandateSettings.from_config(mandate(costs=costs), 252).build()
    assert [term.name for term in built.terms] == ["max_weights", "linear_cost", "quadratic_cost"]
    assert built.costs.sell == 0.0015
    with pytest.raises(ConfigError, match=r"mandate\.costs: unknown key 'quadratic_cots'"):
        MandateSettings.from_config(mandate(costs={"quadratic_cots": 0.1}), 252)


def test_the_training_problem_is_that_of_the_mandate():
    def problem(**changes):
        settings = MandateSettings.from_config(mandate(**changes), 252)
        return settings.training_problem({"trading_costs": True})

    config = problem()
    assert (config.risk_aversion, config.max_weight, config.days_per_year) == (5.0, 0.25, 252)
    assert config.turnover_cost == 0.001 and config.costs.minimum == 5.0
    # Maximum utility has no half before its variance, so its γ counts twice.
    assert problem(objective="maximum_utility").risk_aversion == 10.0
    assert problem(constraints={}).max_weight == 1.0
    by_name = {"max_weights": {"SH600000": 0.1, "SH600001": 0.4, "default": 0.3}}
    assert problem(constraints=by_name).max_weight == 0.4
    assert problem(constraints={"max_weights": {"SH600000": 0.1}}).max_weight == 1.0


def test_rules_of_the_region_reach_the_exchange_and_may_be_changed(market):
    data = build(market.root, handler=FEW)
    assert data.market_rules == market_rules("us") and data.market_rules.lot == 1
    data = build(market.root, handler=FEW, market_rules={"lot": 7, "price_limits": 0.2})
    rules = data.mandate.book_rules(data.market_rules)
    assert (rules.lot, rules.risk_degree, rules.costs.sell) == (7, 0.95, 0.0015)
    assert (data.market_rules.limits(["A", "B"], [0, 1, 2]) == 0.2).all()
    for change, message in (
        ({"lots": 1}, r"market_rules: unknown key 'lots'\. Did you mean 'lot'"),
        ({"lot": 0}, r"market_rules\.lot: must be >= 1"),
        ({"price_limits": "board"}, r"market_rules\.price_limits: expected boards, a fraction or"),
        ({"currency": "$"}, r"market_rules\.currency: expected a code of three capitals"),
        ({"days_per_year": 0}, r"market_rules\.days_per_year: must be >= 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(market.root, market_rules=change)
