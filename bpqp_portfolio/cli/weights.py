"""`bpqp weights`: what to hold on a day, and what to trade for it."""

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
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="What the file lists: decision (all that is known of each name), targets (what to "
            "hold) or orders (what to buy and sell).",
        ),
    ] = "decision",
    account: Annotated[
        str, typer.Option(help="Account that targets and orders are for; empty by default.")
    ] = "",
    trade_date: Annotated[
        str | None,
        typer.Option(
            help="Day of the orders, YYYY-MM-DD, where the provider's calendar ends with --date."
        ),
    ] = None,
    provider: Annotated[
        Path | None,
        typer.Option(envvar="BPQP_PROVIDER_URI", help="Default: the run's own provider."),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole decision as JSON instead of a table.")
    ] = False,
) -> None:
    """Write what to hold or trade: a run's target weights, shares and orders for one day."""
    from ..files.atomic import check_writable
    from ..live.formats.registry import check_format, listed
    from ..live.formats.request import Request
    from ..live.target_weights import print_target, target_weights

    request = Request(account, trade_date)
    check_format(file_format, has_account=cash is not None)
    check_writable(out, elsewhere="name another file by --out")
    target = target_weights(
        run, date, provider=provider, holdings=holdings, cash=cash, tracking_uri=tracking_uri
    )
    listing = listed(target, file_format, request)
    listing.write(out)
    if as_json:
        typer.echo(target.to_json())
    else:
        print_target(target)
        typer.echo(f"{listing.title}, in {out}")
    for note in listing.notes:
        typer.echo(note, err=True)
