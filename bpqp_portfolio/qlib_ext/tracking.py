"""The tracker that a workflow names: it checks the task before anything is computed or tracked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from qlib.workflow.expm import MLflowExpManager

from ..errors import BPQPError
from .preflight import check_task


class CheckedExpManager(MLflowExpManager):
    """Qlib's MLflow tracker, the first of a workflow that qrun builds.

    Building it checks the task that qrun has read, so that a slip in a workflow is told before the
    tracking database is opened. Within qrun, an expected error then ends the program with one line
    and no traceback.

    Raises
    ------
    ConfigError
        A slip in the task.
    """

    def __init__(self, uri: str, default_exp_name: str | None) -> None:
        self._task = _task_of_qrun()
        if self._task is not None:
            _tell_in_one_line()
            check_task(self._task)
        super().__init__(uri, default_exp_name)

    def start_exp(self, **kwargs: Any) -> Any:
        """Start an experiment."""
        if self._task is not None:
            _tell_in_one_line()  # Qlib has set its own hook since
        return super().start_exp(**kwargs)


def _task_of_qrun() -> Mapping[str, Any] | None:
    """The task of the workflow that qrun has read; None in any other program.

    Qlib hands a tracker its own settings alone, so this is taken from qrun's own frame.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "workflow" and frame.f_code.co_filename.endswith(QRUN):
            return frame.f_locals["config"].get("task") or {}
        frame = frame.f_back  # type: ignore[assignment]
    return None


QRUN = ("qlib/cli/run.py", "qlib\\cli\\run.py")


def _tell_in_one_line() -> None:
    """Let an uncaught :class:`BPQPError` end the program with its message alone."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, BPQPError):
            print(f"{kind.__name__}: {error}", file=sys.stderr, flush=True)
        else:
            before(kind, error, trace)

    sys.excepthook = hook
