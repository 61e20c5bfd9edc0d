"""Figures of what the portfolio earned: wealth, excess, drawdown and rolling information ratio."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from ..runs.results import RunResults
from .metrics import FEWEST, books, drawdown, wealth
from .style import EQUAL, GROSS, INDEX, NET, baseline, date_axis, heading, is_wide, line, panels

ROLLING = 120
"""Trading days of the rolling information ratio."""


def rolling_window(days: int, length: int) -> int:
    """``length`` days, or half of a sample that is too short to show anything with it."""
    return max(2, min(length, days // 2))


def rolling_ratio(returns: pd.Series, window: int, days_per_year: float) -> pd.Series:
    """mean / std (ddof 1) · √days_per_year of the last ``window`` days, NaN before it is full."""
    rolling = returns.rolling(window)
    std = rolling.std(ddof=1)
    return rolling.mean() / std.where(std > 0) * math.sqrt(days_per_year)


def growth(results: RunResults, width: int) -> Figure:
    """Compounded wealth of the portfolio, without and with cost, and of both benchmarks."""
    series = books(results)
    figure, (ax,) = panels(width, [300 if is_wide(width) else 230], legend=4)
    for rank, (name, colour, label) in enumerate(
        (
            ("net", NET, "with cost"),
            ("gross", GROSS, "without cost"),
            ("index", INDEX, results.benchmark),
            ("equal", EQUAL, "equal weights"),
        )
    ):
        curve = wealth(series[name])
        if curve.notna().any():
            last = curve.dropna().iloc[-1]
            thickness = 2 if name == "net" else 1.4
            line(
                ax, curve, colour, f"{label} {last:.2f}", linewidth=thickness, zorder=3 - rank / 10
            )
    baseline(ax, 1)
    date_axis(ax, curve.index)
    heading(ax, "Growth of 1, compounded (final value in the legend)", legend=True)
    return figure


def excess(results: RunResults, width: int) -> Figure | None:
    """Compounded excess return over each benchmark, without and with cost."""
    series = books(results)
    shown = [
        (name, label)
        for name, label in (("index", results.benchmark), ("equal", "equal weights"))
        if series[f"gross_{name}"].notna().any()
    ]
    if not shown:
        return None
    columns = len(shown) if is_wide(width) else 1
    figure, axes = panels(width, [200] * len(shown), columns=columns, legend=2)
    for ax, (name, label) in zip(axes, shown, strict=True):
        for book, colour, title in (("net", NET, "with cost"), ("gross", GROSS, "without cost")):
            curve = 100 * (wealth(series[f"{book}_{name}"]) - 1)
            if curve.notna().any():
                last = curve.dropna().iloc[-1]
                line(ax, curve, colour, f"{title} {_percent(last, '+.1f')}")
        baseline(ax, 0)
        date_axis(ax, curve.index)
        heading(ax, f"Over {label}, %, compounded", legend=True, columns=columns)
    low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(min(low), max(high))
    return figure


def drawdowns(results: RunResults, width: int) -> Figure:
    """Drawdown of compounded wealth: the portfolio with cost and both benchmarks."""
    series = books(results)
    has_cost = series["net"].notna().any()
    figure, (ax,) = panels(width, [190], legend=3)
    for name, colour, label, thickness in (
        ("net", NET, "with cost", 1.6) if has_cost else ("gross", NET, "without cost", 1.6),
        ("index", INDEX, results.benchmark, 1.0),
        ("equal", EQUAL, "equal weights", 1.0),
    ):
        fall = 100 * drawdown(series[name])
        if fall.notna().any():
            text = f"{label} {_percent(fall.min(), '.1f')}"
            line(ax, fall, colour, text, linewidth=thickness, zorder=1 + thickness)
            if name in ("net", "gross"):
                ax.fill_between(fall.index, fall.to_numpy(), 0, color=colour, alpha=0.12, lw=0)
    date_axis(ax, fall.index)
    ax.set_ylim(top=0)
    heading(ax, "Below the highest wealth so far, % (deepest in the legend)", legend=True)
    return figure


def ratio(results: RunResults, width: int) -> Figure | None:
    """Rolling information ratio over both benchmarks, with cost (thick) and without (dashed)."""
    series = books(results)
    window = rolling_window(len(results.daily), ROLLING)
    if window < FEWEST:
        return None
    figure, (ax,) = panels(width, [220 if is_wide(width) else 190], legend=4)
    for name, colour, label in (
        ("index", INDEX, results.benchmark),
        ("equal", EQUAL, "equal weights"),
    ):
        for book, title, style in (
            ("net", "with cost", {"linewidth": 1.8}),
            ("gross", "without", {"linewidth": 1.1, "alpha": 0.7, "linestyle": (0, (4, 2))}),
        ):
            values = rolling_ratio(series[f"{book}_{name}"], window, results.days_per_year)
            if values.notna().any():
                line(ax, values, colour, f"{label}, {title}", **style)
    if not ax.lines:
        return None
    baseline(ax, 0)
    date_axis(ax, results.daily.index)
    year = f"a year of {results.days_per_year:g}"
    heading(ax, f"Over the last {window} trading days, {year}", legend=True)
    return figure


def _percent(value: float, form: str) -> str:
    return f"{value:{form}} %".replace("-", "−")
