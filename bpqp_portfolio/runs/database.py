"""The SQLite file that runs are tracked in: laid out once, by one process at a time."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from ..errors import DataError

SQLITE = "sqlite:///"


def database_file(tracking_uri: str) -> Path | None:
    """The file behind an SQLite address; None for any other address."""
    if not tracking_uri.startswith(SQLITE):
        return None
    name = tracking_uri.removeprefix(SQLITE).partition("?")[0]
    return Path(name).absolute() if name else None


def initialise_database(tracking_uri: str) -> None:
    """Create and migrate the tables of an SQLite address, where that has not been done.

    MLflow itself does so without a lock: of two processes that begin on a new file, one would die.

    Raises
    ------
    DataError
        The file or its folder cannot be written.
    """
    path = database_file(tracking_uri)
    if path is not None:
        _initialise(tracking_uri, path, os.getpid())


@cache
def _initialise(tracking_uri: str, path: Path, process: int) -> None:
    from filelock import FileLock
    from mlflow.tracking import MlflowClient

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            with path.open("ab"):
                pass
            MlflowClient(tracking_uri).search_experiments(max_results=1)
    except OSError as error:
        raise DataError(
            f"runs cannot be tracked in {path}: {error.strerror or error}. Free space there, make "
            "it writable, or name another address by MLFLOW_TRACKING_URI."
        ) from error
