"""What a workflow shows on the screen, and the log file that has the rest."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from .atomic import make_folder, writing
from .cache import cache_root

FOREIGN = ("qlib", "mlflow", "alembic", "sqlalchemy", "gym", "lightgbm")
"""Packages whose prints go to the log alone."""
_HELPERS = ("pprint", "rich", "tqdm", "logging", "contextlib")
"""Packages that print for whoever calls them."""
_log: TextIO | None = None


class _Screen:
    """A stream to the terminal, copied to the log; what FOREIGN packages print is only there.

    ``status`` is a line that the next one takes the place of.
    """

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log
        self.status = ""

    def write(self, text: str) -> int:
        self._log.write(text)
        if not _is_foreign():
            if self.status:
                self._stream.write("\r\x1b[2K")
                self.status = ""
            self._stream.write(text)
            if "\n" in text:  # a pipe shows both streams in the order of their lines
                self._stream.flush()
        return len(text)

    def show_status(self, text: str) -> None:
        """Show ``text`` until the next line, on a terminal."""
        if self._stream.isatty():
            self.status = text
            self._stream.write(f"\r\x1b[2K{text}")
            self.flush()

    def flush(self) -> None:
        self._log.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_foreign() -> bool:
    """Whether a package of FOREIGN is printing, itself or by a helper."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        root = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if root not in _HELPERS and frame.f_globals is not globals():
            return root in FOREIGN
        frame = frame.f_back
    return False


def quieten(name: str) -> Path:
    """From now on, show what this package and the user's own code print, and log the rest.

    Logging of other packages, warnings, and what other programs write to the error stream go to
    the log alone; errors that end the program still show. The log also has what was shown, and
    :func:`detail`. A second call changes nothing.

    Returns the log's path, in the cache's folder ``logs``.

    Raises
    ------
    StorageError
        The log cannot be written.
    """
    global _log
    if _log is not None:
        return Path(_log.name)
    path = cache_root() / "logs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    make_folder(path.parent)
    with writing(path):
        _log = path.open("w", encoding="utf-8", buffering=1)
    # Handlers of logging and other programs hold on to the old stream: it becomes the log.
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        terminal: TextIO = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        os.dup2(_log.fileno(), 2)
    except OSError:  # an error stream without a file, as in a notebook
        terminal = sys.stderr
    sys.stderr = _Screen(terminal, _log)  # type: ignore[assignment]
    sys.stdout = _Screen(sys.stdout, _log)  # type: ignore[assignment]
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.StreamHandler(_log))
    return path


def log(text: str) -> bool:
    """Write a line to the log; False where there is none."""
    if _log is not None:
        _log.write(f"{text}\n")
    return _log is not None


def detail(text: str) -> None:
    """Write a line to the log; where there is none, print it."""
    if not log(text):
        print(text, flush=True)


def status(text: str) -> None:
    """A line that says what is being done: in the log, and on a terminal until the next line."""
    detail(text)
    if isinstance(sys.stdout, _Screen):
        sys.stdout.show_status(text)
