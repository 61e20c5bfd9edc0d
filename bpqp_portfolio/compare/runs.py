"""Running what a comparison still lacks: processes side by side, resumed after an interruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.entities import RunStatus, ViewType
from mlflow.tracking import MlflowClient
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..data.atomic import replacing_file
from ..errors import BPQPError, ConfigError
from ..report.results import RunResults
from ..report.tracked import TRACKING_URI, download_results
from .child import KEY
from .plan import Run

PAGE = 1000


def tracking_uri(run: Run) -> str:
    """Where the workflow tracks its runs."""
    manager = run.config["qlib_init"].get("exp_manager", {})
    return str(manager.get("kwargs", {}).get("uri") or TRACKING_URI)


def finished(runs: Sequence[Run]) -> dict[str, str]:
    """Key → id of the newest finished tracked run, for those of ``runs`` that are finished."""
    client = MlflowClient(tracking_uri(runs[0]))
    wanted = {run.key for run in runs}
    out: dict[str, str] = {}
    for found in _tracked(client, runs[0].config["experiment_name"]):
        key = found.data.tags.get(KEY)
        if key in wanted and found.info.status == RunStatus.to_string(RunStatus.FINISHED):
            out.setdefault(key, found.info.run_id)
    return out


def run_missing(runs: Sequence[Run], out: Path, jobs: int = 1) -> dict[str, str]:
    """Run what is not finished, ``jobs`` at a time, and return key → run id of all.

    The first missing run goes alone, so that the others find its features and risk models cached.
    A failed run does not stop the others. Each run's output is ``out/logs/NAME.log``.

    Raises
    ------
    BPQPError
        Another comparison is at work in ``out``, or runs failed: their names and logs.
    """
    if jobs < 1:
        raise ConfigError(f"jobs: must be >= 1, got {jobs}.")
    for part in ("logs", "specs"):
        (out / part).mkdir(parents=True, exist_ok=True)
    with _alone(out):
        done = finished(runs)
        missing = [run for run in runs if run.key not in done]
        _close_killed(runs)
        failed = _run(missing, out, jobs, len(runs)) if missing else []
    if failed:
        lines = "\n".join(f"  {run.name}: {_last_line(_log(out, run))}" for run in failed)
        raise BPQPError(
            f"{len(failed)} of {len(missing)} runs failed; the whole output is in {out / 'logs'}. "
            f"The finished ones are kept; call again after mending these:\n{lines}"
        )
    return finished(runs)


def collect(runs: Sequence[Run], found: Mapping[str, str]) -> dict[tuple[str, int], RunResults]:
    """The tracked results of finished runs, by (method, seed)."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = tracking_uri(runs[0])
    return {(run.method, run.seed): download_results(found[run.key], uri) for run in runs}


def _run(missing: Sequence[Run], out: Path, jobs: int, total: int) -> list[Run]:
    processes = _Processes(out, jobs)
    failed: list[Run] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[left]}")) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bar = progress.add_task("runs", total=total, completed=total - len(missing), left="")
        waiting, working = list(missing), dict[Future[float], Run]()
        seconds: list[float] = []
        try:
            while waiting or working:
                while waiting and len(working) < (jobs if seconds or failed else 1):
                    run = waiting.pop(0)
                    working[pool.submit(processes.run, run)] = run
                names = ", ".join(run.name for run in working.values())
                progress.update(bar, description=f"runs ({names})")
                for future in wait(working, return_when=FIRST_COMPLETED).done:
                    run = working.pop(future)
                    taken = future.result()
                    if taken < 0:
                        failed.append(run)
                        progress.console.print(f"failed: {run.name}, see {_log(out, run)}")
                    else:
                        seconds.append(taken)
                    if seconds:
                        left = sum(seconds) / len(seconds) * (len(waiting) + len(working)) / jobs
                        progress.update(bar, left=f"about {left / 60:.0f} min left")
                    progress.advance(bar)
        except BaseException:
            processes.stop()
            raise
    return failed


class _Processes:
    """Child processes, all of which end with this one."""

    def __init__(self, out: Path, jobs: int) -> None:
        self.out, self.lock = out, threading.Lock()
        self.alive: set[subprocess.Popen] = set()
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        self.environment = {"OMP_NUM_THREADS": threads, **os.environ}

    def run(self, run: Run) -> float:
        """Seconds that the run took; negative where it failed."""
        spec = self.out / "specs" / f"{run.name}.json"
        with replacing_file(spec) as path:
            path.write_text(json.dumps({"name": run.name, "key": run.key, "config": run.config}))
        started = time.monotonic()
        with _log(self.out, run).open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bpqp_portfolio.compare.child", str(spec)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )
            with self.lock:
                self.alive.add(process)
            code = process.wait()
            with self.lock:
                self.alive.discard(process)
        taken = time.monotonic() - started
        return taken if code == 0 else -taken

    def stop(self) -> None:
        with self.lock:
            for process in self.alive:
                process.terminate()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise BPQPError(
            f"another comparison is at work in {out}; wait for it, or name another folder by --out."
        ) from None


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
    """Mark runs that an interruption left behind as killed, or they look at work for ever."""
    client = MlflowClient(tracking_uri(runs[0]))
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
