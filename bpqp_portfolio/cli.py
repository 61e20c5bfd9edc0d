"""The command line `bpqp`: thin, every command calls one function of the package."""

from __future__ import annotations

import sys

import typer

from .errors import BPQPError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(no_args_is_help=True, help="Get, import, check and simulate market data.")
app.add_typer(data_app, name="data")


@app.callback()
def bpqp() -> None:
    """Portfolios from networks that are trained through the optimiser."""


def main() -> None:
    """Entry point: an expected error is one clear line and exit code 1, not a traceback."""
    try:
        app()
    except BPQPError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
