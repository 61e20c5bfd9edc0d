"""`bpqp compare`: methods and seeds as tracked runs, and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import BPQPError


def compare(
    file: Annotated[Path, typer.Argument(help="The comparison: workflow, methods, seeds.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="In place of the file's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of tables, page and logs; by default the file's name."),
    ] = None,
    accept_other_code: Annotated[
        bool,
        typer.Option(
            "--accept-other-code",
            help="Keep finished runs that an earlier or later state of this package's code made; "
            "by default they are repeated. The table names them.",
        ),
    ] = False,
) -> None:
    """Run methods × seeds as tracked runs and write one table; a finished run is never repeated.

    Interrupted, the same command goes on where it stopped. Where runs fail, the table is that of
    the others and says so, and the exit code is 1.
    """
    from ..experiments.headline import headline
    from ..experiments.notes import markdown
    from ..experiments.page import write_comparison
    from ..experiments.plan import check_methods, plan, read_comparison
    from ..experiments.runs import collect, failure_report, run_missing
    from ..experiments.table import build_table
    from ..files.atomic import check_writable

    comparison, workflow = read_comparison(file)
    runs = plan(comparison, workflow, seeds)
    folder = out or Path(file.stem)
    check_writable(folder, folder=True, elsewhere="name another folder by --out")
    check_methods(runs)
    outcome = run_missing(runs, folder, jobs, accept_other_code=accept_other_code)
    results, seconds = collect(runs, outcome.found)
    table = build_table(
        comparison, results, seconds=seconds, missing=outcome.failed, other_code=outcome.other_code
    )
    paths = write_comparison(table, folder)
    typer.echo(" ".join(headline(table)) + "\n")
    typer.echo(markdown(table.groups()["Methods"]))
    typer.echo("\n".join(map(str, paths)))
    if outcome.failed:
        raise BPQPError(failure_report(outcome.failed, len(runs), folder))
