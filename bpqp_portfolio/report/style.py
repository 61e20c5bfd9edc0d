"""The look of every figure: colours for light and dark, panels laid out in pixels, SVG for a page.

A figure is drawn at 72 dpi, so that one point, one SVG unit and one CSS pixel are the same.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

COLOURS = {
    # name: (light, dark); every light colour occurs once, since the page finds it by its value.
    "ink": ("#1c2530", "#e4e8ee"),
    "muted": ("#5c6875", "#9aa6b4"),
    "grid": ("#e3e7ec", "#2b333d"),
    "net": ("#1f5fd6", "#6ea3ff"),
    "gross": ("#8fb5f5", "#3d6cb8"),
    "index": ("#d9722b", "#f0994f"),
    "equal": ("#0f8f78", "#43c2a6"),
    "bad": ("#c2334d", "#f27a8c"),
}
INK, MUTED, GRID, NET, GROSS, INDEX, EQUAL, BAD = (light for light, _ in COLOURS.values())

WIDE, NARROW = 860, 380
"""Widths in pixels that every figure is drawn at: the page shows the one that fits."""

NO_PANEL = 4
"""Height in pixels of a panel that is empty, and has one line of text above it."""

COLUMNS = 240
"""At most so many columns in a heat map: more days are averaged in groups of equal length."""

_RC: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 12,
    "legend.labelcolor": INK,
    "savefig.dpi": 144,  # of the parts that are pixels
}


@contextmanager
def drawing() -> Iterator[None]:
    """The settings of matplotlib while a figure is made; the caller's own come back after."""
    with mpl.rc_context(_RC):
        yield


