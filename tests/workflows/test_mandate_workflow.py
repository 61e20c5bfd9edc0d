"""The demonstration under a mandate, by its commands: limits kept, failures told."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bpqp_portfolio.data.provider.provider import Provider
from bpqp_portfolio.data.universe.sectors import read_sectors
from bpqp_portfolio.live.snapshot import snapshot
from bpqp_portfolio.runs.artifact import load_run
from bpqp_portfolio.runs.results import load_results

pytest.importorskip("skfolio", reason="the prices come with skfolio")
pytestmark = pytest.mark.slow

FILE = "workflows/mandate_demo.yaml"


@pytest.fixture(scope="module")
def done(workspace):
    """The workspace, the run and what was printed, with fewer years and epochs."""
    workspace.shorten(
        FILE,
        train="2020-07-01 to 2021-12-31",
        valid="2022-01-04 to 2022-06-30",
        test="2022-09-01 to 2022-12-22",
        epochs=1,
    )
    workspace.build("us20", "--to", "data/us20")
    printed = workspace.run("qrun", FILE)
    assert printed.returncode == 0, printed.stdout[-4000:]
    (run,) = workspace.runs("mandate_demo")
    assert run.info.status == "FINISHED"
    return workspace, run, printed.stdout


def artifact(done, name: str):
    workspace, run, _ = done
    path = workspace.client.download_artifacts(run.info.run_id, name)
    if path.endswith(".parquet"):
        return pd.read_parquet(path)
    return pickle.loads(Path(path).read_bytes())


def targets_of(done) -> pd.Series:
    weights = artifact(done, "bpqp/results/weights.parquet")
    return weights.set_index(["datetime", "instrument"])["weight"]


def test_qrun_alone_shows_forty_lines_with_those_that_come_before_it_reads_the_workflow(done):
    _, _, out = done
    assert len(out.splitlines()) <= 40 and "\r" not in out


def test_every_day_is_decided_and_accounted_for(done):
    workspace, run, _ = done
    days = artifact(done, "bpqp/mandate_days.parquet")
    events = load_results(
        workspace.client.download_artifacts(run.info.run_id, "bpqp/results")
    ).events
    metrics = run.data.metrics
    assert len(days) > 70
    assert metrics["bpqp.mandate.fallbacks"] == len(events) == (days["fallback"] != "").sum()
    assert set(days["fallback"]) <= {"", "relax", "hold"}
    assert (days["fallback"] == "").mean() > 0.7
    assert all("cannot meet" in reason for reason in events["reason"])


def test_the_limits_are_kept_on_solved_days(done):
    workspace, run, _ = done
    days = artifact(done, "bpqp/mandate_days.parquet")
    solved = days.index[days["status"] == "solved"]
    assert len(solved) > 0.7 * len(days)
    targets = targets_of(done).unstack(fill_value=0.0)
    targets = targets.loc[solved]
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-9)
    assert targets.to_numpy().max() <= 0.15 + 1e-9
    table = workspace.folder / "workflows" / "mandate_demo_sectors.csv"
    sector = read_sectors(table, solved, targets.columns).of_day(0)
    for name in ("technology", "health"):
        assert targets.loc[:, sector == name].sum(axis=1).max() <= 0.30 + 1e-9
    # The first purchase has no turnover limit.
    assert days.loc[solved, "turnover"].drop(days.index[0], errors="ignore").max() <= 0.05 + 1e-9
    saved = load_run(
        Path(workspace.client.download_artifacts(run.info.run_id, "bpqp/model")), run.info.run_id
    )
    for date in solved[:: len(solved) // 8]:
        day = snapshot(saved, Provider(workspace.folder / "data" / "us20"), f"{date:%Y-%m-%d}")
        loadings, specific = day.batch.loadings[0].numpy(), day.batch.specific[0].numpy()
        active = targets.loc[date].reindex(day.names, fill_value=0.0).to_numpy() - 1 / len(
            day.names
        )
        variance = np.square(active @ loadings).sum() + (specific * active**2).sum()
        assert np.sqrt(252 * variance) <= 0.08 * (1 + 1e-6)


def test_the_report_has_the_mandate(done):
    workspace, run, out = done
    page = (workspace.folder / "data" / "mandate_demo_report.html").read_text()
    for words in ("What was asked", "max_turnover 0.05", "the table mandate_demo_sectors.csv"):
        assert words in page
    results = load_results(workspace.client.download_artifacts(run.info.run_id, "bpqp/results"))
    assert {"max_turnover 0.05"} <= set(results.activity["constraint"])
    assert f"report: {workspace.folder / 'data' / 'mandate_demo_report.html'}" in out


def test_the_next_day_is_decided_from_what_the_backtest_held(done):
    """The command, in the folder of the run, gives the backtest's targets of its last day."""
    workspace, _, _ = done
    targets = targets_of(done)
    positions = artifact(done, "portfolio_analysis/positions_normal_1day.pkl")
    date = targets.index.get_level_values("datetime")[-1]
    held = positions[date].get_stock_amount_dict()
    lines = [f"{name},{float(amount)!r}" for name, amount in held.items()]
    (workspace.folder / "holdings.csv").write_text("\n".join(["instrument,shares", *lines]) + "\n")
    said = workspace.run(
        "bpqp", "weights", "--run", "mandate_demo", "--date", f"{date:%Y-%m-%d}",
        "--holdings", "holdings.csv", "--cash", repr(float(positions[date].get_cash())),
        "--out", "weights.csv", "--json",
    )  # fmt: skip
    assert said.returncode == 0, said.stdout
    summary = json.loads(said.stdout[said.stdout.index("{\n") :])
    assert not summary["first_purchase"] and summary["account"]["cash"] >= 0
    table = pd.read_csv(workspace.folder / "weights.csv").set_index("instrument")
    expected = targets.xs(date, level="datetime")
    got = table["weight"].reindex(expected.index, fill_value=0.0)
    assert np.abs(got - expected).max() < 1e-9
    assert (table["weight"] > 0).sum() == len(expected)


def test_the_notebook_dissects_the_projects_last_run_from_its_own_folder(done):
    """It once looked for the tracking database in notebooks/."""
    workspace, _, _ = done
    outputs = workspace.execute("03_backtest.ipynb")
    said = "\n".join(o.get("data", {}).get("text/markdown", "") for o in outputs)
    assert "**A mandate on 20 US stocks**" in said
    gap = float(said.partition("backtest kept by at most ")[2].split()[0].rstrip("."))
    assert gap < 1e-9
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 8
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    assert {p.name for p in (workspace.folder / "notebooks").iterdir()} == {"03_backtest.ipynb"}
