"""Figures of the model: its signal, its learning curves and the health of its solver."""

from __future__ import annotations

import calendar
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..runs.results import NO_DECISION, RunResults
from .figures_returns import rolling_window
from .style import (
    BAD,
    INDEX,
    INK,
    MUTED,
    NET,
    NO_PANEL,
    baseline,
    beside,
    date_axis,
    heading,
    is_wide,
    line,
    no_panel,
    panels,
    power_axis,
    power_of_ten,
    value_axis,
)

SMOOTHING = 60
"""Trading days of the moving averages of daily signal figures."""

SMALLEST = 1e-16
"""KKT norms below this, rounding error all of them, are drawn here on the logarithmic axis."""


def monthly_ic(results: RunResults) -> pd.DataFrame:
    """Mean daily IC, years down and months 1 to 12 across, NaN where there is none."""
    ic = results.series("signal", "ic").dropna()
    if ic.empty:
        return pd.DataFrame()
    table = ic.groupby([ic.index.year, ic.index.month]).mean().unstack()
    return table.reindex(
        index=range(table.index.min(), table.index.max() + 1), columns=range(1, 13)
    )


def ic_by_month(results: RunResults, width: int) -> Figure | None:
    """Heat map of the mean IC, years by months: blue above zero, red below."""
    table = monthly_ic(results)
    if table.empty:
        return None
    years = len(table)
    figure, (ax,) = panels(width, [30 * years])
    strongest = max(np.nanmax(np.abs(table.to_numpy())), 1e-12)
    for row, year in enumerate(table.index):
        for month in table.columns:
            value = table.loc[year, month]
            if np.isnan(value):
                continue
            ax.add_patch(
                Rectangle(
                    (month - 0.47, row - 0.45),
                    0.94,
                    0.9,
                    facecolor=NET if value > 0 else BAD,
                    alpha=0.08 + 0.62 * abs(value) / strongest,
                    linewidth=0,
                )
            )
            text = f"{value:z.3f}" if is_wide(width) else f"{100 * value:z.0f}"
            ax.text(month, row, text.replace("-", "−"), ha="center", va="center", size=11)
    ax.set_xlim(0.45, 12.55)
    ax.set_ylim(years - 0.5, -0.5)
    ax.grid(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(length=0)
    letters = list(calendar.month_abbr)[1:]
    ax.set_xticks(range(1, 13), letters if is_wide(width) else [m[0] for m in letters])
    ax.set_yticks(range(years), [str(year) for year in table.index])
    heading(ax, "Mean daily IC" if is_wide(width) else "Mean daily IC, in hundredths")
    return figure


def signal(results: RunResults, width: int) -> Figure | None:
    """Moving averages of IC and Rank IC, and of the daily regret."""
    days = results.signal.index
    window = rolling_window(len(days), SMOOTHING)
    means = {
        name: results.series("signal", name).rolling(window).mean()
        for name in ("ic", "rank_ic", "regret")
    }
    correlations = [
        (name, colour, label)
        for name, colour, label in (("ic", NET, "IC"), ("rank_ic", INDEX, "Rank IC"))
        if means[name].notna().any()
    ]
    parts = [
        part
        for part, there in (("ic", correlations), ("regret", means["regret"].notna().any()))
        if there
    ]
    if not parts:
        return None
    columns = len(parts) if is_wide(width) else 1
    figure, axes = panels(width, [180] * len(parts), columns=columns, legend=2)
    for ax, part in zip(axes, parts, strict=True):
        if part == "ic":
            for name, colour, label in correlations:
                mean = results.series("signal", name).mean()
                line(ax, means[name], colour, f"{label} (mean {mean:.3f})".replace("-", "−"))
            baseline(ax, 0)
            heading(ax, f"{window}-day mean", legend=True, columns=columns)
        else:
            regret = 100 * means["regret"]
            mean = 100 * results.series("signal", "regret").mean()
            line(ax, regret, NET, f"regret (mean {mean:.2f} %)")
            ax.set_ylim(bottom=min(0, regret.min()))
            heading(ax, f"% a day, {window}-day mean", legend=True, columns=columns)
        date_axis(ax, days)
    return figure


def learning(results: RunResults, width: int) -> Figure | None:
    """Both losses on train and valid by epoch, and the validation IC; the kept epoch marked.

    A line for each network where there are several.
    """
    epochs = results.epochs
    members = [own for _, own in epochs.groupby("member")] if "member" in epochs else [epochs]
    groups = [
        ("Prediction loss", ("train_prediction", "valid_prediction")),
        ("Decision loss", ("train_decision", "valid_decision")),
        ("IC", ("valid_ic",)),
    ]
    shown = [
        (title, columns)
        for title, names in groups
        if (columns := [c for c in names if c in epochs and epochs[c].notna().any()])
    ]
    if not shown:
        return None
    across = len(shown) if is_wide(width) else 1
    entries = 2 + (results.best_epoch is not None)
    figure, axes = panels(width, [190] * len(shown), columns=across, legend=entries, left=58)
    for ax, (title, columns) in zip(axes, shown, strict=True):
        for column in columns:
            colour = NET if column.startswith("train") else INDEX
            for i, own in enumerate(members):
                ax.plot(
                    own["epoch"],
                    own[column],
                    color=colour,
                    label=column.partition("_")[0] if i == 0 else None,
                    alpha=1.0 if len(members) == 1 else 0.6,
                    marker="o",
                    markersize=3,
                )
        if results.best_epoch is not None:
            style: Any = {"color": MUTED, "linewidth": 1, "linestyle": (0, (3, 2))}
            ax.axvline(results.best_epoch, label="kept", **style)
        count = epochs["epoch"].nunique()
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=min(3, count)))
        if count == 1:
            ax.set_xlim(epochs["epoch"].iloc[0] - 0.5, epochs["epoch"].iloc[0] + 0.5)
        heading(ax, f"{title}, by epoch", legend=True, columns=across)
    return figure


