"""The figure of a simulated market: what portfolios earned by its truth, and what was drawn."""

from __future__ import annotations

from matplotlib.figure import Figure

from ..backtest.truth import END_TO_END, EQUAL, OPTIMUM, TWO_STAGES
from ..runs.results import RunResults
from .style import EQUAL as GREEN
from .style import GROSS, INDEX, NET, baseline, date_axis, heading, is_wide, line, panels

COLOURS = {OPTIMUM: GROSS, END_TO_END: NET, TWO_STAGES: INDEX, EQUAL: GREEN}


def cumulated(results: RunResults, width: int) -> Figure | None:
    """Return over equal weights after cost, added up: by the truth, and as drawn beside it."""
    truth = results.truth
    if truth["datetime"].nunique() < 2:
        return None
    figure, axes = panels(width, [220] * 2, columns=2 if is_wide(width) else 1, legend=4, left=46)
    for ax, figure_of in zip(axes, ("expected", "realised"), strict=True):
        for name, days in truth.groupby("portfolio", sort=False):
            curve = 100 * days.set_index("datetime")[figure_of].cumsum()
            line(ax, curve, COLOURS.get(str(name), NET), str(name))
        baseline(ax, 0)
        date_axis(ax, curve.index)
    low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax, text in zip(axes, ("By the truth, %", "As drawn, %"), strict=True):
        ax.set_ylim(min(low), max(high))
        heading(ax, text, legend=True, columns=len(axes) if is_wide(width) else 1)
    return figure
