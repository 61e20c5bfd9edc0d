"""`bpqp report`: from a folder, from a tracked run, and clear errors for anything else."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

from bpqp_portfolio.cli import app
from bpqp_portfolio.errors import DataError
from bpqp_portfolio.runs.results import save_results
from bpqp_portfolio.runs.tracked import find_results


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def small(run, changed):
    """A run with little to draw."""
    nothing = pd.DataFrame()
    tables = dict.fromkeys(("signal", "weights", "realised", "epochs"), nothing)
    return changed(daily=run.daily[["return"]], **tables)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with no tracking address from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return tmp_path


@pytest.fixture(scope="module")
def tracked(small, tmp_path_factory) -> tuple[str, str, str]:
    """Tracking address, the id of a run with results, and of one without."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    artifacts = (folder / "artifacts").as_uri()
    experiment = client.create_experiment("report", artifact_location=artifacts)
    full = client.create_run(experiment).info.run_id
    bare = client.create_run(experiment).info.run_id
    client.log_artifacts(full, str(save_results(small, folder / "results")), "bpqp/results")
    return uri, full, bare


def test_report_of_a_folder(small, here):
    folder = save_results(small, here / "saved")
    result = invoke(str(folder), "--out", "page.html")
    assert result.exit_code == 0
    assert result.stdout.strip() == "page.html"
    assert small.run_id in (here / "page.html").read_text(encoding="utf-8")


def test_default_name_of_the_page(small, here):
    save_results(small, here / "saved")
    assert invoke("saved").stdout.strip() == "report_saved.html"
    assert (here / "report_saved.html").is_file()


def test_report_of_a_tracked_run(small, here, tracked):
    uri, full, _ = tracked
    result = invoke(full, "--tracking-uri", uri)
    assert result.stdout.strip() == f"report_{full}.html"
    assert small.name in (here / f"report_{full}.html").read_text(encoding="utf-8")


def test_report_of_an_experiments_only_finished_run(small, here, tracked):
    uri, full, _ = tracked
    from mlflow.tracking import MlflowClient

    MlflowClient(uri).set_terminated(full)
    assert invoke("report", "--tracking-uri", uri).stdout.strip() == "report_report.html"
    assert small.name in (here / "report_report.html").read_text(encoding="utf-8")


def test_address_from_the_environment(here, tracked, monkeypatch):
    uri, full, _ = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert invoke(full, "--out", "page.html").exit_code == 0
    assert (here / "page.html").is_file()


def test_unknown_run(here, tracked):
    with pytest.raises(DataError, match=r"no finished run .* name '0123'.*--tracking-uri"):
        find_results("0123", tracked[0])


def test_run_without_results(here, tracked):
    uri, _, bare = tracked
    with pytest.raises(DataError, match=f"{bare}.*keeps no results under bpqp/results/"):
        find_results(bare, uri)


def test_no_database_is_created_by_looking(here):
    with pytest.raises(DataError, match=r"no tracking database at .*mlflow\.db"):
        find_results("0123")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("run", ["some/folder", "page.html"])
def test_neither_folder_nor_run(here, run):
    (here / "page.html").write_text("a file")
    with pytest.raises(DataError, match="no folder of saved results"):
        find_results(run)


def test_foreign_folder(here):
    (here / "other").mkdir()
    with pytest.raises(DataError, match=r"no saved results in other: it has no results\.json"):
        find_results("other")