def solver(results: RunResults, width: int) -> Figure | None:
    """KKT norm and iterations of each day's solve, and how often each status occurred."""
    days = results.signal.index
    norm = results.series("signal", "kkt_norm").replace(np.inf, np.nan)
    iterations = results.series("signal", "iterations")
    parts = [
        part
        for part, there in (
            ("kkt", norm.notna().any()),
            ("iterations", iterations.notna().any()),
            ("status", "status" in results.signal and results.signal["status"].notna().any()),
        )
        if there
    ]
    if not parts:
        return None
    counts = status_counts(results)
    rounding = norm.max() <= SMALLEST
    heights = {
        "kkt": NO_PANEL if rounding else 170,
        "iterations": 110,
        "status": 24 * max(len(counts), 1),
    }
    figure, axes = panels(width, [heights[part] for part in parts], left=62)
    for ax, part in zip(axes, parts, strict=True):
        if part == "kkt" and rounding:
            smallest = power_of_ten(SMALLEST)
            no_panel(ax, f"KKT norm of each day's solve: never above {smallest}, rounding error")
        elif part == "kkt":
            line(ax, norm.clip(lower=SMALLEST), NET, linewidth=0.9)
            failed = norm[_failed(results)]
            ax.plot(failed.index, failed.to_numpy(), ".", color=BAD, markersize=7)
            power_axis(ax)
            # Without a ceiling, rounding error alone would fill the panel.
            ax.set_ylim(SMALLEST / 2, max(1e-8, 3 * norm.max()))
            date_axis(ax, days)
            heading(ax, f"KKT norm of each day's solve, logarithmic (largest {norm.max():.0e})")
        elif part == "iterations":
            line(ax, iterations, NET, linewidth=0.9)
            ax.set_ylim(bottom=0)
            value_axis(ax, integer=True)
            date_axis(ax, days)
            heading(ax, "Iterations of each day's solve")
        else:
            rows = range(len(counts))
            colours = [NET if status == "solved" else BAD for status in counts.index]
            ax.barh(rows, counts, height=0.55, color=colours)
            ax.set_ylim(len(counts) - 0.5, -0.5)
            ax.set_xlim(0, 1.8 * counts.max())  # room for the text beside the longest bar
            ax.grid(False)
            ax.spines["bottom"].set_visible(False)
            ax.set_xticks([])
            ax.set_yticks([])
            for row, (status, count) in enumerate(counts.items()):
                text, style = f"{count:,} {status}", {"va": "center", "color": INK, "size": 12}
                beside(ax, text, (count, row), "data", (6, 0), **style)
            heading(ax, "Days by status of the solve")
    return figure


def status_counts(results: RunResults) -> pd.Series:
    """Days with a decision by solver status, the most frequent first; empty without any."""
    if "status" not in results.signal:
        return pd.Series(dtype=int)
    status = results.signal["status"].astype(str)
    return status[status != NO_DECISION].value_counts()


def _failed(results: RunResults) -> np.ndarray:
    """Boolean (T,): the day's solve was not "solved"."""
    if "status" not in results.signal:
        return np.zeros(len(results.signal), dtype=bool)
    return ~results.signal["status"].astype(str).isin(["solved", NO_DECISION]).to_numpy()
