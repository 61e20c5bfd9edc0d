"""Qlib's experiment manager over MLflow: safe to begin twice at once, and first to check."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from qlib.workflow.expm import MLflowExpManager

from ..config import render
from ..errors import BPQPError
from ..files.workflow import read_workflow
from ..runs.database import initialise_database
from .components import written_out
from .preflight import check_task

_QRUN = ("qlib/cli/run.py", "qlib\\cli\\run.py")


class TrackingManager(MLflowExpManager):
    """Qlib's manager, the first of a workflow that qrun builds.

    Building it reads the workflow that qrun runs again, as
    :func:`~bpqp_portfolio.files.workflow.read_workflow` does (a block that names another kind
    replaces its base's, a relative ``module_path`` of a .py file lies beside the workflow), and
    checks it, so that a slip is reported before the tracking database is opened. Within qrun, an
    expected error then ends the program with one line and no traceback. The database of a new
    SQLite file is laid out by one process while others wait.

    Parameters
    ----------
    uri : address of the tracker, such as ``sqlite:///mlflow.db``; MLflow 3 takes no folder.
    default_exp_name : experiment of runs that name none.

    Raises
    ------
    ConfigError
        A slip in the task, or an unset variable of the workflow, which qrun filled with nothing.
    DataError
        The SQLite file cannot be written.
    """

    def __init__(self, uri: str, default_exp_name: str | None) -> None:
        self._task = _task_of_qrun()
        if self._task is not None:
            _tell_in_one_line()
            _read_again(self._task)
            check_task(self._task)
        super().__init__(uri, default_exp_name)

    def start_exp(self, **kwargs: Any) -> Any:
        """Start an experiment."""
        if self._task is not None:
            _tell_in_one_line()  # Qlib has set its own hook since
        return super().start_exp(**kwargs)

    @property
    def client(self) -> Any:
        """MLflow's client, on a database that is ready."""
        initialise_database(self.uri)
        return super().client


def check_variables() -> None:
    """Render the workflow that qrun is running again, strictly.

    qrun itself fills a variable that is not set with nothing, and reports nothing.

    Raises
    ------
    ConfigError
        A variable without a default is not set.
    """
    frame = _frame_of_qrun()
    if frame is not None:
        render(Path(frame.f_locals["config_path"]))


def _task_of_qrun() -> dict[str, Any] | None:
    """The task of the workflow that qrun has read; None in any other program."""
    frame = _frame_of_qrun()
    return None if frame is None else frame.f_locals["config"].get("task") or {}


def _read_again(task: dict[str, Any]) -> None:
    """Put what the workflow's file says into the ``task`` that qrun goes on with."""
    frame = _frame_of_qrun()
    assert frame is not None
    path = Path(frame.f_locals["config_path"])
    said = written_out(read_workflow(path).get("task") or {})
    task.clear()
    task.update(said)


def _frame_of_qrun() -> FrameType | None:
    """qrun's own frame, since Qlib hands a tracker its own settings alone."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "workflow" and code.co_filename.endswith(_QRUN):
            return frame
        frame = frame.f_back
    return None


def _tell_in_one_line() -> None:
    """Let an uncaught :class:`BPQPError` end the program with its message alone."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, BPQPError):
            print(f"{kind.__name__}: {error}", file=sys.stderr, flush=True)
        else:
            before(kind, error, trace)

    sys.excepthook = hook
