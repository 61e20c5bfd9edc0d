"""Draw the README's picture from the demonstration's run: python docs/picture.py bpqp_demo

Right after `make demo`, in the checkout; writes docs/images/demo.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from bpqp_portfolio.report.style import EQUAL, GRID, GROSS, INDEX, INK, MUTED, NET
from bpqp_portfolio.report.truth import truth_table
from bpqp_portfolio.runs.tracked import find_results

COLOURS = {
    "True optimum": EQUAL,
    "End to end": NET,
    "Two stages": INDEX,
    "Equal weights": GROSS,
}
LINES = {"realised": {"lw": 1.8}, "expected": {"lw": 1.2, "ls": (0, (4, 2))}}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
}


def growth(axis: Axes, truth: pd.DataFrame) -> None:
    """What both methods earned over equal weights after cost: sums, as it came and expected."""
    for name in ("End to end", "Two stages"):
        days = truth[truth["portfolio"] == name].set_index("datetime")
        for figure, look in (
            ("realised", {"lw": 1.8}),
            ("expected", {"lw": 1.2, "ls": (0, (4, 2))}),
        ):
            values = 100 * days[figure].fillna(0.0).cumsum()
            label = name if figure == "realised" else f"{name}, expected"
            axis.plot(values.index, values, color=COLOURS[name], label=label, **look)
    axis.set_title("Over equal weights, net of cost, sum in %")
    axis.grid(axis="y")
    axis.margins(x=0)
    locator = AutoDateLocator(maxticks=6)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.legend(frameon=False, fontsize=9.5, loc="upper left")


def regrets(axis: Axes, table: pd.DataFrame) -> None:
    """True regret of each portfolio, with its interval."""
    names = ["End to end", "Two stages", "Equal weights"]
    values, errors = (1e4 * table.loc[names, key] for key in ("regret", "regret_error"))
    axis.barh(names, values, xerr=errors, color=[COLOURS[n] for n in names],
              error_kw={"ecolor": MUTED, "lw": 1}, height=0.55)  # fmt: skip
    for place, (value, error) in enumerate(zip(values, errors, strict=True)):
        axis.text(value + error + 0.02 * values.max(), place, f"{value:.1f}", va="center")
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * (values + errors).max())
    axis.tick_params(axis="y", length=0)
    axis.set_title("True regret, basis points a day, 95 %")
    axis.grid(axis="x")


def main() -> None:
    results = find_results(sys.argv[1])
    table = truth_table(results.truth, results.days_per_year)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for axis in (left, right):
            axis.set_axisbelow(True)
        growth(left, results.truth)
        regrets(right, table)
        path = Path(__file__).parent / "images" / "demo.png"
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=120, facecolor="white")
    print(table.round(5).to_string())
    print(path)


if __name__ == "__main__":
    main()
