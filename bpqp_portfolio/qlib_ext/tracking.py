"""Qlib's experiment manager over MLflow: safe to begin twice at once, and first to check."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

from qlib.workflow.expm import MLflowExpManager

from ..config import check_keys, check_text
from ..errors import report_error
from ..files.screen import log, quieten
from ..files.workflow import read_workflow
from ..runs.database import initialise_database
from .components import written_out
from .qrun import workflow_of_qrun
from .run_description import code_tags, run_name
from .tracked_experiment import TrackedExperiment
from .workflow_checks import check_workflow


class TrackingManager(MLflowExpManager):
    """Qlib's manager, the first of a workflow that qrun builds.

    Building it reads the workflow that qrun runs again, as
    :func:`~bpqp_portfolio.files.workflow.read_workflow` does (a block that names another kind
    replaces its base's, a relative ``module_path`` of a .py file lies beside the workflow), and
    checks it, so that a slip is reported before the tracking database is opened. Within qrun, an
    error then ends the program with one line, the last on the screen; ``BPQP_DEBUG=1`` shows the
    traceback as well. The database of a new SQLite file is laid out by one process while others
    wait.

    Parameters
    ----------
    uri : address of the tracker, such as ``sqlite:///mlflow.db``; MLflow 3 takes no folder.
    default_exp_name : experiment of runs that name none.

    Raises
    ------
    ConfigError
        A slip in the workflow, or an unset variable of it, which qrun filled with nothing.
    DataError
        Data that are not there, or an output that cannot be written.
    """

    def __init__(self, uri: str, default_exp_name: str | None = "bpqp", **unknown: Any) -> None:
        running = workflow_of_qrun()
        if running is not None:
            path, config = running
            _report_in_one_line()
            said = read_workflow(path)
            check_workflow(said)
            config["task"] = written_out(said["task"])
            name = str(config.get("experiment_name") or "workflow")
            print(f"log: {quieten(name)}", flush=True)
        check_keys(unknown, ("uri", "default_exp_name"), "qlib_init.exp_manager.kwargs")
        check_text(uri, "qlib_init.exp_manager.kwargs.uri", "an address")
        super().__init__(uri, default_exp_name)

    def start_exp(self, **kwargs: Any) -> Any:
        """Start an experiment; a new run of qrun's is called by its workflow and its method."""
        tags, running = code_tags(), workflow_of_qrun()
        if running is not None:
            _report_in_one_line()  # Qlib has set its own hook since
            path, config = running
            tags["bpqp.workflow"] = path.name
            if kwargs.get("recorder_name") is None and not kwargs.get("resume"):
                kwargs["recorder_name"] = run_name(path, config["task"])
        experiment = super().start_exp(**kwargs)
        experiment.active_recorder.set_tags(**tags)
        return experiment

    def create_exp(self, experiment_name: str | None = None) -> TrackedExperiment:
        """A new experiment."""
        return TrackedExperiment.of(super().create_exp(experiment_name), self.uri)

    def _get_exp(
        self, experiment_id: str | None = None, experiment_name: str | None = None
    ) -> TrackedExperiment:
        return TrackedExperiment.of(super()._get_exp(experiment_id, experiment_name), self.uri)

    @property
    def client(self) -> Any:
        """MLflow's client, on a database that is ready."""
        initialise_database(self.uri)
        return super().client


def _report_in_one_line() -> None:
    """Let an uncaught error end the program with its message alone."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log("".join(traceback.format_exception(kind, error, trace)).rstrip())
        report_error(error.with_traceback(trace))

    sys.excepthook = hook
