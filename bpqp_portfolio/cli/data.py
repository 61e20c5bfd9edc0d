"""`bpqp data`: get, import, check and simulate market data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError

NewProvider = Annotated[Path, typer.Option(help="Folder of the new provider.")]

data_app = typer.Typer(no_args_is_help=True, help="Get, import, check and simulate market data.")


@data_app.command()
def us20(to: NewProvider) -> None:
    """Build a provider of 20 US stocks, 1990 to 2022, from the package skfolio: no network."""
    from ..data.provider.summary import summary
    from ..data.provider.us20 import build_us20

    typer.echo(summary(build_us20(to, progress=True)))


@data_app.command()
def simulate(
    to: NewProvider,
    names: Annotated[int, typer.Option(help="Number of stocks.")] = 100,
    years: Annotated[float, typer.Option(help="Length of the history.")] = 6,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    factors: Annotated[int, typer.Option(help="Number of risk factors.")] = 5,
    signal_ic: Annotated[
        float, typer.Option(help="Correlation of the true signal with the label.")
    ] = 0.08,
    nonlinear: Annotated[float, typer.Option(help="Share of the signal that is curved.")] = 0.6,
    churn: Annotated[float, typer.Option(help="Share of names outside the list `sim`.")] = 0.1,
    suspended: Annotated[float, typer.Option(help="Share of name-days without trade.")] = 0.005,
) -> None:
    """Simulate a market whose true expected returns and covariance are known (truth.npz)."""
    from ..data.provider.simulate import simulate_market
    from ..data.provider.summary import summary

    provider = simulate_market(
        to, names=names, years=years, seed=seed, factors=factors, signal_ic=signal_ic,
        nonlinear=nonlinear, churn=churn, suspended=suspended, progress=True,
    )  # fmt: skip
    typer.echo(summary(provider))


@data_app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the provider.")],
    market: Annotated[
        str | None, typer.Option(help="Universe to check; by default all of them.")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Code that must have data.")] = None,
    write_exclusions: Annotated[
        Path | None, typer.Option(help="CSV file for the moves that are invalid.")
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option("--check", help="A check of your own, FILE.py:CLASS; once for each."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List what is wrong or doubtful in a provider; exit code 1 if there are errors."""
    from rich.console import Console

    from ..data.quality import exclusions
    from ..data.quality.check import check_provider
    from ..data.quality.findings import print_report

    places = [one.rpartition(":") for one in own or ()]
    found = check_provider(
        folder,
        market=market,
        benchmark=benchmark,
        progress=True,
        checks=[{"module_path": module, "class": name} for module, _, name in places],
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        print_report(found, Console())
    if write_exclusions:
        exclusions.write_exclusions(write_exclusions, found.exclusions)
        typer.echo(f"{len(found.exclusions)} exclusions written to {write_exclusions}", err=True)
    if found.errors:
        raise typer.Exit(1)


@data_app.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="Archive, folder, or CSV or Parquet file.")],
    to: Annotated[Path, typer.Option(help="Folder of the provider; an older one is replaced.")],
    market: Annotated[str | None, typer.Option(help="Also write the list `all` as NAME.")] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Code to compare with, such as an index: it has prices and is in no list of "
            "names to hold. Once for each, the workflow's first; codes that say so themselves, "
            "such as SPX or SH000300, are kept out of the lists in any case.",
        ),
    ] = None,
    no_benchmark: Annotated[
        bool, typer.Option("--no-benchmark", help="Every code is a name to hold.")
    ] = False,
    append: Annotated[
        bool,
        typer.Option(
            "--append",
            help="Add the days after the last of the provider at --to; SOURCE repeats that day or "
            "more, by which prices are compared.",
        ),
    ] = False,
    timezone: Annotated[
        str | None,
        typer.Option(help="The exchange's, such as Asia/Shanghai, for stamps in UTC."),
    ] = None,
    date_format: Annotated[
        str | None, typer.Option(help="How dates are written that are not ISO: %m/%d/%Y, %d.%m.%Y.")
    ] = None,
    keep_codes: Annotated[
        bool,
        typer.Option(
            "--keep-codes", help="Leave 600000.SH, sh.600000 and six digits alone as they are."
        ),
    ] = False,
) -> None:
    """Write a clean Qlib provider from SOURCE: a provider, or CSV or Parquet files of daily bars.

    SOURCE is a folder, a tar or zip archive, or one table.
    """
    from ..data.provider.importer import import_provider
    from ..data.provider.summary import summary
    from ..data.provider.table_file import Reading

    if no_benchmark and benchmark:
        raise ConfigError("--benchmark and --no-benchmark exclude each other.")
    provider = import_provider(
        source,
        to,
        market=market,
        benchmark=[] if no_benchmark else benchmark or None,
        reading=Reading(timezone, date_format, keep_codes),
        append=append,
    )
    typer.echo(summary(provider))


@data_app.command("csi300")
def data_csi300(
    url: Annotated[str | None, typer.Option(help="Archive of another provider, http(s).")] = None,
    to: Annotated[Path | None, typer.Option(help="Folder of the provider.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 of the archive.")] = None,
) -> None:
    """Download the community's daily release of A-share data into ~/.qlib/qlib_data/cn_data.

    An interrupted download is resumed by the next call; an older provider is replaced at the end.
    """
    from ..data.provider.download import CN_DATA, RELEASE_URL, download_release
    from ..data.provider.summary import summary

    typer.echo(summary(download_release(url or RELEASE_URL, to or CN_DATA, sha256=sha256)))
