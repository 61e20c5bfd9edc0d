"""`bpqp keys`: what a workflow may say."""

from __future__ import annotations

from typing import Annotated

import typer


def keys(
    place: Annotated[
        str,
        typer.Argument(
            help="A block or a key, such as task.model.kwargs.trainer, or its end: trainer.epochs."
        ),
    ] = "",
) -> None:
    """Print the keys of a workflow's block with type, unit and default, and the blocks in it."""
    from rich.console import Console

    from ..reference.screen import print_place

    print_place(place, Console())
