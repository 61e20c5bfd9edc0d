"""The SQLite file that runs are tracked in: laid out once, by one process at a time."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ConfigError, DataError
from ..files.atomic import check_writable

SQLITE = "sqlite:///"
SERVERS = ("http", "https")
DATABASES = ("mysql", "postgresql", "mssql", "databricks")
"""Schemes of addresses, besides SQLite's, that MLflow takes."""
SECONDS = 3.0
"""That a tracking server has to answer."""
ELSEWHERE = "name another address by MLFLOW_TRACKING_URI"
REMEDY = f"Restore it from a copy, or {ELSEWHERE}."
_MAGIC = b"SQLite format 3\0"


def database_file(tracking_uri: str) -> Path | None:
    """The file behind an SQLite address; None for any other address."""
    if not tracking_uri.startswith(SQLITE):
        return None
    name = tracking_uri.removeprefix(SQLITE).partition("?")[0]
    return Path(name).absolute() if name else None


def check_tracking(tracking_uri: str) -> None:
    """Find out before any work whether runs can be tracked at an address.

    Raises
    ------
    ConfigError, DataError
        As :func:`check_address`; or an SQLite file that cannot be written.
    """
    check_address(tracking_uri)
    path = database_file(tracking_uri)
    if path is not None:
        check_writable(path, elsewhere=ELSEWHERE)


def check_address(tracking_uri: str) -> None:
    """Refuse a tracking address that MLflow does not take, or at which nothing answers.

    A server has :data:`SECONDS` to take a connection, since MLflow itself tries for minutes.

    Raises
    ------
    ConfigError
        An address that MLflow does not take.
    DataError
        A file that is no database, or no server answers.
    """
    where = f"the tracking address {tracking_uri!r}"
    scheme = tracking_uri.partition(":")[0].partition("+")[0]
    path = database_file(tracking_uri)
    if path is not None:
        check_database(path)
    elif scheme == "sqlite":
        raise ConfigError(
            f"{where} names no file: write {SQLITE}mlflow.db, with three slashes before a relative "
            "path and four before an absolute one."
        )
    elif scheme in SERVERS:
        _connect(tracking_uri, where)
    elif scheme not in DATABASES:
        raise ConfigError(
            f"{where} is none that MLflow takes: write {SQLITE}mlflow.db for a file, or the "
            "http(s) address of a tracking server. MLflow 3 has given up folders such as ./mlruns."
        )


def check_database(path: Path) -> None:
    """Refuse a file that is no SQLite database; one that is absent or empty will become one.

    Raises
    ------
    DataError
        Its first bytes are others, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}. {REMEDY}") from error
    if head and head != _MAGIC:
        raise DataError(f"{path} is no SQLite database. {REMEDY}")


def _connect(uri: str, where: str) -> None:
    parts = urlsplit(uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), SECONDS).close()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{where} does not answer ({error}): start the server, or {ELSEWHERE}."
        ) from error


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
        check_database(path)
        _initialise(tracking_uri, path, os.getpid())


@cache
def _initialise(tracking_uri: str, path: Path, process: int) -> None:
    from filelock import FileLock
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            with path.open("ab"):
                pass
            MlflowClient(tracking_uri).search_experiments(max_results=1)
    except OSError as error:
        raise DataError(
            f"runs cannot be tracked in {path}: {error.strerror or error}. Free space there, make "
            f"it writable, or {ELSEWHERE}."
        ) from error
    except (MlflowException, SQLAlchemyError) as error:
        raise DataError(
            f"runs cannot be tracked in {path} ({str(error).splitlines()[0]}): it is damaged, or "
            f"of another version of MLflow. {REMEDY}"
        ) from error
