"""`bpqp check`: what is wrong with a workflow, in seconds, before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    workflow: Annotated[Path, typer.Argument(help="The workflow's YAML file.")],
) -> None:
    """Check a workflow as qrun would before any work, and its prices; nothing is run or written.

    Of a file that Qlib itself cannot read, this says more than qrun does.
    """
    from ..qlib_ext.workflow_checks import check_file

    typer.echo(check_file(workflow))
    typer.echo(f"Nothing is wrong with it. Next: qrun {workflow}")
