"""Figures of a comparison: gains over controls, return against turnover, and growth by method."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

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
    panels,
    shorten,
)
from .columns import MINUS, p_text
from .table import ComparisonTable, Paired

WIDTH = 1080
"""Pixels that a figure is drawn at; narrower pages scroll it."""
ROW, SMALL = 20, 11
APART = np.array([15.0, 11.0])  # pixels between two numbers, or a number and a dot
BESIDE = [
    (round(radius * dx * APART[0]), round(radius * dy * APART[1]))
    for radius in (1.0, 1.5, 2.0)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
]
"""Where a number may stand about its dot, in pixels; the first that is free."""
WIDE_RANGE = 4  # of turnover, from which on its axis is logarithmic


def gains(table: ComparisonTable) -> Figure | None:
    """A forest of the paired net differences: point, interval and corrected p for each control."""
    if not table.paired:
        return None
    rows: list[Paired | str] = []
    for method in dict.fromkeys(p.method for p in table.paired):
        rows += [method, *table.gains(method)]
    left, right = 330, 250
    figure, (ax,) = panels(WIDTH, [ROW * len(rows)], left=left, right=right, bottom=30)
    inside = WIDTH - left - right
    for y, row in enumerate(rows):
        if isinstance(row, str):
            name = shorten(table.title(row), 46)
            _write(ax, -left / inside, y, name, color=INK, fontweight="bold", va="center")
            if y:
                ax.axhline(y - 0.5, -left / inside, 1 + right / inside, color=GRID, clip_on=False)
            continue
        colour = NET if row.holds else BAD if row.net.high < 0 else MUTED
        low, point, high = (100 * v for v in (row.net.low, row.net.annual, row.net.high))
        ax.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        inner = colour if row.holds else "white"
        ax.plot(point, y, "o", color=colour, markerfacecolor=inner, markersize=7, markeredgewidth=2)
        less = f"less {shorten(table.title(row.control), 42)}"
        _write(ax, (14 - left) / inside, y, less, color=MUTED, va="center")
        figures = f"{point:+.1f}  ({low:.1f} to {high:.1f})".replace("-", MINUS)
        _write(ax, 1 + 14 / inside, y, figures, color=INK, va="center")
        p_value = p_text(row.p_value).replace(" ", "\N{NO-BREAK SPACE}")
        _write(ax, 1 + right / inside, y, f"p {p_value}", color=colour, va="center", ha="right")
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=1.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks([])
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x")
    level = f"{table.paired[0].net.level:.0%}"
    heading(ax, f"Net return less the control's, points a year; {level} interval; p by Holm")
    return figure


def frontier(table: ComparisonTable) -> Figure:
    """Excess return over the index against turnover: gross, net, and cost as the line between."""
    methods = table.methods
    legend = 350
    height = max(380, SMALL * 1.75 * len(methods))
    figure, (ax,) = panels(WIDTH, [int(height)], left=52, right=legend)
    means = table.runs.groupby(level="method").mean()
    points = []
    for method in methods:
        own, mean = 100 * table.runs.loc[method], 100 * means.loc[method]
        x, colour = mean["turnover"], _role(table, method)
        ax.plot([x, x], [mean["net_index"], mean["gross_index"]], color=colour, alpha=0.35)
        ax.scatter(own["turnover"], own["net_index"], s=9, color=colour, alpha=0.45, linewidths=0)
        ax.scatter(x, mean["gross_index"], s=26, facecolors="white", edgecolors=colour)
        ax.scatter(x, mean["net_index"], s=46, color=colour, zorder=3)
        points.append((x, mean["net_index"]))
    baseline(ax, 0)
    ax.margins(x=0.06, y=0.08)
    turnover = means["turnover"]
    if turnover.min() > 0 and turnover.max() > WIDE_RANGE * turnover.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    places = ax.transData.transform(np.array(points))
    for number, shift in enumerate(_beside(places)):
        colour = _role(table, methods[number])
        style = {"ha": "center", "va": "center", "fontweight": "bold", "zorder": 4}
        style |= {"color": colour, "size": SMALL}
        beside(ax, str(number + 1), points[number], "data", shift, **style)
    inside = WIDTH - 52 - legend
    for number, method in enumerate(methods):
        y = 1 - (number + 0.5) * min(19, height / len(methods)) / height
        title, colour = shorten(table.title(method), 46), _role(table, method)
        shown: dict[str, Any] = {"transform": ax.transAxes, "va": "center", "fontsize": SMALL}
        end = 1 + 40 / inside
        ax.text(end, y, str(number + 1), color=colour, ha="right", fontweight="bold", **shown)
        ax.text(end + 8 / inside, y, title, color=INK, **shown)
    heading(ax, "Over the index, % a year, by one-way turnover, % a day. ○ gross   ● net   | cost")
    return figure


def growth(table: ComparisonTable) -> Figure:
    """Summed net excess over the index, a panel for each method: mean and range of its seeds, among
    its controls and all others."""
    methods, columns = table.methods, 3
    paths = {name: 100 * table.net[name].sub(table.index, axis=0).cumsum() for name in methods}
    figure, axes = panels(WIDTH, [130] * len(methods), columns=columns, legend=1, bottom=30)
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
        date_axis(ax, table.index.index)
        title = "\n".join(textwrap.wrap(table.title(method), 46)[:2])
        heading(ax, title, columns=columns)
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    return figure


CAPTIONS = {
    "gains": "Filled: a gain after the correction for all comparisons. A method is worth its "
    "training only if every line under its name is.",
    "frontier": "Blue: methods that are tested against controls. Orange: their controls. Small "
    "dots are single seeds, net.",
    "growth": "Blue: the method, mean and range of its seeds. Orange: its controls. Grey: all "
    "other methods. All panels have one scale.",
}


def _role(table: ComparisonTable, method: str) -> str:
    """Colour of a method: tested, a control of another, or neither."""
    if table.comparison.methods[method].controls:
        return NET
    named = {c for name in table.methods for c in table.comparison.methods[name].controls}
    return INDEX if method in named else MUTED


def _beside(places: np.ndarray) -> list[tuple[int, int]]:
    """For each dot at ``places`` (N, 2), in pixels, where its number stands free of the others."""
    taken = [tuple(place) for place in places]
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
