"""Finding the results of a run: in a folder, or among the artifacts of a tracked MLflow run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import DataError
from .results import RunResults, load_results

TRACKING_URI = "sqlite:///mlflow.db"
ARTIFACTS = "bpqp/results"
"""Folder among a run's artifacts that holds what ``save_results`` wrote."""


def find_results(run: str | Path, tracking_uri: str | None = None) -> RunResults:
    """Results of ``run``: a folder where there is one of that name, a tracked run's id otherwise.

    Raises :class:`DataError` where neither exists or the results cannot be read.
    """
    if Path(run).expanduser().is_dir():
        return load_results(run)
    if Path(run).name != str(run) or Path(run).exists():
        raise DataError(f"no folder of saved results at {run}.")
    return download_results(str(run), tracking_uri)


def download_results(run_id: str, tracking_uri: str | None = None) -> RunResults:
    """Results that the tracked run ``run_id`` keeps among its artifacts.

    Raises :class:`DataError` where there is no tracking database, no such run, or the run keeps
    no results.
    """
    tracking_uri = tracking_uri or TRACKING_URI
    _require_database(tracking_uri)
    # MLflow takes seconds to import, and a report of a folder does not need it.
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise DataError(
            f"no run {run_id!r} at {tracking_uri} ({error.message}). Give a run's id or a folder "
            "of saved results, and name the tracking address by --tracking-uri or "
            "MLFLOW_TRACKING_URI."
        ) from error
    if not client.list_artifacts(run_id, ARTIFACTS):
        raise DataError(
            f"run {run_id!r} at {tracking_uri} keeps no results under {ARTIFACTS}/: it did not "
            "finish, was not made by this package, or its artifacts lie relative to another "
            "working directory."
        )
    with tempfile.TemporaryDirectory() as scratch:
        return load_results(client.download_artifacts(run_id, ARTIFACTS, scratch))


def _require_database(tracking_uri: str) -> None:
    """Refuse an absent SQLite file, which MLflow would silently create, empty."""
    if tracking_uri.startswith("sqlite:///"):
        path = Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])
        if not path.is_file():
            raise DataError(
                f"no tracking database at {path.absolute()}: run this where the workflow ran, or "
                "name the address by --tracking-uri or MLFLOW_TRACKING_URI."
            )
