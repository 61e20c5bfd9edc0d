"""`bpqp init`: a starter project in a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project.")],
    market: Annotated[
        str,
        typer.Option(
            help="demo: nothing else is needed; cn: CSI 300; us: prices of your own, imported "
            "into DIR/data/us before."
        ),
    ] = "demo",
    provider: Annotated[
        Path | None,
        typer.Option(help="With --market us: the folder that the prices were imported into."),
    ] = None,
) -> None:
    """Write a starter project: workflows, the settings they share, notebooks, a README.

    The segments, fields and limits of a project of your own prices follow from these. Nothing is
    overwritten.
    """
    from ..experiments.starter import write_starter

    commands = write_starter(folder, market, provider)
    typer.echo(f"A starter project is in {folder}. Next:\n")
    typer.echo(
        "\n".join(f"    {command}" for command in (f"cd {shlex.quote(str(folder))}", *commands))
    )
