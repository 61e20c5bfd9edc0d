"""The workflow files: they render, merge, name what exists, and differ in what their names say."""

from __future__ import annotations

from pathlib import Path

import jinja2
import jinja2.meta
import pandas as pd
import pytest
from qlib.cli.run import render_template
from qlib.utils import init_instance_by_config
from qlib.utils.data import update_config
from qlib.utils.mod import get_callable_kwargs
from ruamel.yaml import YAML

from bpqp_portfolio.backtest.mandate_settings import MandateSettings
from bpqp_portfolio.config import from_mapping
from bpqp_portfolio.markets.rules import market_rules
from bpqp_portfolio.qlib_ext.dataset import PortfolioDataset
from bpqp_portfolio.qlib_ext.handlers import CachedAlpha158, feature_config
from bpqp_portfolio.qlib_ext.model import PortfolioModel
from bpqp_portfolio.qlib_ext.preflight import check_records
from bpqp_portfolio.qlib_ext.segments import check_segments
from bpqp_portfolio.risk.config import RiskConfig

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "workflows").glob("*.yaml"))
CSI300 = ["bpqp_csi300", "two_stage_csi300", "lightgbm_csi300"]
DEMO = ["bpqp_demo", "mandate_demo"]
US = "bpqp_us"
# A provider has these days at least.
CALENDARS = {
    "cn": pd.bdate_range("2008-01-02", "2023-06-30"),
    "us": pd.bdate_range("1990-01-02", "2022-12-28"),
}


def variables(path: Path) -> set[str]:
    """Environment variables that the file reads."""
    return jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(path.read_text()))


def load(path: Path) -> dict:
    """The file as qrun reads it: rendered, then merged into its base."""
    config = YAML(typ="safe", pure=True).load(render_template(str(path)))
    base = path.parent / config["BASE_CONFIG_PATH"]
    return update_config(YAML(typ="safe", pure=True).load(base.read_text()), config)


