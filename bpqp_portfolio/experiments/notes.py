"""What stands beside a comparison's table: how it was measured, and what of it is missing."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .table import NAMES_ALIKE, ComparisonTable


def markdown(frame: pd.DataFrame) -> str:
    """A frame of text as a Markdown table; an index with a name becomes the first column."""
    if frame.index.name:
        frame = frame.reset_index()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: Any) -> str:
    return str(cell).replace("|", "\\|")


def absent(table: ComparisonTable) -> list[str]:
    """What is missing of a partial table, one sentence each; none of a whole one."""
    if not table.missing:
        return []
    total = len(table.missing) + len(table.runs)
    lines = [f"Partial: {len(table.missing)} of {total} runs are missing."]
    return lines + [f"{name}: {reason}" for name, reason in table.missing.items()]


def protocol(table: ComparisonTable) -> list[str]:
    """What a reader must know beside the figures, one sentence each."""
    comparison, days = table.comparison, table.benchmark.index
    tried = comparison.configurations_tried
    lines = [
        f"Test days {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d} ({len(days)}). Mean ± standard "
        "deviation over seeds, one value a run, of the epoch that was best on validation.",
        f"Returns a year are {table.days_per_year:g} times the daily mean; turnover is one-way; "
        "ratios are annual, of the daily differences. MSE is that of returns standardised by day, "
        "each method's scores brought to them by one factor: 1 is to know nothing.",
        "Trades are decided at a close and made at the next; what is suspended, or at the price "
        "limit of its board and date, does not trade. Test rows are never chosen by their label.",
        *table.facts,
        "Configurations looked at on validation before this one was frozen: "
        + ("not stated." if tried is None else f"{tried}."),
    ]
    if table.paired:
        lines.append(
            f"Paired differences: blocks of {comparison.block} days and seeds are drawn together, "
            f"p-values are corrected for the number of comparisons ({len(table.paired)}, Holm). A "
            "gain over a control needs a corrected p-value below "
            f"{1 - comparison.level:.2g}. ≠ marks controls whose number of names differs by more "
            f"than {NAMES_ALIKE:.0%}."
        )
    single = [table.title(name) for name, frame in table.net.items() if frame.shape[1] == 1]
    if single:
        lines.append(f"One seed only, so no spread over seeds: {', '.join(single)}.")
    if table.other_code:
        lines.append(
            f"Made by other code than that of now, and accepted: {len(table.other_code)} of "
            f"{len(table.runs)} runs ({', '.join(table.other_code)})."
        )
    return lines
