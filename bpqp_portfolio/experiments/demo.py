"""The demonstration: its project, its market and its workflow, in one process."""

from __future__ import annotations

import os
from pathlib import Path

from ..data.provider.simulate import TRUTH, simulate_market
from ..files.screen import quieten
from .starter import STARTERS, write_starter

DATA = Path("data/demo")


def run_demo(folder: Path) -> None:
    """Write project and market into ``folder``, where they are not there yet, and run the workflow.

    Raises
    ------
    ConfigError, StorageError
        The folder holds something else in their place, or cannot be written.
    """
    folder = Path(folder).expanduser()
    workflow = Path("workflows") / STARTERS["demo"].main
    if not (folder / workflow).is_file():
        write_starter(folder, "demo")
    # As qrun does, the workflow finds its data, and leaves its runs, in the folder it is run from.
    os.chdir(folder)
    os.environ["BPQP_PROVIDER_URI"] = str(DATA)
    # Before Qlib is imported, whose libraries greet with lines of their own.
    quieten(workflow.stem)
    if not (DATA / TRUTH).is_file():
        simulate_market(DATA, progress=True)
    from qlib.cli.run import workflow as run_workflow

    run_workflow(str(workflow))
