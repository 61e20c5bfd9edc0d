"""The project that one works in: the folder of its tracking database, and its latest run."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from .database import database_file
from .tracked import ARTIFACTS, MOST_RUNS, TRACKING_URI, open_client

NO_RUN = (
    "run a workflow there first, such as `bpqp init demo`, then the commands that it prints, or "
    "name a run and its tracking address by BPQP_RUN and MLFLOW_TRACKING_URI."
)


def project_folder(tracking_uri: str = TRACKING_URI) -> Path:
    """The folder that a relative SQLite address is meant from.

    That is the nearest that has the file, the working directory or one above it: notebooks are
    started in a folder below their project. Any other address is the same from everywhere, and
    gives the working directory.

    Raises
    ------
    DataError
        No such folder has the file.
    """
    here, path = Path.cwd(), database_file(tracking_uri)
    if path is None or not path.is_relative_to(here):
        return here
    name = path.relative_to(here)
    for folder in (here, *here.parents):
        if (folder / name).is_file():
            return folder
    raise DataError(f"no tracking database {name} in {here} or above it: {NO_RUN}")


def latest_run(tracking_uri: str = TRACKING_URI) -> str:
    """The id of the last run begun that has finished and keeps results.

    Raises
    ------
    DataError
        There is no tracking database, or none of its runs keeps results.
    """
    client = open_client(tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    newest_first = client.search_runs(
        experiments, "attributes.status = 'FINISHED'", max_results=MOST_RUNS,
        order_by=["attributes.start_time DESC"],
    )  # fmt: skip
    for run in newest_first:
        if client.list_artifacts(run.info.run_id, ARTIFACTS):
            return str(run.info.run_id)
    raise DataError(f"no finished run at {tracking_uri} keeps results: {NO_RUN}")
