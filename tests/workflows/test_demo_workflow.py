"""The demonstration from its data to the report, by its commands."""

from __future__ import annotations

import numpy as np
import pytest

from bpqp_portfolio.runs.results import load_results

pytest.importorskip("skfolio", reason="the demo's prices come with skfolio")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(workspace):
    """The workspace after ``bpqp data demo`` and ``qrun``, with fewer years and epochs."""
    file = "workflows/bpqp_demo.yaml"
    workspace.shorten(
        file,
        train="2010-01-04 to 2013-12-31",
        valid="2014-01-02 to 2014-12-31",
        test="2021-07-01 to 2022-12-28",
        epochs=2,
    )
    done = workspace.run("qrun", file)
    assert done.returncode == 0, done.stdout[-4000:]
    return workspace, done.stdout


def test_the_terminal_ends_with_the_table_and_the_place_of_the_report(demo):
    workspace, out = demo
    stages = ("data", "features", "risk", "panel", "hindsight", "training", "weights", "backtest")
    places = [out.index(f"[{stage}]") for stage in (*stages, "report")]
    assert places == sorted(places)
    # The demo's test segment ends with its data.
    assert "note: the test segment ends on the calendar's last day; it is cut to" in out
    assert "epoch 2/2" in out and "epoch 3" not in out
    table = out[out.index("Result of the run") :]
    for row in ("Portfolio, with cost", "Over index, with cost", "Over equal weights, with cost"):
        assert row in table
    for row in ("IC", "Rank IC", "Regret a day", "One-way turnover a day", "Names held"):
        assert row in table
    assert f"report: {workspace.folder / 'data' / 'demo_report.html'}" in table


def test_the_run_is_tracked(demo):
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert np.isfinite(metrics["IC"]) and np.isfinite(metrics["bpqp.regret"])
    assert np.isfinite(metrics["1day.excess_return_with_cost.information_ratio"])
    assert metrics["bpqp.regret"] > 0 and metrics["bpqp.kkt_norm"] < 1e-8
    days = metrics["bpqp.solver.solved"]
    assert days > 350 and metrics["bpqp.solver.inaccurate"] == 0
    assert run.data.params["dataset.kwargs.market"] == "sp20"


def test_the_page_is_one_file(demo):
    workspace, _ = demo
    page = (workspace.folder / "data" / "demo_report.html").read_text()
    assert "BPQP on 20 US stocks" in page and page.rstrip().endswith("</html>")
    for outside in ('src="http', 'href="http', "url(http"):
        assert outside not in page
    assert page.count("<svg") + page.count("data:image/") >= 8


def test_the_report_is_written_again_from_the_tracked_run(demo):
    workspace, _ = demo
    (run,) = workspace.runs("bpqp_demo")
    again = workspace.run("bpqp", "report", run.info.run_id)
    assert again.returncode == 0, again.stdout
    page = workspace.folder / f"report_{run.info.run_id}.html"
    assert again.stdout.strip().endswith(page.name)
    assert "BPQP on 20 US stocks" in page.read_text()
    kept = workspace.client.download_artifacts(run.info.run_id, "bpqp/results")
    assert load_results(kept).run_id == run.info.run_id
