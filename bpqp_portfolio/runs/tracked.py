"""Finding the results of a run: in a folder, or among the artifacts of a tracked MLflow run."""

from __future__ import annotations

import contextlib
import difflib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .database import check_address, database_file
from .results import RunResults, load_results

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TRACKING_URI = "sqlite:///mlflow.db"
ARTIFACTS = "bpqp/results"
"""Folder among a run's artifacts that holds what ``save_results`` wrote."""
NO_RESULTS = (
    "keeps no results under {where}/: it did not finish, was not made by this package, or its "
    "artifacts lie relative to another working directory."
)
REMEDY = (
    "Give a run's id or a folder of saved results, and name the tracking address by --tracking-uri "
    "or MLFLOW_TRACKING_URI."
)
ENDINGS = {"FAILED": "failed", "KILLED": "was killed", "RUNNING": "has not finished"}
MOST_RUNS = 1000  # that a name is looked up among, the latest


def find_results(run: str | Path, tracking_uri: str | None = None) -> RunResults:
    """Results of ``run``: a folder where there is one of that name, else as :func:`find_run`.

    Raises
    ------
    DataError
        Neither exists, several runs have that name, or the results cannot be read.
    """
    if Path(run).expanduser().is_dir():
        return load_results(run)
    if Path(run).name != str(run) or Path(run).exists():
        raise DataError(f"no folder of saved results at {run}.")
    return download_results(find_run(str(run), tracking_uri), tracking_uri)


def download_results(run_id: str, tracking_uri: str | None = None) -> RunResults:
    """Results that the tracked run ``run_id`` keeps among its artifacts.

    Raises
    ------
    DataError
        There is no tracking database, no such run, or the run keeps no results.
    """
    tracking_uri = tracking_uri or TRACKING_URI
    with download_artifacts(run_id, ARTIFACTS, tracking_uri, missing=NO_RESULTS) as folder:
        return load_results(folder)


@contextlib.contextmanager
def download_artifacts(
    run_id: str, where: str, tracking_uri: str | None = None, *, missing: str
) -> Iterator[Path]:
    """A temporary copy of the folder ``where`` among a run's artifacts.

    Raises
    ------
    DataError
        There is no tracking database, no such run, or the run has no such folder: then the message
        is ``missing``, in which ``{where}`` is the folder.
    """
    tracking_uri = tracking_uri or TRACKING_URI
    client = open_client(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise DataError(
            f"no run {run_id!r} at {tracking_uri} ({error.message}). {REMEDY}"
        ) from error
    if not client.list_artifacts(run_id, where):
        raise DataError(f"run {run_id!r} at {tracking_uri} {missing.format(where=where)}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            copy = Path(client.download_artifacts(run_id, where, scratch))
        except (MlflowException, OSError) as error:
            raise DataError(
                f"run {run_id!r} at {tracking_uri}: its {where}/ cannot be read ({error}); restore "
                "it from a copy, or run its workflow again."
            ) from error
        yield copy


def tag_of(run_id: str, tag: str, tracking_uri: str | None = None) -> str | None:
    """A tag of the tracked run ``run_id``, read from the tracking database; None without one."""
    return open_client(tracking_uri or TRACKING_URI).get_run(run_id).data.tags.get(tag)


def find_run(run: str, tracking_uri: str | None = None) -> str:
    """The id of the run that ``run`` names: an id, a run's name, or the name of its experiment.

    Raises
    ------
    DataError
        None or several finished runs have that name; the message names the nearest, or the several.
    """
    tracking_uri = tracking_uri or TRACKING_URI
    client = open_client(tracking_uri)
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # which says that it is no id
        return str(client.get_run(run).info.run_id)
    experiments = {e.experiment_id: e.name for e in client.search_experiments()}
    runs = client.search_runs(list(experiments), max_results=MOST_RUNS)
    found = [
        r
        for r in runs
        if r.info.status == "FINISHED"
        and run in (r.info.run_name, experiments[r.info.experiment_id])
    ]
    if len(found) == 1:
        return str(found[0].info.run_id)
    if found:
        listed = ", ".join(f"{r.info.run_id} ({_began(r)})" for r in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise DataError(
            f"{len(found)} finished runs at {tracking_uri} are called {run!r}; name one by its "
            f"id: {listed}{more}."
        )
    named = [r for r in runs if run in (r.info.run_name, experiments[r.info.experiment_id])]
    if named:
        last = max(named, key=lambda r: r.info.start_time)
        what = ENDINGS.get(last.info.status, f"is {last.info.status}")
        about = f"({last.info.run_id}, begun {_began(last)}) {what}"
        raise DataError(
            f"the only run called {run!r} at {tracking_uri} {about}: run its workflow again."
            if len(named) == 1
            else f"none of the {len(named)} runs called {run!r} at {tracking_uri} has finished; "
            f"the last {about}: run its workflow again."
        )
    if run in experiments.values():
        raise DataError(f"the experiment {run!r} at {tracking_uri} has no run yet.")
    known = {r.info.run_id for r in runs} | {str(r.info.run_name) for r in runs}
    known |= set(experiments.values())
    close = difflib.get_close_matches(run, sorted(known), n=3, cutoff=0.5)
    hint = f" The nearest: {', '.join(close)}." if close else ""
    raise DataError(
        f"no finished run has the id or name {run!r} at {tracking_uri}.{hint} Give a run's id or "
        "its experiment's name, and the tracking address by --tracking-uri or MLFLOW_TRACKING_URI."
    )


def _began(run: Any) -> str:
    return f"{datetime.fromtimestamp(run.info.start_time / 1000):%Y-%m-%d %H:%M}"


def open_client(tracking_uri: str) -> MlflowClient:
    """MLflow's client of a tracking database that exists and can be read.

    Raises
    ------
    DataError
        There is none, or it is damaged.
    """
    _require_database(tracking_uri)
    # MLflow takes seconds to import, and a report of a folder does not need it.
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(tracking_uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        what = str(error).splitlines()[0]
        raise DataError(
            f"the runs at {tracking_uri} cannot be read ({what}): the file is damaged, or of "
            f"another version of MLflow. {REMEDY}"
        ) from error
    return client


def _require_database(tracking_uri: str) -> None:
    """Refuse an address without runs; an absent SQLite file MLflow would create, empty."""
    check_address(tracking_uri)
    path = database_file(tracking_uri)
    if path is not None and not path.is_file():
        raise DataError(
            f"no tracking database at {path}: run this where the workflow ran, or name the address "
            "by --tracking-uri or MLFLOW_TRACKING_URI."
        )
