"""The project's folder and its last run, found from a folder below."""

from __future__ import annotations

import pytest
from mlflow.tracking import MlflowClient

from bpqp_portfolio.errors import DataError
from bpqp_portfolio.runs.project import latest_run, project_folder
from bpqp_portfolio.runs.tracked import ARTIFACTS


def test_the_folder_is_that_of_the_database(tmp_path, monkeypatch):
    below = tmp_path / "mine" / "notebooks" / "old"
    below.mkdir(parents=True)
    (tmp_path / "mine" / "mlflow.db").touch()
    monkeypatch.chdir(below)
    assert project_folder() == tmp_path / "mine"
    assert project_folder(f"sqlite:///{tmp_path / 'other.db'}") == below
    assert project_folder("http://127.0.0.1:5000") == below
    with pytest.raises(DataError, match=r"no tracking database desk\.db in .*old or above it: run"):
        project_folder("sqlite:///desk.db")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="`bpqp init demo`"):
        project_folder()


def test_the_last_run_is_the_last_begun_that_finished_with_results(tmp_path):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(DataError, match="no tracking database at"):
        latest_run(address)
    client = MlflowClient(address)
    experiment = client.create_experiment("demo", artifact_location=str(tmp_path / "artifacts"))
    with pytest.raises(DataError, match=r"no finished run at .* keeps results: run a workflow"):
        latest_run(address)
    ids = []
    for start, (status, results) in enumerate(
        [("FINISHED", True), ("FINISHED", True), ("FINISHED", False), ("FAILED", True)]
    ):
        run = client.create_run(experiment, start_time=1000 + start).info.run_id
        if results:
            client.log_text(run, "{}", f"{ARTIFACTS}/facts.json")
        client.set_terminated(run, status)
        ids.append(run)
    assert latest_run(address) == ids[1]