def leaves(value: object) -> list[object]:
    """All values of nested mappings and lists."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """No variable of any file is set."""
    for path in FILES:
        for name in variables(path):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request) -> Path:
    return request.param


def test_all_workflows_are_here():
    assert {path.stem for path in FILES} == {*CSI300, *DEMO, US, "mandate_csi300"}


def test_defaults(file):
    """Data and tracking have an address without any variable."""
    init = load(file)["qlib_init"]
    tracker = init["exp_manager"]
    assert tracker["kwargs"]["uri"] == "sqlite:///mlflow.db"
    assert tracker["class"] == "TrackingManager" and tracker["kwargs"]["default_exp_name"]
    folders = {"bpqp_demo": "data/demo", "mandate_demo": "data/us20", US: "data/us"}
    assert init["provider_uri"] == folders.get(file.stem, "~/.qlib/qlib_data/cn_data")
    assert init["region"] == ("us" if file.stem in folders else "cn")


def test_every_variable_is_used_as_a_whole_value(file, monkeypatch):
    names = variables(file)
    assert {"BPQP_PROVIDER_URI", "MLFLOW_TRACKING_URI"} <= names
    if file.stem in CSI300:
        segments = {f"BPQP_{s}_{e}" for s in ("TRAIN", "VALID", "TEST") for e in ("START", "END")}
        assert names >= segments | {"BPQP_MARKET", "BPQP_BENCHMARK", "BPQP_EXCLUSIONS"}
    for name in names:
        monkeypatch.setenv(name, f"value of {name}")
    found = leaves(load(file))
    assert {f"value of {name}" for name in names} <= set(map(str, found))


def test_an_empty_variable_means_the_default(file, monkeypatch):
    plain = load(file)
    for name in variables(file):
        monkeypatch.setenv(name, "")
    assert load(file) == plain


def test_what_a_workflow_names_exists_and_its_settings_are_valid(file):
    config = load(file)
    task = config["task"]
    assert config["experiment_name"] == file.stem
    check_records(task)
    kinds = [record["class"] for record in task["record"]]
    assert kinds == [
        "SignalRecord",
        "SigAnaRecord",
        *(["BacktestRecord", "TruthRecord"] if file.stem == "bpqp_demo" else ["MandateRecord"]),
        "ReportRecord",
    ]

    model = init_instance_by_config(task["model"])
    assert isinstance(model, PortfolioModel) == (file.stem != "lightgbm_csi300")
    cls, kwargs = get_callable_kwargs(task["dataset"])
    assert cls is PortfolioDataset
    known = {
        "market",
        "benchmark",
        "segments",
        "handler",
        "risk",
        "problem",
        "exclusions",
        "mandate",
        "market_rules",
    }
    assert set(kwargs) <= known
    from_mapping(RiskConfig, kwargs["risk"], "risk")
    rules = market_rules(config["qlib_init"]["region"])
    mandate = MandateSettings.from_config(kwargs["mandate"], rules.days_per_year)
    mandate.training_problem(kwargs["problem"])
    assert mandate.book_rules(rules).lot == (1 if file.stem in (*DEMO, US) else 100)
    handler, settings = get_callable_kwargs(kwargs["handler"])
    assert handler is CachedAlpha158
    features = feature_config(
        settings["fields"], settings.get("exclude", []), settings.get("include")
    )[1]
    assert len(features) == 3 if file.stem == "bpqp_demo" else len(features) > 50
    calendar = CALENDARS[config["qlib_init"]["region"]]
    spans = check_segments(kwargs["segments"], calendar)
    assert spans["test"][1] > spans["test"][0] > spans["valid"][1]


def test_the_first_lines_say_how_to_run_it(file):
    head = file.read_text().splitlines()[:3]
    assert head[0].startswith("# ")
    assert any(f"qrun workflows/{file.name}" in line for line in head)


def test_shared_fragments_need_no_rendering():
    """Qlib renders the workflow alone, not its base."""
    for path in (ROOT / "configs").glob("*.yaml"):
        assert "{{" not in path.read_text()


@pytest.mark.parametrize("name", CSI300[1:])
def test_the_csi300_workflows_differ_in_the_model_alone(name):
    ours, theirs = (load(ROOT / "workflows" / f"{stem}.yaml") for stem in (CSI300[0], name))
    assert ours.pop("experiment_name") != theirs.pop("experiment_name")
    models = ours["task"].pop("model"), theirs["task"].pop("model")
    assert ours == theirs
    assert models[0] != models[1]
    if name == "two_stage_csi300":
        # What ours learns first is what two-stage learns, in the same way.
        ours, theirs = (
            {
                k: model["kwargs"].pop(k)
                for k in ("loss", "trainer", "pretrain")
                if k in model["kwargs"]
            }
            for model in models
        )
        assert models[0] == models[1]
        assert ours.pop("pretrain") == {
            "loss": theirs["loss"],
            "trainer": {k: v for k, v in theirs["trainer"].items() if k != "seed"},
        }
        assert ours["loss"]["name"] == "net_utility"


def test_training_and_backtest_pay_the_same_costs():
    dataset = load(ROOT / "workflows" / "bpqp_csi300.yaml")["task"]["dataset"]["kwargs"]
    config = MandateSettings.from_config(dataset["mandate"], 238).training_problem(
        dataset["problem"]
    )
    assert (config.risk_aversion, config.max_weight, config.turnover_cost) == (5.0, 0.02, 0.001)


def test_the_csi300_files_differ_in_comments_name_and_model_alone():
    """As texts too, so that a change to one that the others lack is seen."""

    def shared(stem: str) -> list[str]:
        text = (ROOT / "workflows" / f"{stem}.yaml").read_text().split("\n  model:\n")[0]
        lines = text.splitlines()
        return [line for line in lines if not line.startswith(("#", "experiment_name:"))]

    assert shared(CSI300[0]) == shared(CSI300[1]) == shared(CSI300[2])
    assert len(shared(CSI300[0])) > 10
