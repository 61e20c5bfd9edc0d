"""Figures of a comparison: gains over controls, return against turnover, and growth by method."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..report.style import (
    BAD,
    GRID,
    INDEX,
    INK,
    MUTED,
    NET,
    baseline,
    beside,
    date_axis,
    heading,
    is_wide,
    panels,
    shorten,
)
from .columns import MINUS, p_text
from .table import ComparisonTable, Paired

WIDE, NARROW = 1080, 380
"""Pixels that a figure is drawn at: the page shows the one that fits."""
ROW, SMALL = 20, 11
APART = np.array([15.0, 11.0])  # pixels between two numbers, or a number and a dot
BESIDE = [
    (round(radius * dx * APART[0]), round(radius * dy * APART[1]))
    for radius in (1.0, 1.5, 2.0)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
]
"""Where a number may stand about its dot, in pixels; the first that is free."""
WIDE_RANGE = 4  # of turnover, from which on its axis is logarithmic


def gains(table: ComparisonTable, width: int = WIDE) -> Figure | None:
    """A forest of the paired net differences: point, interval and corrected p for each control."""
    if not table.paired:
        return None
    wide = is_wide(width)
    left, right = (330, 250) if wide else (10, 10)
    # Beside each other where there is room; else a control's interval under its text.
    lines: list[tuple[float, Paired | str]] = []
    y = 0.0
    for method in dict.fromkeys(p.method for p in table.paired):
        rows: list[Paired | str] = [method, *table.gains(method)]
        for row in rows:
            lines.append((y, row))
            y += 1 if wide or isinstance(row, str) else 2
    figure, (ax,) = panels(width, [int(ROW * y)], left=left, right=right, bottom=30)
    inside = width - left - right
    for y_row, row in lines:
        if isinstance(row, str):
            name = shorten(table.title(row), 46)
            _write(ax, -left / inside, y_row, name, color=INK, fontweight="bold", va="center")
            if y_row:
                ends = -left / inside, 1 + right / inside
                ax.axhline(y_row - 0.5, *ends, color=GRID, clip_on=False)
        elif wide:
            _interval(ax, y_row, row)
            places = (14 - left) / inside, 1 + 14 / inside, 1 + right / inside
            _gain_text(ax, y_row, row, table.title(row.control), places, 42)
        else:
            _gain_text(ax, y_row, row, table.title(row.control), (0.02, 0.42, 1.0), 18)
            _interval(ax, y_row + 0.9, row)
            # No line from top to bottom, which would pass through the text.
            ax.vlines(0, y_row + 0.55, y_row + 1.25, color=MUTED, linewidth=0.8, zorder=1.5)
    if wide:
        ax.axvline(0, color=MUTED, linewidth=0.8, zorder=1.5)
    ax.set_ylim(y - 0.5, -0.5)
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(8 if wide else 5, min_n_ticks=3))
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=wide)
    level = f"{table.paired[0].net.level:.0%}"
    unit = "points a year" if wide else "points"
    heading(ax, f"Net return less the control's, {unit}; {level} interval; p by Holm")
    return figure


def _interval(ax: Axes, y: float, row: Paired) -> None:
    """Point and interval of a gain, filled where it holds."""
    low, point, high = (100 * v for v in (row.net.low, row.net.annual, row.net.high))
    colour = _gain_colour(row)
    ax.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    inner = colour if row.holds else "white"
    ax.plot(point, y, "o", color=colour, markerfacecolor=inner, markersize=7, markeredgewidth=2)


def _gain_text(
    ax: Axes, y: float, row: Paired, control: str, places: tuple[float, float, float], length: int
) -> None:
    """Control, figures and p-value of a gain at ``places`` of the panel's width."""
    low, point, high = (100 * v for v in (row.net.low, row.net.annual, row.net.high))
    style = {"va": "center"}
    _write(ax, places[0], y, f"less {shorten(control, length)}", color=MUTED, **style)
    figures = f"{point:+.1f}  ({low:.1f} to {high:.1f})".replace("-", MINUS)
    _write(ax, places[1], y, figures, color=INK, **style)
    p_value = p_text(row.p_value).replace(" ", "\N{NO-BREAK SPACE}")
    _write(ax, places[2], y, f"p {p_value}", color=_gain_colour(row), ha="right", **style)


def _gain_colour(row: Paired) -> str:
    return NET if row.holds else BAD if row.net.high < 0 else MUTED


