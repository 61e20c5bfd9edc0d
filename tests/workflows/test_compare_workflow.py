"""bpqp compare on the demonstration's data: interrupted, started again, and run side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bpqp_portfolio.data.provider.simulate import simulate_market
from bpqp_portfolio.experiments.child import KEY

pytestmark = pytest.mark.slow

COMPARISON = """
workflow: ../workflows/bpqp_demo.yaml
experiment_name: compare_demo
seeds: 2
methods:
  regret:
    title: End to end
    control: mse
    task: {model: {kwargs: {loss: {name: regret, beta: __DROP__}}}}
  mse:
    title: Two-stage
    seeds: 1
    task: {model: {kwargs: {pretrain: __DROP__, loss: {name: mse, beta: __DROP__}}}}
"""


def tagged(workspace):
    if workspace.client.get_experiment_by_name("compare_demo") is None:
        return []
    return [run for run in workspace.runs("compare_demo") if KEY in run.data.tags]


@pytest.fixture(scope="module")
def demo(workspace):
    file = "workflows/bpqp_demo.yaml"
    workspace.shorten(
        file,
        train="2015-04-01 to 2016-03-31",
        valid="2016-04-01 to 2016-06-30",
        test="2016-07-01 to 2016-12-20",
        epochs=1,
    )
    simulate_market(workspace.folder / "data" / "demo", names=30, years=2)
    (workspace.folder / "configs" / "compare.yaml").write_text(COMPARISON)
    return workspace


def heed_interrupts():
    """What a shell starts in the background, and all that this starts, ignores them otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_killed_in_the_middle_and_started_again_it_gives_the_same_table(demo):
    script = Path(sys.executable).with_name("bpqp")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BPQP_", "MLFLOW_"))}
    environment |= {"BPQP_CACHE": str(demo.folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [str(script), "compare", "configs/compare.yaml", "--out", "first"]
    with subprocess.Popen(
        command, cwd=demo.folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, preexec_fn=heed_interrupts,
    ) as first:  # fmt: skip
        deadline = time.monotonic() + 300
        # The second run has begun, so the first is done. The tracker is not asked before: who asks
        # while its tables are being made breaks them.
        second = demo.folder / "first" / "logs" / "mse-seed0.log"
        while not second.exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        first.send_signal(signal.SIGINT)
        out = first.communicate(timeout=60)[0]
    assert first.returncode != 0 and not (demo.folder / "first" / "comparison.md").exists()
    kept = {run.info.run_id for run in tagged(demo)}
    assert len(kept) == 1, out

    again = demo.run("bpqp", "compare", "configs/compare.yaml", "--out", "first", "--jobs", "2")
    assert again.returncode == 0, again.stdout
    finished = tagged(demo)
    assert len(finished) == 3 and kept < {run.info.run_id for run in finished}
    assert sorted(run.info.run_name for run in finished) == [
        "mse-seed0", "regret-seed0", "regret-seed1"
    ]  # fmt: skip
    assert all(run.info.status != "RUNNING" for run in demo.runs("compare_demo"))

    # A third call repeats nothing; the same runs in a tracker of their own give the same figures.
    third = demo.run("bpqp", "compare", "configs/compare.yaml", "--out", "first")
    assert third.returncode == 0 and len(demo.runs("compare_demo")) in (3, 4)
    other = demo.run(
        "bpqp", "compare", "configs/compare.yaml", "--out", "other",
        MLFLOW_TRACKING_URI="sqlite:///other.db",
    )  # fmt: skip
    assert other.returncode == 0, other.stdout
    tables = [
        pd.read_csv(demo.folder / folder / "comparison.csv").drop(
            columns=["epoch_seconds", "run_seconds"]
        )
        for folder in ("first", "other")
    ]
    pd.testing.assert_frame_equal(*tables)


BROKEN = """
from bpqp_portfolio.losses.mse import MeanSquaredError


class Broken(MeanSquaredError):
    def __call__(self, *args, **kwargs):
        raise ArithmeticError("no loss today")
"""


def test_a_misspelt_method_is_named_before_any_run(demo):
    text = COMPARISON.replace("compare_demo", "compare_misspelt")
    text = text.replace("{name: regret, beta", "{name: regrets, beta")
    (demo.folder / "configs" / "misspelt.yaml").write_text(text)
    done = demo.run("bpqp", "compare", "configs/misspelt.yaml")
    assert done.returncode == 1
    assert "methods.regret: unknown loss 'regrets'. Did you mean 'regret'" in done.stdout
    assert demo.client.get_experiment_by_name("compare_misspelt") is None


def test_a_failing_method_is_named_with_its_reason_and_the_others_finish(demo):
    (demo.folder / "broken.py").write_text(BROKEN)
    text = COMPARISON.replace("compare_demo", "compare_broken").replace("seeds: 2", "seeds: 1")
    broken = f"{{class: Broken, module_path: {demo.folder / 'broken.py'}}}"
    text = text.replace("{name: regret, beta: __DROP__}", broken)
    (demo.folder / "configs" / "broken.yaml").write_text(text)
    done = demo.run("bpqp", "compare", "configs/broken.yaml")
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stdout and "regret-seed0: error:" in done.stdout
    assert "no loss today" in " ".join(done.stdout.split())
    (finished,) = (run for run in demo.runs("compare_broken") if KEY in run.data.tags)
    assert finished.info.run_name == "mse-seed0"
    # The table is that of the other, and says what is missing.
    text = (demo.folder / "broken" / "comparison.md").read_text()
    assert "Partial: 1 of 2 runs are missing." in text and "no loss today" in text
    assert "| Two-stage | 1 |" in text and "| End to end |" not in text
