"""Running what a comparison still lacks: processes side by side, resumed after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities import RunStatus, ViewType
from mlflow.tracking import MlflowClient
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import BPQPError, ConfigError
from ..files.atomic import make_folder, replacing_file
from ..runs.database import initialise_database
from ..runs.results import RunResults
from ..runs.tracked import TRACKING_URI, download_results
from .child import CODE, KEY
from .code import code_digest
from .estimate import Estimate, as_text
from .plan import Run

PAGE = 1000
SECOND = 1.0  # between two looks at the clock


@dataclass(frozen=True)
class Tracked:
    """A finished run in the tracker: its id, the code that made it, and what it took."""

    run_id: str
    code: str | None
    seconds: float

    @property
    def is_current(self) -> bool:
        """Did the code of now make it?"""
        return self.code == code_digest()


@dataclass(frozen=True)
class Outcome:
    """What a comparison has after a call.

    ``found`` by key the tracked run of each finished one; ``failed`` by name of a run the reason;
    ``other_code`` names of those that other code made and that were accepted.
    """

    found: Mapping[str, Tracked]
    failed: Mapping[str, str]
    other_code: Sequence[str] = ()


def tracking_uri(run: Run) -> str:
    """Where the workflow tracks its runs."""
    manager = run.config["qlib_init"].get("exp_manager", {})
    return str(manager.get("kwargs", {}).get("uri") or TRACKING_URI)


def finished(runs: Sequence[Run]) -> dict[str, Tracked]:
    """Key → the finished tracked run, for those of ``runs`` that are finished.

    The newest, but one of the code of now before one of other code.
    """
    client = _client(runs)
    wanted = {run.key for run in runs}
    out: dict[str, Tracked] = {}
    for found in _tracked(client, runs[0].config["experiment_name"]):
        key, info = found.data.tags.get(KEY), found.info
        if key not in wanted or info.status != RunStatus.to_string(RunStatus.FINISHED):
            continue
        seconds = (info.end_time - info.start_time) / 1000
        this = Tracked(info.run_id, found.data.tags.get(CODE), seconds)
        if key not in out or (this.is_current and not out[key].is_current):
            out[key] = this
    return out


def run_missing(
    runs: Sequence[Run],
    out: Path,
    jobs: int = 1,
    *,
    accept_other_code: bool = False,
    console: Console | None = None,
) -> Outcome:
    """Run what is not finished, ``jobs`` at a time.

    The first missing run goes alone, so that the others find its features and risk models cached.
    A failed run does not stop the others. Each run's output is ``out/logs/NAME.log``. A run that
    other code made (see :func:`~.code.code_digest`) is made again, unless they are accepted.

    Raises
    ------
    ConfigError
        ``jobs`` is below 1.
    BPQPError
        Another comparison is running in ``out``, or no run of the comparison is finished.
    """
    if jobs < 1:
        raise ConfigError(f"jobs: must be >= 1, got {jobs}.")
    console = console or Console()
    for part in ("logs", "specs"):
        make_folder(out / part)
    with _alone(out):
        done = finished(runs)
        current = {k: t for k, t in done.items() if accept_other_code or t.is_current}
        missing = [run for run in runs if run.key not in current]
        other = sum(not tracked.is_current for tracked in done.values())
        console.print(
            f"{len(runs)} runs, {len(current)} of them finished."
            + _other_code_note(other, accept_other_code),
            highlight=False,
            soft_wrap=True,
        )
        _close_killed(runs)
        known: dict[str, list[float]] = {}
        for run in runs:
            if run.key in done:
                known.setdefault(run.method, []).append(done[run.key].seconds)
        failed = _run(missing, out, Estimate(known, jobs), jobs, len(runs), console)
    found = {k: t for k, t in finished(runs).items() if accept_other_code or t.is_current}
    for run in runs:
        if run.key not in found and run.name not in failed:
            failed[run.name] = "it ended without a message, and is not among the tracked runs"
    if not found:
        raise BPQPError(f"no run is finished. {failure_report(failed, len(runs), out)}")
    other_code = [r.name for r in runs if r.key in found and not found[r.key].is_current]
    return Outcome(found, failed, other_code)


def failure_report(failed: Mapping[str, str], total: int, out: Path) -> str:
    """The names and reasons of failed runs, and where their output is, as text."""
    lines = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
    return (
        f"{len(failed)} of {total} runs failed; the whole output is in {out / 'logs'}. The "
        f"finished ones are kept; call again when these are mended:\n{lines}"
    )


def collect(
    runs: Sequence[Run], found: Mapping[str, Tracked]
) -> tuple[dict[tuple[str, int], RunResults], dict[tuple[str, int], float]]:
    """The tracked results of finished runs, and the seconds that each took, by (method, seed)."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = tracking_uri(runs[0])
    there = {(run.method, run.seed): found[run.key] for run in runs if run.key in found}
    results = {name: download_results(tracked.run_id, uri) for name, tracked in there.items()}
    return results, {name: tracked.seconds for name, tracked in there.items()}


