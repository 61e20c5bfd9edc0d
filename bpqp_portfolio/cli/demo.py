"""`bpqp demo`: from nothing to a report in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the demonstration.")],
) -> None:
    """Train end to end on a simulated market, beside two stages, and judge both by its truth.

    Writes the starter project `demo` and its market into DIR, where they are not there yet, and
    runs its workflow. Nothing is downloaded.
    """
    from ..experiments.demo import run_demo

    run_demo(folder)