def frontier(table: ComparisonTable, width: int = WIDE) -> Figure | None:
    """Return over the benchmark against turnover: gross, net, and cost as the line between."""
    if table.runs[[f"net_{table.over}", "turnover"]].isna().all().any():
        return None
    methods, wide = table.methods, is_wide(width)
    legend, row = (350, 19) if wide else (12, 17)
    below = 0 if wide else row * len(methods) + 10
    height = int(max(380, SMALL * 1.75 * len(methods))) if wide else 280
    figure, (ax,) = panels(width, [height], left=52, right=legend, bottom=26 + below)
    means = table.runs.groupby(level="method").mean()
    net, gross = f"net_{table.over}", f"gross_{table.over}"
    points: list[tuple[float, float]] = []
    costs: list[tuple[float, float]] = []  # along the lines of cost
    for method in methods:
        own, mean = 100 * table.runs.loc[method], 100 * means.loc[method]
        x, colour = mean["turnover"], _role(table, method)
        ax.plot([x, x], [mean[net], mean[gross]], color=colour, alpha=0.35)
        ax.scatter(own["turnover"], own[net], s=9, color=colour, alpha=0.45, linewidths=0)
        ax.scatter(x, mean[gross], s=26, facecolors="white", edgecolors=colour)
        ax.scatter(x, mean[net], s=46, color=colour, zorder=3)
        points.append((x, mean[net]))
        costs += [(x, y) for y in np.linspace(mean[net], mean[gross], 20)]
    baseline(ax, 0)
    ax.margins(x=0.06, y=0.08)
    _turnover_axis(ax, 100 * means["turnover"])
    places, lines = (ax.transData.transform(np.array(p)) for p in (points, costs))
    for number, shift in enumerate(_beside(places, lines)):
        colour = _role(table, methods[number])
        style = {"ha": "center", "va": "center", "fontweight": "bold", "zorder": 4}
        style |= {"color": colour, "size": SMALL}
        beside(ax, str(number + 1), points[number], "data", shift, **style)
    inside = width - 52 - legend
    step = min(row, height / len(methods)) / height
    for number, method in enumerate(methods):
        y = 1 - (number + 0.5) * step if wide else -(38 + row * number) / height
        end = 1 + 40 / inside if wide else -20 / inside
        title, colour = shorten(table.title(method), 46), _role(table, method)
        shown: dict[str, Any] = {"transform": ax.transAxes, "va": "center", "fontsize": SMALL}
        ax.text(end, y, str(number + 1), color=colour, ha="right", fontweight="bold", **shown)
        ax.text(end + 8 / inside, y, title, color=INK, **shown)
    over = f"Over {table.benchmark_name}" if table.benchmark_name else "Return"
    key = "○ gross   ● net   | cost"
    if wide:
        heading(ax, f"{over}, % a year, by one-way turnover, % a day. {key}")
    else:
        heading(ax, f"{over}, % a year, by turnover, % a day")
    return figure


def _turnover_axis(ax: Axes, turnover: pd.Series) -> None:
    """Turnover along x, logarithmic where it differs much: three labels or more."""
    if not (turnover.min() > 0 and turnover.max() > WIDE_RANGE * turnover.min()):
        ax.xaxis.set_major_locator(MaxNLocator(6, min_n_ticks=3))
        return
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8)):
        ticks = np.outer(decades, digits).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 4:
            break
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def growth(table: ComparisonTable, width: int = WIDE) -> Figure:
    """Compounded net excess over the benchmark, a panel for each method: mean and range of its
    seeds, among its controls and all others."""
    methods, columns = table.methods, 3 if is_wide(width) else 1
    paths = {
        name: 100 * ((1 + table.net[name].sub(table.benchmark, axis=0)).cumprod() - 1)
        for name in methods
    }
    figure, axes = panels(width, [130] * len(methods), columns=columns, legend=1, bottom=30)
    for ax, method in zip(axes, methods, strict=True):
        controls = table.comparison.methods[method].controls
        for other in methods:
            path = paths[other].mean(axis=1)
            if other in controls:
                ax.plot(path.index, path, color=INDEX, linewidth=1, zorder=2.2)
            elif other != method:
                ax.plot(path.index, path, color=GRID, linewidth=1, zorder=1.2)
        own = paths[method]
        if own.shape[1] > 1:
            low, high = own.min(axis=1), own.max(axis=1)
            ax.fill_between(own.index, low, high, color=NET, alpha=0.18, linewidth=0, zorder=2.1)
        ax.plot(own.index, own.mean(axis=1), color=NET, linewidth=2, zorder=3)
        baseline(ax, 0)
        date_axis(ax, table.benchmark.index)
        title = "\n".join(textwrap.wrap(table.title(method), 46)[:2])
        heading(ax, title, columns=columns)
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    return figure


CAPTIONS = {
    "gains": "Filled: a gain after the correction for all comparisons. A method is worth its "
    "training only if every line under its name is.",
    "frontier": "A filled dot is net, the ring above it gross, the line between them cost; small "
    "dots are single seeds, net. Blue: methods that are tested against controls. Orange: their "
    "controls.",
    "growth": "Blue: the method, mean and range of its seeds. Orange: its controls. Grey: all "
    "other methods. All panels have one scale.",
}


def _role(table: ComparisonTable, method: str) -> str:
    """Colour of a method: tested, a control of another, or neither."""
    if table.comparison.methods[method].controls:
        return NET
    named = {c for name in table.methods for c in table.comparison.methods[name].controls}
    return INDEX if method in named else MUTED


def _beside(places: np.ndarray, lines: np.ndarray | None = None) -> list[tuple[int, int]]:
    """For each dot at ``places`` (N, 2), in pixels, where its number stands free of the others.

    ``lines`` (M, 2) are points of lines that are in the way too.
    """
    taken = [tuple(place) for place in (*places, *(() if lines is None else lines))]
    out = []
    for x, y in places:
        gaps = np.abs(np.array(BESIDE)[:, None] + (x, y) - np.array(taken)) / APART
        room = gaps.max(axis=-1).min(axis=-1)
        # The first that is free, or the one with the most room.
        best = BESIDE[int(np.argmax(np.minimum(room, 0.9)))]
        out.append(best)
        taken.append((x + best[0], y + best[1]))
    return out


def _write(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at ``x`` of the panel's width and at the data's ``y``."""
    ax.text(x, y, text, transform=ax.get_yaxis_transform(), fontsize=SMALL, **style)
