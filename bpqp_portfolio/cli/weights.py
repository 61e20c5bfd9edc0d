"""`bpqp weights`: what to hold on a day."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import TrackingUri


def weights(
    run: Annotated[str, typer.Option(help="A tracked run's id or unique name.")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    date: Annotated[
        str | None, typer.Option(help="Trading day; by default the last one with data.")
    ] = None,
    holdings: Annotated[
        Path | None, typer.Option(help="CSV file of what is held: instrument,shares.")
    ] = None,
    cash: Annotated[float | None, typer.Option(help="Cash, in currency.")] = None,
    provider: Annotated[
        Path | None,
        typer.Option(envvar="BPQP_PROVIDER_URI", help="Default: the run's own provider."),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Write what to hold: a run's target weights, shares in lots and trades for one day."""
    from ..live.target_weights import print_target, target_weights

    target = target_weights(
        run, date, provider=provider, holdings=holdings, cash=cash, tracking_uri=tracking_uri
    )
    target.write(out)
    if as_json:
        typer.echo(target.to_json())
    else:
        print_target(target)
        typer.echo(out)
