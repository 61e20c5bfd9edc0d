"""The one family of exceptions, and how a program that ends by one says so: in one line."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from pathlib import Path


class BPQPError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(BPQPError, ValueError):
    """A setting is unknown, missing or outside its range."""


class DataError(BPQPError, ValueError):
    """Market data cannot be used as they are."""


class ProviderError(DataError):
    """A Qlib provider is absent, unreadable or incomplete."""


class DownloadError(DataError):
    """A download failed, was cut short or did not verify."""


class StorageError(DataError, OSError):
    """A file or folder cannot be written: the disk is full, read-only or forbidden."""


class ProblemError(BPQPError, ValueError):
    """An optimisation problem is malformed: shape, finiteness or bounds."""


class SolverError(BPQPError, RuntimeError):
    """A solver did not return an acceptable point."""


class SolverNotInstalledError(BPQPError, ImportError):
    """A solver was asked for by name whose package is not installed."""


def debugging() -> bool:
    """Whether the user asks for tracebacks, by BPQP_DEBUG with any value but 0 or none."""
    return os.environ.get("BPQP_DEBUG", "") not in ("", "0")


def explain(error: BaseException) -> str:
    """What ends a program, in one line that begins with ``error:``.

    An error of this package is its message. Of any other, which was not foreseen, it is the place
    as well, in the user's own file or the package where the traceback goes through one, and how to
    see the whole traceback.

    >>> explain(ConfigError("epochs: must be >= 1, got 0."))
    'error: epochs: must be >= 1, got 0.'
    """
    if isinstance(error, BPQPError):
        return f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "error: interrupted."
    said = " ".join(str(error).split())
    return (
        f"error: {type(error).__name__}{': ' if said else ''}{said[:400]} (at {_place(error)}). "
        f"This error was not foreseen: BPQP_DEBUG=1 shows the whole traceback."
    )


def report_error(error: BaseException) -> None:
    """Print what ends a program on stderr, last: its one line, after a traceback if asked for."""
    sys.stdout.flush()
    if debugging():
        traceback.print_exception(error)
    print(explain(error), file=sys.stderr, flush=True)


def _place(error: BaseException) -> str:
    """File, line and function of the last frame that is the user's or this package's."""
    package, paths = Path(__file__).parent, sysconfig.get_paths()
    libraries = [Path(paths[key]) for key in ("stdlib", "purelib", "platlib")]
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    ours = [
        frame
        for frame in frames
        if package in (path := Path(frame.filename)).parents
        or not any(library in path.parents for library in libraries)
    ]
    frame = (ours or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}"
