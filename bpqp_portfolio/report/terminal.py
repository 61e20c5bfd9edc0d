"""The final table of a run in the terminal."""

from __future__ import annotations

import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ..runs.results import RunResults
from .headline import headline
from .metrics import METRICS, book_rows, cautions, format_metric
from .truth import HEADERS, TITLE, truth_rows, truth_sentences

BESIDE = {
    "ic": ("signal", "ic"),
    "rank_ic": ("signal", "rank_ic"),
    "turnover": ("trading", "turnover"),
    "annual_cost": ("trading", "annual_cost"),
}
"""Figures that follow the table in one line, by their place in the summary."""


def print_summary(
    summary: pd.DataFrame, results: RunResults, console: Console | None = None
) -> None:
    """Print what happened, a table, the main figures beside it, and what limits them.

    The table is that of the books, and of a simulated market that of the truth.
    """
    console = console or Console()
    said = headline(results)
    for sentence in [*truth_sentences(results), *(said if results.truth.empty else said[:1])]:
        console.print(sentence, highlight=False, markup=False)
    console.print(_books(summary, results) if results.truth.empty else _truth(results))
    values = {m: summary.loc[place, "without_cost"] for m, place in BESIDE.items()}
    known = [
        f"{METRICS[m][0]} {format_metric(m, value)}"
        for m, value in values.items()
        if math.isfinite(value)
    ]
    if known:
        console.print("; ".join(known), highlight=False)
    for caution in cautions(results):
        console.print(f"note: {caution}", highlight=False)


def _books(summary: pd.DataFrame, results: RunResults) -> Table:
    table = _plain()
    table.add_column(f"a year of {results.days_per_year:g} days, arithmetic")
    for header in ("return", "volatility", "ratio", "drawdown"):
        table.add_column(header, justify="right")
    for label, cells in book_rows(summary):
        table.add_row(label, *cells)
    return table


def _plain(title: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _truth(results: RunResults) -> Table:
    table = _plain(TITLE)
    table.add_column("")
    for header, unit in HEADERS.items():
        table.add_column(f"{header}\n{unit}", justify="right")
    for label, cells in truth_rows(results):
        table.add_row(label, *cells)
    return table
