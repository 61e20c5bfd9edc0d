"""What is run, what is kept, what is repeated, and what becomes of a run that fails."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from bpqp_portfolio.errors import BPQPError, ConfigError
from bpqp_portfolio.experiments import runs as module
from bpqp_portfolio.experiments.child import CODE, KEY
from bpqp_portfolio.experiments.code import code_digest
from bpqp_portfolio.experiments.plan import Run
from bpqp_portfolio.experiments.runs import finished, run_missing


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('tracker') / 'mlflow.db'}"


@pytest.fixture
def study(tracker, request, tmp_path, monkeypatch):
    """A comparison of three runs whose children do nothing but what ``ends`` says."""
    return Study(tracker, request.node.name, tmp_path, monkeypatch)


class Study:
    def __init__(self, tracker, name, out, monkeypatch):
        self.client, self.out = MlflowClient(tracker), out
        self.experiment = self.client.create_experiment(name)
        config = {
            "experiment_name": name,
            "qlib_init": {"exp_manager": {"kwargs": {"uri": tracker}}},
        }
        self.runs = [Run(method, 0, config, f"key of {method}") for method in "abc"]
        self.started: list[str] = []
        self.fails: dict[str, int] = {}

        def child(processes, run):
            self.started.append(run.name)
            (processes.out / "logs" / f"{run.name}.log").write_text("line\nerror: the reason\n")
            if run.name in self.fails:
                return 1.0, self.fails[run.name]
            self.track(run)
            return 2.0, 0

        monkeypatch.setattr(module._Processes, "run", child)

    def track(self, run, code=None, status="FINISHED", tagged=True):
        tags = {KEY: run.key, CODE: code or code_digest()} if tagged else {}
        made = self.client.create_run(self.experiment, tags=tags, run_name=run.name)
        if status != "RUNNING":
            self.client.set_terminated(made.info.run_id, status)
        return made.info.run_id

    def __call__(self, **options):
        console = Console(file=io.StringIO(), width=200)
        self.started.clear()
        outcome = run_missing(self.runs, self.out, console=console, **options)
        return outcome, console.file.getvalue()


def test_a_finished_run_is_never_repeated_and_a_killed_one_is(study):
    kept = study.track(study.runs[0])
    killed = study.track(study.runs[1], status="RUNNING", tagged=False)
    outcome, said = study()
    assert study.started == ["b-seed0", "c-seed0"] and "3 runs, 1 of them finished." in said
    assert outcome.found["key of a"].run_id == kept and not outcome.failed
    assert study.client.get_run(killed).info.status == "KILLED"
    outcome, said = study()
    assert study.started == [] and len(outcome.found) == 3 and "3 of them finished" in said


def test_runs_of_other_code_are_repeated_unless_they_are_accepted(study):
    for run, code in zip(study.runs, ("other code", None, "older code"), strict=True):
        study.track(run, code)
    outcome, said = study(accept_other_code=True)
    assert study.started == [] and list(outcome.other_code) == ["a-seed0", "c-seed0"]
    assert "2 runs were made by other code and are accepted." in said
    outcome, said = study()
    assert study.started == ["a-seed0", "c-seed0"] and not outcome.other_code
    assert "2 runs were made by other code and are repeated; --accept-other-code keeps" in said
    # The newest of the code of now stands, even when one of other code is made after it.
    newest = study.track(study.runs[0], "other code")
    assert finished(study.runs)["key of a"].is_current
    assert finished(study.runs)["key of a"].run_id != newest
    assert study()[0].found == study(accept_other_code=True)[0].found


def test_a_run_without_a_word_on_its_code_counts_as_other_code(study):
    made = study.client.create_run(study.experiment, tags={KEY: "key of a"})
    study.client.set_terminated(made.info.run_id)
    assert study()[1].startswith("3 runs, 0 of them finished. 1 run was made by other code and is")
    assert len(study.started) == 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "error: the reason"), (-9, "ended by SIGKILL; its last line: error: the reason")],
)
def test_a_failed_run_has_its_reason_and_does_not_stop_the_others(study, code, reason):
    study.fails["a-seed0"] = code
    outcome, said = study(jobs=2)
    assert dict(outcome.failed) == {"a-seed0": reason}
    assert set(outcome.found) == {"key of b", "key of c"} and len(study.started) == 3
    assert "failed: a-seed0, see" in said and "about 10 s left" in said
    del study.fails["a-seed0"]
    assert len(study()[0].found) == 3 and study.started == ["a-seed0"]


def test_a_failed_repetition_is_not_replaced_by_what_other_code_made(study):
    study.track(study.runs[0], "other code")
    study.fails["a-seed0"] = 1
    outcome, _ = study()
    assert set(outcome.found) == {"key of b", "key of c"} and set(outcome.failed) == {"a-seed0"}


def test_nothing_finished_is_an_error_with_the_reasons(study):
    study.fails = {run.name: 1 for run in study.runs}
    with pytest.raises(BPQPError, match=r"no run is finished. 3 of 3 runs failed") as failure:
        study()
    assert str(failure.value).count("error: the reason") == 3
    with pytest.raises(ConfigError, match="jobs: must be >= 1"):
        study(jobs=0)


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE,
                         start_new_session=True)
child.wait()
"""
CHILD = """
import os, subprocess, time
from bpqp_portfolio.experiments.child import end_with_parent
end_with_parent()
own = subprocess.Popen(["sleep", "600"])
print(os.getpid(), own.pid, flush=True)
time.sleep(600)
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_child_and_what_it_started_end_when_the_parent_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True
    )
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2 and not any(map(gone, pids))
    time.sleep(0.3)
    assert not any(map(gone, pids))  # they wait for the parent's end, not for an input
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while not all(map(gone, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(map(gone, pids))
    parent.stdout.close()
