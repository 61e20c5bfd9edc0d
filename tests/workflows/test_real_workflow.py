"""A short version of the CSI 300 workflow on the real data, by qrun."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bpqp_portfolio.data.provider.provider import Provider

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

SEGMENTS = {
    "BPQP_TRAIN_START": "2015-01-05",
    "BPQP_TRAIN_END": "2015-12-31",
    "BPQP_VALID_START": "2016-01-04",
    "BPQP_VALID_END": "2016-03-31",
    "BPQP_TEST_START": "2016-04-01",
    "BPQP_TEST_END": "2016-08-31",
}


@pytest.fixture(scope="module")
def finished(workspace, real_provider):
    """The output and the tracked run of one year, two epochs and the features of the close."""
    workspace.edit("configs/portfolio.yaml", r"epochs: \d+", "epochs: 2")
    workspace.edit(
        "configs/portfolio.yaml", r"fields: \[.*\]", "fields: [close]\n          exclude: []"
    )
    done = workspace.run(
        "qrun",
        "workflows/bpqp_csi300.yaml",
        BPQP_PROVIDER_URI=str(real_provider),
        **SEGMENTS,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    (run,) = workspace.runs("bpqp_csi300")
    return done.stdout, run


def test_it_ends_with_the_final_table(finished):
    out, run = finished
    table = out[out.index("Portfolio, without cost") :]
    assert len(out.splitlines()) <= 40
    for row in (
        "Over index, with cost",
        "Over equal weights, with cost",
        "Rank IC",
        "One-way turnover a day",
    ):
        assert row in table
    page = Path(out.splitlines()[-1].removeprefix("report: "))
    assert run.info.run_id in page.parts and "</html>" in page.read_text(encoding="utf-8")


def test_the_checks_exclusions_are_applied(finished):
    """The real data hold wrong adjustment factors, which the check finds."""
    out, run = finished
    assert "moves excluded" in out
    assert run.data.params["dataset.kwargs.exclusions"] == "check"


def test_its_metrics_are_in_the_tracker(finished, real_provider):
    _, run = finished
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert {
        "IC",
        "Rank IC",
        "1day.excess_return_with_cost.information_ratio",
        "1day.excess_return_without_cost.annualized_return",
        "bpqp.train_decision",
        "bpqp.valid_decision",
        "bpqp.turnover",
        "bpqp.seconds.training",
    } <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())
    days = Provider(real_provider).calendar
    days = days[(days >= SEGMENTS["BPQP_TEST_START"]) & (days <= SEGMENTS["BPQP_TEST_END"])]
    # On the last day nothing is decided any more.
    assert metrics["bpqp.solver.solved"] == len(days) - 1 > 100
    assert metrics["bpqp.solver.inaccurate"] == metrics["bpqp.solver.primal_infeasible"] == 0
    assert metrics["bpqp.regret"] > 0 and metrics["bpqp.kkt_norm"] < 1e-8
    assert 10 < metrics["bpqp.names_held"] < 300
