"""bpqp compare killed in the middle, on a small simulated market, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from bpqp_portfolio.data.provider.simulate import simulate_market
from bpqp_portfolio.experiments.child import CODE, KEY
from bpqp_portfolio.experiments.code import code_digest
from bpqp_portfolio.qlib_ext.handlers import feature_config

ROOT = Path(__file__).parents[2]
KEPT = ("ROC5", "ROC20", "STD20", "RSQR10")
WORKFLOW = f"""
BASE_CONFIG_PATH: {ROOT / "configs" / "portfolio.yaml"}
experiment_name: small
qlib_init:
  provider_uri: market
  region: us
  kernels: 1
  exp_manager: {{kwargs: {{uri: "{{{{ MLFLOW_TRACKING_URI }}}}"}}}}
task:
  dataset:
    kwargs:
      market: sim
      benchmark: SIMIDX
      exclusions: none
      segments:
        train: ["2015-03-02", "2015-07-31"]
        valid: ["2015-08-03", "2015-10-30"]
        test: ["2015-11-02", "2016-03-15"]
      handler:
        kwargs:
          fields: [close]
          horizon: 1
          exclude: {[name for name in feature_config(["close"], [])[1] if name not in KEPT]}
      risk: {{factors: 2, window: 60, min_history: 30}}
      mandate: {{constraints: {{max_weights: 0.25}}}}
  model:
    kwargs:
      predictor: {{hidden: [8]}}
      members: 1
      trainer: {{epochs: 2, batch_days: 20, learning_rate: 1.0e-2}}
"""
COMPARISON = """
workflow: workflow.yaml
experiment_name: small
seeds: 1
block: 10
methods:
  mse:
    title: Two-stage
  paper:
    title: End to end
    control: mse
    task:
      model:
        kwargs:
          loss: {name: squared_regret, beta: 0.1}
          trainer: {epochs: 15, patience: 15}
"""


def command(folder: Path, tracker: str, cache: str) -> subprocess.Popen:
    """``bpqp compare`` at work in ``folder``."""
    ours = ("BPQP_", "MLFLOW_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {
        "BPQP_CACHE": str(folder / cache),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tracker}.db",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bpqp_portfolio.cli", "compare", "compare.yaml", "--out", tracker],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def tracked(folder: Path, tracker: str) -> list:
    """Tracked runs, the last first."""
    if not (folder / f"{tracker}.db").is_file():
        return []
    client = MlflowClient(f"sqlite:///{folder / tracker}.db")
    found = client.get_experiment_by_name("small")
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def in_training(folder: Path, cache: str) -> bool:
    """Has the training of a run finished an epoch, but not the last?"""
    return any((folder / cache / "checkpoints").glob("*.pt"))


def alive(pid: int) -> bool:
    """Is the process there, and no zombie?"""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Ids of the processes that ``pid`` has started."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_killed_in_the_middle_and_started_again_it_gives_the_same_table(tmp_path):
    simulate_market(
        tmp_path / "market", names=14, years=1.25, seed=5, factors=2, signal_ic=0.2, churn=0.15
    )
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    (tmp_path / "compare.yaml").write_text(COMPARISON)

    first = command(tmp_path, "first", "cache")
    deadline = time.monotonic() + 300
    logs = tmp_path / "first" / "logs"
    while first.poll() is None and time.monotonic() < deadline:
        if (logs / "paper-seed0.log").is_file() and in_training(tmp_path, "cache"):
            break
        time.sleep(0.02)
    (worker,) = children(first.pid)
    first.kill()
    said = first.communicate(timeout=60)[0]
    assert first.returncode == -signal.SIGKILL, said
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    # The worker ended in the middle of its training, with the one that had started it.
    assert not alive(worker) and in_training(tmp_path, "cache")
    assert not (tmp_path / "first" / "comparison.md").exists()
    finished = [run for run in tracked(tmp_path, "first") if KEY in run.data.tags]
    assert [run.info.run_name for run in finished] == ["mse-seed0"]
    shutil.copy(tmp_path / "first.db", tmp_path / "other.db")
    ignore = shutil.ignore_patterns("checkpoints")
    shutil.copytree(tmp_path / "cache", tmp_path / "other_cache", ignore=ignore)

    again = command(tmp_path, "first", "cache")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert "2 runs, 1 of them finished." in said and "paper-seed0 took" in said
    runs = {run.info.run_id: run for run in tracked(tmp_path, "first")}
    # The finished run was not repeated, the killed one was, and is closed as killed.
    assert sorted((run.info.run_name, run.info.status) for run in runs.values()) == [
        ("mse-seed0", "FINISHED"),
        ("paper-seed0", "FINISHED"),
        ("paper-seed0", "KILLED"),
    ]
    assert finished[0].info.run_id in runs
    done = [run for run in runs.values() if run.info.status == "FINISHED"]
    assert all(run.data.tags[CODE] == code_digest() for run in done)

    # The same run without an interruption, beside the one that was finished.
    other = command(tmp_path, "other", "other_cache")
    said = other.communicate(timeout=300)[0]
    assert other.returncode == 0, said
    tables = [
        pd.read_csv(tmp_path / name / "comparison.csv").drop(
            columns=["epoch_seconds", "run_seconds"]
        )
        for name in ("first", "other")
    ]
    assert list(tables[0]["method"]) == ["mse", "paper"]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    # What only times differ in is left out: the paired differences are the same to the last digit.
    texts = [(tmp_path / name / "comparison.md").read_text() for name in ("first", "other")]
    pairs = [text.partition("## Each method")[2].partition("\n## ")[0] for text in texts]
    assert pairs[0] == pairs[1] and "| End to end | Two-stage |" in pairs[0]