def panels(
    width: int,
    heights: Sequence[int],
    *,
    columns: int = 1,
    legend: int | Sequence[int] = 0,
    left: int = 46,
    right: int = 12,
    bottom: int = 26,
    gap: int = 14,
) -> tuple[Figure, list[Axes]]:
    """A figure ``width`` pixels wide with one panel for each of ``heights``, row by row.

    ``legend`` is the number of entries of the panels' legends, one for all or one for each row:
    room for their lines is left above the panels, beside a line for the heading.
    """
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    entries = [legend] * len(rows) if isinstance(legend, int) else legend
    per_row = legend_columns(width // columns)
    tops = [32 + 19 * -(-count // per_row) for count in entries]
    height = sum(tops) + sum(rows) + bottom * len(rows) + gap * (len(rows) - 1)
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    cell = width / columns
    axes = []
    upper = height
    for row, panel_height in enumerate(rows):
        lower = upper - tops[row] - panel_height
        for column in range(min(columns, len(heights) - row * columns)):
            box = [column * cell + left, lower, cell - left - right, panel_height]
            ax = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            ax.patch.set_visible(False)
            ax.spines[["top", "left", "right"]].set_visible(False)
            ax.grid(axis="y")
            value_axis(ax)
            axes.append(ax)
        upper = lower - bottom - gap
    return figure, axes


def is_wide(width: int) -> bool:
    """Is there room for panels beside each other?"""
    return width >= 600


def legend_columns(width: int) -> int:
    """How many entries of a legend stand beside each other in ``width`` pixels."""
    return 4 if is_wide(width) else 2


def heading(ax: Axes, text: str, *, legend: bool = False, columns: int = 1) -> None:
    """Write what a panel shows, and its unit, above it; then its legend, where it has one.

    Both begin at the left edge of the panel's column, above the labels of the axis.
    """
    width, height = _pixels(ax)
    column = ax.figure.bbox.width / columns
    start = ax.get_position().x0 * ax.figure.bbox.width % column
    x, lines = -start / width, 0
    if legend:
        handles, labels = ax.get_legend_handles_labels()
        # matplotlib fills a legend by column; readers read by row.
        per_row = legend_columns(int(column))
        lines = -(-len(labels) // per_row)
        order = [i for c in range(per_row) for i in range(c, len(labels), per_row)]
        ax.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="lower left",
            bbox_to_anchor=(x, 1 + 11 / height),
            ncol=per_row,
            borderaxespad=0,
            borderpad=0,
            handlelength=1.3,
            handletextpad=0.5,
            columnspacing=1.4,
            labelspacing=0.4,
        )
    ax.text(x, 1 + (14 + 19 * lines) / height, text, transform=ax.transAxes, color=MUTED)


def date_axis(ax: Axes, days: pd.DatetimeIndex) -> None:
    """Dates along x, from the first to the last of ``days``: three or more, where days suffice."""
    width, _ = _pixels(ax)
    ticks, form = date_ticks(days, max(5, int(width // 80)))
    ax.set_xticks(mdates.date2num(ticks), [f"{day:{form}}" for day in ticks])
    if len(days) > 1:
        ax.set_xlim(days[0], days[-1])


# Distances of dates on an axis, the smallest first: a period's unit and how many of it; and the
# length of each unit in days.
_STEPS = [("D", 1), ("D", 2), ("D", 4), ("W", 1), ("W", 2)]
_STEPS += [("M", 1), ("M", 2), ("M", 3), ("M", 6)]
_STEPS += [("Y", 1), ("Y", 2), ("Y", 5), ("Y", 10), ("Y", 20), ("Y", 50)]
_LENGTHS = {"D": 1, "W": 7, "M": 30.4, "Y": 365.25}
_FORMS = {"D": "%d %b", "W": "%d %b", "M": "%Y-%m", "Y": "%Y"}


def date_ticks(days: pd.DatetimeIndex, most: int) -> tuple[pd.DatetimeIndex, str]:
    """From 3 to ``most`` (at least 5) round dates within ``days``, and the form of their labels.

    Days in order; all of them, where they are not more than ``most``.

    >>> ticks, form = date_ticks(pd.bdate_range("2015-01-02", "2022-12-27"), 5)
    >>> [f"{day:{form}}" for day in ticks]
    ['2016', '2018', '2020', '2022']
    """
    if len(days) <= most:
        return days, _FORMS["D"] if days[-1] - days[0] < pd.Timedelta(days=300) else "%Y-%m-%d"
    finer, finer_unit, span = days, "D", (days[-1] - days[0]).days
    for unit, step in _STEPS:
        if span > 5 * most * step * _LENGTHS[unit]:
            continue  # far too many
        ticks = _round_dates(days[0], days[-1], unit, step)
        if len(ticks) <= most:
            break
        finer, finer_unit = ticks, unit
    if len(ticks) >= 3:
        return ticks, _FORMS[unit]
    # No round distance fits: some of the next finer one's dates.
    return finer[:: -(-len(finer) // most)], _FORMS[finer_unit]


def _round_dates(first: pd.Timestamp, last: pd.Timestamp, unit: str, step: int) -> pd.DatetimeIndex:
    """Begins of every ``step``-th day (from the first), Monday's week, month or year within."""
    begins = pd.period_range(first, last, freq=unit).to_timestamp()
    count = {"M": begins.month - 1, "Y": begins.year}.get(unit, np.arange(len(begins)))
    return begins[(begins >= first) & (np.asarray(count) % step == 0)]


def value_axis(ax: Axes, *, integer: bool = False) -> None:
    """Three or more numbers along y, as many as its height has room for."""
    _, height = _pixels(ax)
    if integer:
        low, high = ax.get_ylim()
        ax.set_ylim(low, max(high, low + 2))
    bins = max(3, min(6, int(height // 30)))
    steps = [1, 2, 2.5, 5, 10]
    ax.yaxis.set_major_locator(MaxNLocator(bins, steps=steps, integer=integer, min_n_ticks=3))


def no_panel(ax: Axes, text: str) -> None:
    """One line in place of a panel that would be empty."""
    ax.set_axis_off()
    heading(ax, text)


def baseline(ax: Axes, value: float) -> None:
    """A thin line at the ``value`` that means nothing gained."""
    ax.axhline(value, color=MUTED, linewidth=0.8, zorder=1.5)


def line(ax: Axes, series: pd.Series, colour: str, label: str | None = None, **style) -> None:
    """One series over days; a lone point is drawn as a dot, since a line would not show it."""
    if series.notna().sum() == 1:
        style = {**style, "marker": "o", "markersize": 5}
    ax.plot(series.index, series.to_numpy(dtype=float), color=colour, label=label, **style)


def power_axis(ax: Axes) -> None:
    """A logarithmic y axis whose labels are plain text, 10⁻⁶ and not markup."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    ax.yaxis.set_minor_locator(NullLocator())


def power_of_ten(value: float) -> str:
    """The nearest power of ten as text.

    >>> power_of_ten(1e-6)
    '10⁻⁶'
    """
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def fade(colour: str, strength: np.ndarray) -> np.ndarray:
    """``colour`` at opacity ``strength`` in [0, 1], NaN transparent: (..., 4).

    Opacity lets the page's background through, so a heat map reads on light and on dark.
    """
    rgb = np.broadcast_to(mpl.colors.to_rgb(colour), (*strength.shape, 3))
    alpha = np.clip(np.nan_to_num(strength), 0, 1)
    return np.concatenate([rgb, alpha[..., None]], axis=-1)


def beside(
    ax: Axes, text: str, at: tuple, coordinates: Any, shift: tuple[int, int], **style: Any
) -> None:
    """A note ``shift`` pixels from the point ``at``."""
    style = {"color": MUTED, "size": 10, **style}
    ax.annotate(text, at, xycoords=coordinates, xytext=shift, textcoords="offset points", **style)


def heat_map(
    width: int,
    height: int,
    edges: pd.DatetimeIndex,
    strength: np.ndarray,
    labels: Sequence[str],
    notes: Sequence[str],
    **margins: int,
) -> tuple[Figure, Axes]:
    """A heat map over days, a row for each of ``labels``, with ``notes`` to the right of the rows.

    ``edges`` (C + 1,) of the columns; ``strength`` (rows, C) in [0, 1]; ``height`` of the panel in
    pixels; ``margins`` as in :func:`panels`.
    """
    figure, (ax,) = panels(width, [height], **margins)
    rows = len(labels)
    ax.pcolormesh(edges, np.arange(rows + 1) - 0.5, fade(NET, strength), rasterized=True)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_yticks(range(rows), labels, size=10)
    ax.grid(False)
    date_axis(ax, edges)
    for row, note in enumerate(notes):
        beside(ax, note, (1, row), ("axes fraction", "data"), (6, 0), va="center")
    return figure, ax


def in_groups(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DatetimeIndex, int]:
    """Rows (T, n) of days averaged in groups of equal length, at most :data:`COLUMNS` of them.

    Returns the means (n, groups), a column named by the first day of its group; the edges of the
    columns (groups + 1,); and the days in a group.
    """
    days = pd.DatetimeIndex(table.index)
    length = -(-len(days) // COLUMNS)
    means = table.groupby(np.arange(len(days)) // length).mean()
    means.index = days[::length]
    end = pd.DatetimeIndex([days[-1] + pd.Timedelta(days=1)])
    return means.T, days[::length].append(end), length


def shorten(text: str, length: int) -> str:
    """``text`` cut to ``length`` characters, the last an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1].rstrip(" ,") + "…"


def to_svg(figure: Figure, key: str, label: str, *, themed: bool = True) -> str:
    """``figure`` as one SVG element whose ids begin with ``key``, described by ``label``.

    ``themed`` puts the page's colour variables in place of colours; without it the SVG stands
    alone, in the light colours.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("}metadata") or child.tag.endswith("}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            name.rpartition("}")[2]: _attribute(name, value, key, themed)
            for name, value in element.attrib.items()
        }
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "role": "img",
        "aria-label": label,
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def css_colours(theme: int) -> str:
    """The custom properties of all colours, light (0) or dark (1)."""
    return " ".join(f"--{name}: {pair[theme]};" for name, pair in COLOURS.items())


_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}


def _attribute(name: str, value: str, key: str, themed: bool) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "d":
        return re.sub(r"(\.\d\d)\d+", r"\1", value)
    if name.endswith("href") and value.startswith("#"):
        return f"#{key}-{value[1:]}"
    value = value.replace("url(#", f"url(#{key}-")
    if themed and name in ("style", "fill", "stroke"):
        return re.sub(r"#[0-9a-f]{6}", lambda m: _VARIABLES.get(m[0], m[0]), value)
    return value


def _pixels(ax: Axes) -> tuple[float, float]:
    """Width and height of the panel."""
    box, figure = ax.get_position(), ax.figure.bbox
    return box.width * figure.width, box.height * figure.height
