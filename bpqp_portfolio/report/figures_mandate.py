"""Figures of a mandate: which constraints bound when, and realised against target weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..runs.results import RunResults
from .figures_returns import rolling_window
from .mandate import CAUSES, constraint_table
from .style import (
    BAD,
    EQUAL,
    INDEX,
    NET,
    baseline,
    date_axis,
    heading,
    heat_map,
    in_groups,
    is_wide,
    line,
    panels,
    shorten,
)

SHOWN = 16
"""Constraints in the figure, the most often binding ones."""

PRICED = 6
"""Constraints in the figure of shadow prices."""

SMOOTHING = 20
COLOURS = dict(zip(CAUSES, (INDEX, EQUAL, BAD), strict=True))


def binding(results: RunResults, width: int) -> Figure | None:
    """Days on which each constraint bound, averaged in groups of days."""
    table = constraint_table(results)
    table = table[table["share"] > 0].head(SHOWN)
    if table.empty:
        return None
    activity = results.activity[results.activity["constraint"].isin(table.index)]
    days = pd.DatetimeIndex(np.sort(results.activity["datetime"].unique()))
    wide = activity.pivot_table(
        index="datetime", columns="constraint", values="binding", aggfunc="max", observed=True
    )
    wide = wide.reindex(index=days, columns=table.index).fillna(0.0).astype(float)
    means, edges, length = in_groups(wide)
    left, right, limit = (220, 60, 32) if is_wide(width) else (150, 48, 21)
    labels = [shorten(str(name), limit) for name in table.index]
    notes = [f"{100 * share:.0f} %" for share in table["share"]]
    height = max(40, 20 * len(table))
    figure, ax = heat_map(
        width, height, edges, means.to_numpy(), labels, notes, left=left, right=right
    )
    detail = "" if length == 1 else f", shares of {length} days"
    heading(ax, f"Days on which a constraint bound{detail}")
    return figure


def shadow_prices(results: RunResults, width: int) -> Figure | None:
    """Shadow price of each of the most often binding constraints, day by day."""
    table = constraint_table(results)
    table = table[table["share"] > 0].head(PRICED)
    if table.empty:
        return None
    days = pd.DatetimeIndex(np.sort(results.activity["datetime"].unique()))
    wide = results.activity.pivot_table(
        index="datetime", columns="constraint", values="price", aggfunc="sum", observed=True
    )
    # A point of the limit is 0.01, a basis point of return 0.0001.
    wide = 100 * wide.reindex(index=days, columns=table.index).fillna(0.0)
    figure, axes = panels(width, [56] * len(table), gap=2)
    limit = 60 if is_wide(width) else 32
    for ax, name in zip(axes, table.index, strict=True):
        values = wide[name].to_numpy()
        ax.vlines(days, 0, values, color=NET, linewidth=max(0.6, 0.7 * width / len(days) / 2))
        ax.set_ylim(min(0.0, values.min()), max(values.max(), 1e-9))
        date_axis(ax, days)
        heading(ax, f"{shorten(str(name), limit)}: bp a day for a point of the limit")
    return figure


def implementation_shortfall(results: RunResults, width: int) -> Figure | None:
    """Parts of the difference of realised and target weights, and what they earned."""
    table = results.implementation_shortfall
    if table.empty:
        return None
    days = pd.DatetimeIndex(table.index)
    figure, axes = panels(width, [140, 140], legend=len(CAUSES) + 1)
    window = rolling_window(len(days), SMOOTHING)
    for ax, kind in zip(axes, ("gap", "gap_return"), strict=True):
        for name, label, colour in (
            ("", "all", NET),
            *((f"_{cause}", cause, COLOURS[cause]) for cause in CAUSES),
        ):
            series = 100 * table[f"{kind}{name}"].astype(float)
            if kind == "gap":
                line(ax, series.rolling(window, min_periods=1).mean(), colour, label)
            else:
                line(ax, series.fillna(0.0).cumsum(), colour, label)
        if kind == "gap":
            ax.set_ylim(bottom=0)
            heading(ax, f"Σ|realised − target|, % of the account, {window}-day mean", legend=True)
        else:
            baseline(ax, 0.0)
            heading(ax, "Return of the difference, summed, % of the account", legend=True)
        date_axis(ax, days)
    return figure
