"""The tracking database of several beginners, and a workflow whose variables are not all set."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from qlib.cli.run import render_template
from qlib.utils.data import update_config
from qlib.utils.mod import get_callable_kwargs
from ruamel.yaml import YAML

from bpqp_portfolio.config import render
from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.qlib_ext import tracking
from bpqp_portfolio.qlib_ext.components import RECORDS, written_out
from bpqp_portfolio.qlib_ext.qrun import check_variables
from bpqp_portfolio.qlib_ext.tracking import TrackingManager

BEGIN = """
import sys, time
from pathlib import Path
from bpqp_portfolio.qlib_ext.qrun import check_variables
from bpqp_portfolio.qlib_ext.tracking import TrackingManager
import mlflow
me, uri = sys.argv[1:]
manager = TrackingManager(uri, "both")
Path(me + ".ready").touch()
while not Path("go").exists():
    time.sleep(0.001)
experiment = manager.start_exp(experiment_name="both", recorder_name="run-" + me)
recorder = experiment.active_recorder
recorder.log_params(record=[{"class": "A"}, "b"], fields=[1, 2])
recorder.log_metrics(mine=float(me))
manager.end_exp()
"""


def test_several_begin_on_a_new_file_at_once(tmp_path):
    count, uri = 3, "sqlite:///new.db"
    script = [sys.executable, "-W", "ignore", "-c", BEGIN]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [*script, str(i), uri],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    while any(not (tmp_path / f"{i}.ready").exists() for i in range(count)):
        assert all(p.poll() is None for p in started), [p.communicate()[0] for p in started]
        time.sleep(0.05)
    (tmp_path / "go").touch()
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, said
    client = MlflowClient(f"sqlite:///{tmp_path / 'new.db'}")
    experiment = client.get_experiment_by_name("both")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["mine"] for run in runs) == [0, 1, 2]
    for run in runs:
        settings = {k: v for k, v in run.data.params.items() if k != "cmd-sys.argv"}
        assert settings == {"record.0.class": "A", "record.1": "b", "fields": "[1, 2]"}
        assert run.data.tags["bpqp.version"] == version("bpqp-portfolio")
    # Qlib looks for the last run by the name that it gives to all.
    manager = TrackingManager(f"sqlite:///{tmp_path / 'new.db'}", "both")
    last = manager.get_exp(experiment_name="both", create=False).get_recorder(create=False)
    assert last.name == max(runs, key=lambda run: run.info.start_time).info.run_name


def test_a_database_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    manager = TrackingManager(f"sqlite:///{tmp_path}/taken/new.db", None)
    with pytest.raises(DataError, match=r"taken/new\.db.*MLFLOW_TRACKING_URI"):
        _ = manager.client


# Variables -----------------------------------------------------------------------------------


@pytest.fixture
def workflow_file(tmp_path, monkeypatch):
    monkeypatch.delenv("BPQP_NO_SUCH", raising=False)
    path = tmp_path / "mine.yaml"
    path.write_text("market: '{{ BPQP_NO_SUCH }}'\nother: '{{ BPQP_OTHER | default(1, true) }}'\n")
    return path


def test_an_unset_variable_is_named(workflow_file, monkeypatch):
    assert render_template(str(workflow_file)).startswith("market: ''")  # qrun's own way
    with pytest.raises(ConfigError, match=r"mine\.yaml: 'BPQP_NO_SUCH' is undefined; set that"):
        render(workflow_file)
    monkeypatch.setenv("BPQP_NO_SUCH", "csi300")
    assert render(workflow_file) == "market: 'csi300'\nother: '1'"


def test_a_broken_template_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("market: '{{ BPQP_NO_SUCH '\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml is no Jinja template"):
        render(path)


def test_the_check_finds_the_file_that_qrun_runs(workflow_file):
    check_variables()  # where no workflow runs there is nothing to check
    names = {"begin": check_variables}
    exec(compile("def workflow(config_path):\n    begin()", "qlib/cli/run.py", "exec"), names)
    with pytest.raises(ConfigError, match="'BPQP_NO_SUCH' is undefined"):
        names["workflow"](str(workflow_file))


# What qrun runs ------------------------------------------------------------------------------

QRUN = """
def workflow(config_path):
    config = read(config_path)
    manager(f"sqlite:///{config_path}.db", None)
    return config
"""


def test_qrun_goes_on_with_the_task_as_the_workflow_means_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "check_workflow", lambda config: None)
    (tmp_path / "base.yaml").write_text(
        "task: {model: {class: M, kwargs: {predictor: {name: mlp, hidden: [8]}, members: 3}}}"
    )
    (tmp_path / "desk.py").touch()
    flow = tmp_path / "flow.yaml"
    flow.write_text(
        "BASE_CONFIG_PATH: base.yaml\n"
        "task: {model: {kwargs: {predictor: gru}}, "
        "record: [report, {class: R, module_path: desk.py}]}"
    )

    def as_qrun_reads(path):
        read = YAML(typ="safe", pure=True)
        return update_config(read.load(tmp_path / "base.yaml"), read.load(Path(path)))

    names = {"read": as_qrun_reads, "manager": TrackingManager}
    exec(compile(QRUN, "qlib/cli/run.py", "exec"), names)
    task = names["workflow"](str(flow))["task"]
    assert task["model"]["kwargs"] == {"predictor": {"name": "gru"}, "members": 3}
    assert task["record"][0]["class"] == "ReportRecord"
    assert task["record"][1]["module_path"] == str(tmp_path / "desk.py")


def test_records_by_name_are_written_out_and_a_wrong_one_is_named():
    task = written_out({"record": ["signal", {"name": "mandate", "account": 5}, {"class": "Own"}]})
    signal, mandate, own = task["record"]
    assert signal["kwargs"] == {"model": "<MODEL>", "dataset": "<DATASET>"}
    assert mandate["class"] == "MandateRecord" and mandate["kwargs"] == {"account": 5}
    assert own == {"class": "Own"} and "record" not in written_out({})
    for record in written_out({"record": sorted(RECORDS)})["record"]:
        get_callable_kwargs(record)
    with pytest.raises(ConfigError, match=r"unknown record 'mandaet'\. Did you mean 'mandate'"):
        written_out({"record": "mandaet"})
