"""`bpqp report`: the HTML page of a run, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import TrackingUri


def report(
    run: Annotated[
        str, typer.Argument(help="Folder of saved results, or a tracked run's id or unique name.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; report_RUN.html by default.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write the HTML report of a run again, and print its path."""
    from ..files.atomic import check_writable
    from ..report.page import write_report
    from ..runs.tracked import find_results

    page = out or Path(f"report_{Path(run).resolve().name}.html")
    check_writable(page, elsewhere="name another file by --out")
    typer.echo(write_report(find_results(run, tracking_uri), page))
