"""Qlib's experiment manager over MLflow: safe to begin twice at once, and first to check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from qlib.workflow.expm import MLflowExpManager

from ..config import render
from ..report.database import initialise_database


class TrackingManager(MLflowExpManager):
    """Qlib's manager, which first looks whether the workflow's variables are set.

    Raises
    ------
    ConfigError
        ``qrun`` filled an unset variable of the workflow with nothing.
    DataError
        The SQLite file cannot be written.
    """

    def __init__(self, uri: str, default_exp_name: str | None) -> None:
        check_variables()
        super().__init__(uri, default_exp_name)

    @property
    def client(self) -> Any:
        """MLflow's client, on a database that is ready."""
        initialise_database(self.uri)
        return super().client


def check_variables() -> None:
    """Raise :class:`ConfigError` if the workflow that qrun is running has an unset variable.

    qrun fills it with nothing and tells nobody; its file is rendered again, strictly.
    """
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        frame = caller
        ours = frame.f_code.co_name == "workflow" and "render_template" in frame.f_globals
        if ours and "config_path" in frame.f_locals:
            render(Path(frame.f_locals["config_path"]))
            return
