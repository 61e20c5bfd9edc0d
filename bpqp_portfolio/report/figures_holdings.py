"""Figures of what was held: weights over time, concentration, turnover, target against realised."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..runs.results import RunResults
from .figures_returns import rolling_window
from .style import (
    BAD,
    GROSS,
    INDEX,
    NET,
    NO_PANEL,
    beside,
    date_axis,
    heading,
    heat_map,
    in_groups,
    is_wide,
    line,
    no_panel,
    panels,
    shorten,
    value_axis,
)

SHOWN = 30
"""Names in the heat map of weights."""

SMOOTHING = 20
"""Trading days of the moving average of turnover."""


def mean_weights(results: RunResults) -> pd.Series:
    """Mean target weight of each name over all signal days, the largest first."""
    weights = results.weights
    days = weights["datetime"].nunique()
    total = weights.groupby("instrument", observed=True)["weight"].sum()
    return (total / max(days, 1)).sort_values(ascending=False, kind="stable")


def weight_map(results: RunResults) -> tuple[pd.DataFrame, pd.DatetimeIndex, int]:
    """Target weights of the most held names as :func:`~.style.in_groups` has them.

    A name outside the portfolio weighs 0.
    """
    names = mean_weights(results).index[:SHOWN]
    days = pd.DatetimeIndex(np.sort(results.weights["datetime"].unique()))
    chosen = results.weights[results.weights["instrument"].isin(names)]
    table = chosen.pivot(index="datetime", columns="instrument", values="weight")
    return in_groups(table.reindex(index=days, columns=names).fillna(0.0))


def weights(results: RunResults, width: int) -> Figure | None:
    """Heat map of the target weights of the most held names over time."""
    if results.weights.empty:
        return None
    table, edges, length = weight_map(results)
    means = 100 * mean_weights(results)
    left, right = (78, 60) if is_wide(width) else (70, 44)
    highest = table.to_numpy().max()
    labels = [shorten(name, 10) for name in table.index]
    notes = [f"{means[name]:.2f}" for name in table.index]
    strength = table.to_numpy() / highest
    figure, ax = heat_map(
        width, 16 * len(table), edges, strength, labels, notes, left=left, right=right
    )
    beside(ax, "mean %", (1, 1), "axes fraction", (6, 14))
    detail = "" if length == 1 else f", means of {length} days"
    full = f"full colour = {100 * highest:.1f} %{detail}"
    heading(ax, f"Target, % of the invested part; {full}" if is_wide(width) else full.capitalize())
    return figure


def concentration(results: RunResults, width: int) -> Figure | None:
    """Names held and effective names, the largest target weight, and one-way turnover."""
    days = results.daily.index
    held = results.series("daily", "names_held")
    effective = results.series("daily", "effective_names")
    turnover = 100 * results.series("daily", "turnover") / 2
    largest = 100 * results.weights.groupby("datetime")["weight"].max().astype(float)
    parts = [
        part
        for part, there in (
            ("names", held.notna().any() or effective.notna().any()),
            ("largest", len(largest)),
            ("turnover", turnover.notna().any()),
        )
        if there
    ]
    if not parts:
        return None
    traded = bool(turnover.any())
    heights = [NO_PANEL if part == "turnover" and not traded else 130 for part in parts]
    entries = [
        0 if part == "largest" or height == NO_PANEL else 2
        for part, height in zip(parts, heights, strict=True)
    ]
    figure, axes = panels(width, heights, legend=entries)
    for ax, part in zip(axes, parts, strict=True):
        if part == "turnover" and not traded:
            no_panel(ax, "One-way turnover: none, the account never traded")
            continue
        if part == "names":
            for series, colour, label in (
                (held, INDEX, "held"),
                (effective, NET, "effective, 1/Σw²"),
            ):
                if series.notna().any():
                    line(ax, series, colour, label, linewidth=1.2)
            heading(ax, "Names", legend=True)
        elif part == "largest":
            line(ax, largest, NET, linewidth=1.2)
            heading(ax, "Largest target weight, % of the invested part")
            ax.set_ylim(top=1.1 * largest.max())
        else:
            window = rolling_window(len(days), SMOOTHING)
            mean = turnover.rolling(window, min_periods=1).mean()
            line(ax, turnover, GROSS, "each day", linewidth=0.7)
            line(ax, mean, NET, f"{window}-day mean")
            heading(ax, "One-way turnover a day, % of the account", legend=True)
        ax.set_ylim(bottom=0)
        date_axis(ax, days)
    return figure


def tracking(results: RunResults) -> pd.Series:
    """Σ|target − realised| by trading day, from 0 (held as wished) to 2 (nothing in common).

    The target of signal day t, a fraction of the invested part and here of the account, belongs to
    the next day of ``results.daily``, at whose close it is traded; cash counts on neither side.
    Empty where targets or realised weights are missing.
    """
    if results.weights.empty or results.realised.empty:
        return pd.Series(dtype=float)
    days = results.daily.index
    target = results.weights.assign(day=next_day(results.weights["datetime"], days))
    realised = results.realised.rename(columns={"datetime": "day"})
    common = set(target["day"].dropna()) & set(realised["day"])
    key = ["day", "instrument"]
    wide = pd.concat(
        {
            "target": target[target["day"].isin(common)].set_index(key)["weight"]
            * results.risk_degree,
            "realised": realised[realised["day"].isin(common)].set_index(key)["weight"],
        },
        axis=1,
    ).fillna(0.0)
    return (wide["target"] - wide["realised"]).abs().groupby(level="day").sum()


def next_day(stamps: pd.Series, days: pd.DatetimeIndex) -> pd.Series:
    """The first of ``days`` after each of ``stamps``, NaT past the last."""
    position = days.searchsorted(stamps.to_numpy(), side="right")
    padded = days.append(pd.DatetimeIndex([pd.NaT]))
    return pd.Series(padded[position], index=stamps.index)


def realised(results: RunResults, width: int) -> Figure | None:
    """Distance of the realised from the target weights, and the orders that were blocked."""
    gap = tracking(results)
    blocked = results.series("daily", "blocked")
    parts = [
        part for part, there in (("gap", len(gap)), ("blocked", blocked.notna().any())) if there
    ]
    if not parts:
        return None
    orders = results.series("daily", "orders").sum()
    heights = {"gap": 150, "blocked": 90 if blocked.any() else NO_PANEL}
    figure, axes = panels(width, [heights[part] for part in parts])
    for ax, part in zip(axes, parts, strict=True):
        if part == "blocked" and not blocked.any():
            of = f" of {int(orders):,}" if orders else ""
            no_panel(ax, f"Orders that could not be traded: none{of}")
            continue
        if part == "gap":
            line(ax, 100 * gap, NET, linewidth=1)
            heading(ax, f"Σ|target − realised|, % of the account (mean {100 * gap.mean():.1f})")
            ax.set_ylim(bottom=0)
        else:
            ax.vlines(blocked.index, 0, blocked.to_numpy(), color=BAD, linewidth=1)
            heading(ax, f"Orders that could not be traded ({int(blocked.sum()):,} in all)")
            ax.set_ylim(0, max(1, 1.05 * blocked.max()))
            value_axis(ax, integer=True)
        date_axis(ax, results.daily.index)
    return figure
