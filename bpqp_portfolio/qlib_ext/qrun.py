"""What qrun is running: its workflow's file and what it has read of it, found in its frame."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ..config import render

_FILES = ("qlib/cli/run.py", "qlib\\cli\\run.py")


def workflow_of_qrun() -> tuple[Path, dict[str, Any]] | None:
    """The file of the workflow and the mapping that qrun goes on with; None in another program."""
    frame = _frame()
    return frame and (Path(frame.f_locals["config_path"]), frame.f_locals["config"])


def check_variables() -> None:
    """Render the workflow that qrun is running again, strictly.

    qrun itself fills a variable that is not set with nothing, and reports nothing.

    Raises
    ------
    ConfigError
        A variable without a default is not set.
    """
    frame = _frame()
    if frame is not None:
        render(Path(frame.f_locals["config_path"]))


def _frame() -> FrameType | None:
    """qrun's own frame, since Qlib hands a tracker its own settings alone."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "workflow" and code.co_filename.endswith(_FILES):
            return frame
        frame = frame.f_back
    return None
