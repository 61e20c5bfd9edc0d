"""The comparison's figures: each method's mean and spread over seeds, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from ..errors import DataError
from ..report.inference import Difference, holm, paired_difference
from ..report.metrics import TRADING_DAYS, format_metric, summarise
from ..report.results import RunResults
from .plan import Comparison

# column: where it stands in a run's summary (section, metric, cost), and its header.
FIGURES = {
    "ic": (("signal", "ic", "without_cost"), "IC"),
    "icir": (("signal", "icir", "without_cost"), "ICIR"),
    "rank_ic": (("signal", "rank_ic", "without_cost"), "Rank IC"),
    "regret": (("signal", "regret", "without_cost"), "Regret a day"),
    "gross_index": (("excess_index", "annual_return", "without_cost"), "Over index, gross"),
    "net_index": (("excess_index", "annual_return", "with_cost"), "Over index, net"),
    "ratio_index": (("excess_index", "information_ratio", "with_cost"), "IR, net"),
    "drawdown_index": (("excess_index", "max_drawdown", "with_cost"), "Drawdown over index, net"),
    "gross_equal": (("excess_equal", "annual_return", "without_cost"), "Over equal, gross"),
    "net_equal": (("excess_equal", "annual_return", "with_cost"), "Over equal, net"),
    "sharpe": (("portfolio", "information_ratio", "with_cost"), "Sharpe, net"),
    "turnover": (("trading", "turnover", "without_cost"), "One-way turnover a day"),
    "annual_cost": (("trading", "annual_cost", "without_cost"), "Cost a year"),
    "names_held": (("trading", "names_held", "without_cost"), "Names held"),
    "blocked": (("trading", "blocked", "without_cost"), "Blocked orders a day"),
    "epoch_seconds": (None, "Seconds an epoch"),
}
MINUS, PLUS_MINUS = "−", " ± "


@dataclass(frozen=True)
class Paired:
    """A method against its matched control on the same days.

    ``net`` and ``gross`` differences of annual return; ``saved`` the control's annual cost less
    the method's, so that net = gross + saved; ``p_value`` of ``net``, corrected for the number of
    comparisons in the table.
    """

    method: str
    control: str
    net: Difference
    gross: Difference
    saved: float
    p_value: float

    @property
    def holds(self) -> bool:
        """Does the interval of the net gain leave zero out, above?"""
        return self.net.low > 0


@dataclass(frozen=True)
class ComparisonTable:
    """Everything the comparison shows.

    ``runs`` indexed by (method, seed) with a column for each of :data:`FIGURES` (fractions; returns
    a year, 238 days, arithmetic); ``net`` by method a frame of daily net returns, one column a
    seed; ``index`` daily return of the index; ``paired`` in the order of the methods.
    """

    comparison: Comparison
    runs: pd.DataFrame
    net: dict[str, pd.DataFrame]
    index: pd.Series
    paired: list[Paired]

    def text(self) -> pd.DataFrame:
        """Mean ± standard deviation over seeds (ddof 1) as text, one row a method."""
        shown = [name for name in FIGURES if self.runs[name].notna().any()]
        rows = {}
        for name in methods_in_order(self.comparison, list(self.net)):
            own, method = self.runs.loc[name], self.comparison.methods[name]
            cells = {FIGURES[figure][1]: _cell(figure, own[figure]) for figure in shown}
            rows[method.title] = {"Seeds": str(len(own)), **cells}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Method")

    def paired_text(self) -> pd.DataFrame:
        """The paired differences as text, one row for each method with a control."""
        title = {name: m.title for name, m in self.comparison.methods.items()}
        rows = [
            {
                "Method": title[p.method],
                "Matched control": title[p.control],
                "Net, points a year": _points(p.net.annual),
                f"{p.net.level:.0%} interval": f"{_points(p.net.low)} to {_points(p.net.high)}",
                "p, corrected": f"{p.p_value:.3f}" if p.p_value >= 0.001 else "< 0.001",
                "of it gross": _points(p.gross.annual),
                "of it cost saved": _points(p.saved),
                "A gain?": "yes" if p.holds else "not against its control",
            }
            for p in self.paired
        ]
        return pd.DataFrame(rows)


def build_table(
    comparison: Comparison, results: Mapping[tuple[str, int], RunResults]
) -> ComparisonTable:
    """The table of all runs' results, by (method, seed).

    Raises
    ------
    DataError
        The runs were not made on the same days.
    """
    rows: dict[tuple[str, int], dict[str, float]] = {}
    net: dict[str, dict[int, pd.Series]] = {}
    gross: dict[str, dict[int, pd.Series]] = {}
    for (method, seed), result in results.items():
        summary = summarise(result)
        row = {
            name: summary.loc[where[:2], where[2]] if where else math.nan
            for name, (where, _) in FIGURES.items()
        }
        if len(result.epochs):
            row["epoch_seconds"] = result.epochs["seconds"].mean()
        rows[method, seed] = row
        gross.setdefault(method, {})[seed] = result.series("daily", "return")
        net.setdefault(method, {})[seed] = result.series("daily", "return") - result.series(
            "daily", "cost"
        )
    runs = pd.DataFrame.from_dict(rows, orient="index").astype(float)
    runs.index = pd.MultiIndex.from_tuples(runs.index, names=["method", "seed"])
    frames = {name: _frame(name, columns) for name, columns in net.items()}
    before = {name: _frame(name, columns) for name, columns in gross.items()}
    index = next(iter(results.values())).series("daily", "bench")
    return ComparisonTable(
        comparison, runs.sort_index(), frames, index, _paired(comparison, frames, before)
    )


def _frame(method: str, columns: Mapping[int, pd.Series]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    if frame.isna().to_numpy().any():
        day = frame.index[frame.isna().any(axis=1)][0]
        raise DataError(f"the runs of {method!r} were not made on the same days, see {day}.")
    return frame


def _paired(
    comparison: Comparison, net: Mapping[str, pd.DataFrame], gross: Mapping[str, pd.DataFrame]
) -> list[Paired]:
    paired = partial(paired_difference, block=comparison.block, level=comparison.level)
    found = {}
    for name, method in comparison.methods.items():
        if method.control is not None and name in net and method.control in net:
            found[name] = (
                method.control,
                paired(net[name], net[method.control]),
                paired(gross[name], gross[method.control]),
            )
    corrected = holm({name: net_gain.p_value for name, (_, net_gain, _) in found.items()})
    return [
        Paired(name, control, gain, plain, gain.annual - plain.annual, corrected[name])
        for name, (control, gain, plain) in found.items()
    ]


def _cell(figure: str, values: pd.Series) -> str:
    values = values.dropna()
    if not len(values):
        return "–"
    where = FIGURES[figure][0]
    if where is None:

        def text(value: float) -> str:
            return f"{value:.2f}"
    else:
        _, metric, _ = where

        def text(value: float) -> str:
            return format_metric(metric, value)

    mean = text(values.mean())
    return mean + PLUS_MINUS + text(values.std(ddof=1)) if len(values) > 1 else mean


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", MINUS)


def markdown(frame: pd.DataFrame) -> str:
    """A frame of text as a Markdown table; an index with a name becomes the first column."""
    if frame.index.name:
        frame = frame.reset_index()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def protocol(table: ComparisonTable) -> list[str]:
    """What a reader must know beside the figures, one sentence each."""
    comparison, days = table.comparison, table.index.index
    tried = comparison.configurations_tried
    lines = [
        f"Test days {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d} ({len(days)}). Mean ± standard "
        "deviation over seeds, one value a run, of the epoch that was best on validation.",
        f"Returns a year are {TRADING_DAYS} times the daily mean; turnover is one-way.",
        "Configurations looked at on validation before this one was frozen: "
        + ("not said." if tried is None else f"{tried}."),
    ]
    if table.paired:
        lines.append(
            f"Paired differences: blocks of {comparison.block} days and seeds are drawn together, "
            f"p-values are corrected for the number of comparisons ({len(table.paired)}, Holm)."
        )
    single = [comparison.methods[n].title for n, f in table.net.items() if f.shape[1] == 1]
    if single:
        lines.append(f"One seed only, so no spread over seeds: {', '.join(single)}.")
    return lines


def methods_in_order(comparison: Comparison, present: Sequence[str]) -> list[str]:
    """Names of the methods that have runs, each followed by its control."""
    out: list[str] = []
    for name, method in comparison.methods.items():
        for one in (name, method.control):
            if one in present and one not in out:
                out.append(one)
    return out
