"""The demonstration from its data to the report, by the commands of an installed wheel."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.runs.results import load_results

pytestmark = pytest.mark.slow

TITLE = "End to end on a simulated market"
STAGES = (
    *("data", "features", "risk", "panel", "hindsight", "pretraining", "training"),
    *("weights", "backtest", "truth", "report"),
)


@pytest.fixture(scope="module")
def demo(wheel_project):
    """The installed wheel's project after ``bpqp demo``: fewer names, years and epochs."""
    workspace = wheel_project
    file = "workflows/bpqp_demo.yaml"
    workspace.shorten(
        file,
        train="2015-04-01 to 2016-06-30",
        valid="2016-07-01 to 2016-12-30",
        test="2017-01-02 to 2017-12-31",
        epochs=2,
    )
    workspace.build("simulate", "--to", "data/demo", "--names", "40", "--years", "3")
    done = workspace.run("bpqp", "demo", ".")
    assert done.returncode == 0, done.stdout[-4000:]
    return workspace, done.stdout


@pytest.fixture(scope="module")
def results(demo):
    """What the run keeps for its report."""
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    return load_results(workspace.client.download_artifacts(run.info.run_id, "bpqp/results"))


def test_the_installed_wheel_is_the_one_that_runs(wheel_project, distributions):
    """Outside the checkout: the package, its version and types are the wheel's."""
    version = distributions[1].name.split("-")[1]
    shown = wheel_project.run("bpqp", "--version")
    assert shown.returncode == 0 and shown.stdout.startswith(f"bpqp-portfolio {version}, ")
    code = "import bpqp_portfolio as bp; print(bp.__file__, bp.__version__)"
    asked = wheel_project.run("python", "-c", code)
    file, said = asked.stdout.split()
    package = Path(file).parent
    assert said == version and package.is_relative_to(wheel_project.scripts.parent)
    assert (package / "py.typed").is_file()


def test_the_screen_has_forty_lines_of_what_is_being_done_and_what_came_of_it(demo):
    workspace, out = demo
    lines = out.splitlines()
    assert len(lines) <= 40 and "\r" not in out
    assert lines[-1] == f"report: {workspace.folder / 'data' / 'demo_report.html'}"
    assert "data: simulated, not real: 40 names with a planted signal" in out
    stages = [line.split("]")[0][1:] for line in lines if re.fullmatch(r"\[\w+\] [\d.]+ s", line)]
    assert tuple(stages) == STAGES
    # The demo's test segment ends with its data.
    assert "note: the test segment ends on the calendar's last day; it is cut to" in out
    for row in ("End to end", "Two stages", "True optimum", "Equal weights"):
        assert any(line.startswith(f"{row} ") for line in lines)


def test_the_log_has_the_rest(demo):
    _, out = demo
    (path,) = re.findall(r"^log: (.*)$", out, re.MULTILINE)
    log = Path(path).read_text()
    for text in ("epoch 2/2", "best epoch:", "starts running under Experiment", "[report] ..."):
        assert text in log and text not in out


def test_a_person_finds_the_run(demo):
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    tags, params = run.data.tags, run.data.params
    assert run.info.run_name.startswith("bpqp_demo-") and " " not in run.info.run_name
    assert tags["bpqp.workflow"] == "bpqp_demo.yaml" and tags["bpqp.region"] == "us"
    assert "% a year" in tags["mlflow.note.content"].replace("\N{NO-BREAK SPACE}", " ")
    assert params["record.0.class"] == "SignalRecord"
    assert not [name for name, value in params.items() if "{" in value]


def test_the_run_is_tracked(demo):
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert np.isfinite(metrics["IC"]) and np.isfinite(metrics["bpqp.regret"])
    assert np.isfinite(metrics["1day.excess_return_with_cost.information_ratio"])
    assert metrics["bpqp.regret"] > 0 and metrics["bpqp.kkt_norm"] < 1e-8
    days = metrics["bpqp.solver.solved"]
    assert days > 250 and metrics["bpqp.solver.inaccurate"] == 0
    assert run.data.params["dataset.kwargs.market"] == "sim"


def test_the_truth_judges_every_portfolio(demo, results):
    truth = results.truth
    means = truth.groupby("portfolio").mean(numeric_only=True)
    assert set(means.index) == {"True optimum", "End to end", "Two stages", "Equal weights"}
    regret = means["regret"]
    assert abs(regret["True optimum"]) < 1e-12
    assert (truth["regret"] > -1e-12).all()
    # Another network than the one that the decision loss began with.
    assert regret["Two stages"] != pytest.approx(regret["End to end"], rel=1e-3)
    # Equal weights are what the others are measured by: their own trades alone are paid.
    assert -0.02 < 252 * means.loc["Equal weights", "expected"] < 0
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    tracked = run.data.metrics["bpqp.truth.end_to_end.regret"]
    assert tracked == pytest.approx(regret["End to end"])


def test_paper_and_backtest_agree_on_what_was_earned(results):
    """The truth's table holds targets exactly, the backtest in lots, with halts and some cash."""
    daily = results.daily
    own = results.truth[results.truth["portfolio"] == "End to end"].set_index("datetime")
    # The signal of day t earns on t+2.
    earned = own["realised"].shift(2).reindex(daily.index)
    booked = daily["return"] - daily["cost"] - daily["bench_equal"]
    both = pd.concat([earned, booked], axis=1).iloc[3:].dropna()
    assert len(both) > 200
    assert np.corrcoef(both.T)[0, 1] > 0.98
    assert abs(252 * both.diff(axis=1).iloc[:, 1].mean()) < 0.03


def test_the_page_is_one_file(demo):
    workspace, _ = demo
    page = (workspace.folder / "data" / "demo_report.html").read_text()
    assert TITLE in page and page.rstrip().endswith("</html>")
    for outside in ('src="http', 'href="http', "url(http"):
        assert outside not in page
    assert page.count("<svg") + page.count("data:image/") >= 8


def test_the_report_is_written_again_from_the_tracked_run(demo, results):
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    again = workspace.run("bpqp", "report", run.info.run_id)
    assert again.returncode == 0, again.stdout
    page = workspace.folder / f"report_{run.info.run_id}.html"
    assert again.stdout.strip().endswith(page.name)
    assert TITLE in page.read_text()
    assert results.run_id == run.info.run_id
