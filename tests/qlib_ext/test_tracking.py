"""The tracking database of several beginners, and a workflow whose variables are not all set."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from qlib.cli.run import render_template

from bpqp_portfolio.config import render
from bpqp_portfolio.errors import ConfigError, DataError
from bpqp_portfolio.qlib_ext.tracking import TrackingManager, check_variables

BEGIN = """
import sys, time
from pathlib import Path
from bpqp_portfolio.qlib_ext.tracking import TrackingManager
import mlflow
me, uri = sys.argv[1:]
manager = TrackingManager(uri, "both")
Path(me + ".ready").touch()
while not Path("go").exists():
    time.sleep(0.001)
experiment = manager.start_exp(experiment_name="both")
recorder = experiment.active_recorder
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
    names = {"render_template": None, "begin": check_variables}
    exec("def workflow(config_path):\n    begin()", names)
    with pytest.raises(ConfigError, match="'BPQP_NO_SUCH' is undefined"):
        names["workflow"](str(workflow_file))