def _other_code_note(older: int, accepted: bool) -> str:
    if not older:
        return ""
    what, which = ("1 run was", "is") if older == 1 else (f"{older} runs were", "are")
    if accepted:
        return f" {what} made by other code and {which} accepted."
    return f" {what} made by other code and {which} repeated; --accept-other-code keeps what is."


def _run(
    missing: Sequence[Run], out: Path, estimate: Estimate, jobs: int, total: int, console: Console
) -> dict[str, str]:
    """Run all of ``missing`` and return the reasons of those that failed, by name."""
    failed: dict[str, str] = {}
    if not missing:
        return failed
    processes, alone = _Processes(out, jobs), True
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(
            *columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=console
        ) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bar = progress.add_task("runs", total=total, completed=total - len(missing), left="")
        waiting, working = list(missing), dict[Future[tuple[float, int]], tuple[Run, float]]()
        try:
            while waiting or working:
                while waiting and len(working) < (1 if alone else jobs):
                    run = waiting.pop(0)
                    working[pool.submit(processes.run, run)] = run, time.monotonic()
                ended = wait(working, SECOND, FIRST_COMPLETED).done
                lines = []
                for future in ended:
                    (run, _), (taken, code) = working.pop(future), future.result()
                    if code:
                        failed[run.name] = _reason(code, _log(out, run))
                        lines.append(f"failed: {run.name}, see {_log(out, run)}")
                    else:
                        estimate.add(run.method, taken)
                        lines.append(f"{run.name} took {taken:.0f} s")
                    alone = False
                now = time.monotonic()
                at_work = [(run.method, now - since) for run, since in working.values()]
                left = as_text(estimate.left([run.method for run in waiting], at_work))
                done = total - len(waiting) - len(working)
                names = ", ".join(run.name for run, _ in working.values())
                progress.update(bar, description=f"runs ({names})", completed=done, left=left)
                for line in lines:
                    note = f"{done} of {total}: {line}; {left}"
                    progress.console.print(note, highlight=False, soft_wrap=True)
        except BaseException:
            processes.stop()
            raise
    return failed


def _reason(code: int, log: Path) -> str:
    """Why a process failed: its last line, and what ended it."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}; its last line: {_last_line(log)}"
    return _last_line(log)


class _Processes:
    """Child processes, all of which end with this one, however it ends."""

    def __init__(self, out: Path, jobs: int) -> None:
        self.out, self.lock = out, threading.Lock()
        self.alive: set[subprocess.Popen] = set()
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        self.environment = {"OMP_NUM_THREADS": threads, **os.environ}

    def run(self, run: Run) -> tuple[float, int]:
        """Seconds that the run took, and the exit code of its process."""
        spec = self.out / "specs" / f"{run.name}.json"
        what = {"name": run.name, "key": run.key, "code": code_digest(), "config": run.config}
        with replacing_file(spec) as path:
            path.write_text(json.dumps(what))
        started = time.monotonic()
        with _log(self.out, run).open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bpqp_portfolio.experiments.child", str(spec)],
                stdin=subprocess.PIPE,  # its end is that of this process, see end_with_parent
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
            with self.lock:
                self.alive.add(process)
            code = process.wait()
            with self.lock:
                self.alive.discard(process)
            process.stdin.close()  # type: ignore[union-attr]
        return time.monotonic() - started, code

    def stop(self) -> None:
        """End all of them, and what they started."""
        with self.lock:
            for process in self.alive:
                with suppress(ProcessLookupError):  # it has ended, and is not waited for yet
                    os.killpg(process.pid, signal.SIGTERM)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise BPQPError(
            f"another comparison is running in {out}; wait for it, or name another folder by --out."
        ) from None


def _client(runs: Sequence[Run]) -> MlflowClient:
    uri = tracking_uri(runs[0])
    initialise_database(uri)
    return MlflowClient(uri)


def _tracked(client: MlflowClient, experiment: str) -> list:
    """All tracked runs of the experiment, the newest first."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    runs: list = []
    token = None
    while True:
        page = client.search_runs(
            [found.experiment_id],
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=PAGE,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _close_killed(runs: Sequence[Run]) -> None:
    """Mark runs that an interruption left behind as killed, or they would count as running."""
    client = _client(runs)
    names = {run.name for run in runs}
    running = RunStatus.to_string(RunStatus.RUNNING)
    for found in _tracked(client, runs[0].config["experiment_name"]):
        if found.info.status == running and found.info.run_name in names:
            client.set_terminated(found.info.run_id, RunStatus.to_string(RunStatus.KILLED))


def _log(out: Path, run: Run) -> Path:
    return out / "logs" / f"{run.name}.log"


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
