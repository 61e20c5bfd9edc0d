"""The final table of a run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..runs.results import RunResults
from .headline import headline
from .metrics import book_rows, cautions, other_rows


def print_summary(
    summary: pd.DataFrame,
    results: RunResults,
    timing: Mapping[str, float] | None = None,
    console: Console | None = None,
) -> None:
    """Print what happened, the final table, the seconds of each stage, and what limits it."""
    table = Table(title="Result of the run", title_justify="left", header_style="bold")
    table.add_column(f"a year of {results.days_per_year:g} days, arithmetic")
    for header in ("return", "volatility", "ratio", "drawdown"):
        table.add_column(header, justify="right")
    for label, cells in book_rows(summary):
        table.add_row(label, *cells)
    for section in ("signal", "trading"):
        table.add_section()
        for label, cell in other_rows(summary, section):
            table.add_row(label, cell)
    if timing:
        table.add_section()
        for stage, seconds in timing.items():
            table.add_row(f"Seconds: {escape(stage)}", f"{seconds:.1f}")
        table.add_row("Seconds: all", f"{sum(timing.values()):.1f}")
    console = console or Console()
    for sentence in headline(results):
        console.print(sentence, highlight=False, markup=False)
    console.print(table)
    for caution in cautions(results):
        console.print(f"note: {caution}", highlight=False)
