"""The command line `bpqp`: thin, every command calls one function of the package.

Start with ``weights.py``: a file is a command, or a group of them (``data.py``). `app` below puts
them together, and `main` is the entry point. A new command is a function in a file and a line in
`app`.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from gym_notices.notices import notices as gym_notices

from ..errors import report_error
from .check import check
from .compare import compare
from .data import data_app
from .demo import demo
from .init import init
from .keys import keys
from .report import report
from .weights import weights

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (demo, init, check, report, weights, compare, keys):
    app.command()(command)
app.add_typer(data_app, name="data")


def _print_versions(asked: bool) -> None:
    """Print this package's version and those of what decides its figures, and stop."""
    if asked:
        own, *others = (f"{name} {version(name)}" for name in ("bpqp-portfolio", "torch", "pyqlib"))
        typer.echo(", ".join([own, f"Python {platform.python_version()}", *others]))
        raise typer.Exit


@app.callback()
def bpqp(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_versions, is_eager=True, help="Print versions and exit."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error, as BPQP_DEBUG=1 does."),
    ] = False,
) -> None:
    """Portfolios from networks that are trained through the optimiser."""
    if debug:
        os.environ["BPQP_DEBUG"] = "1"  # for the processes of a comparison too


def main() -> None:
    """Entry point: an error is one clear line and exit code 1, not a traceback."""
    gym_notices.clear()  # Qlib imports gym, which prints four lines on its retirement
    try:
        app()
    except Exception as error:
        report_error(error)
        sys.exit(1)
