"""The list of the report's figures: section, title, caption and the function that draws each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from ..files.atomic import replacing_file
from ..runs.results import RunResults
from . import figures_holdings, figures_mandate, figures_model, figures_returns, figures_truth
from .style import NARROW, WIDE, drawing, to_svg


@dataclass(frozen=True)
class Plot:
    """One figure of the report.

    ``draw(results, width)`` returns a figure ``width`` pixels wide, or None where the run has
    nothing to show; the page then shows ``absent`` in its place.
    """

    key: str
    section: str
    title: str
    caption: str
    absent: str
    draw: Callable[[RunResults, int], Figure | None]


PLOTS = (
    Plot(
        "growth",
        "summary",
        "Cumulative return",
        "Wealth grown from 1 by compounding daily returns, without and with trading cost, beside "
        "the index and the equally weighted universe, neither of which pays any cost.",
        "The run has no daily returns.",
        figures_returns.growth,
    ),
    Plot(
        "truth",
        "truth",
        "Return over equal weights, after cost",
        "Daily returns added up: by the market's true means, left, where nothing is luck, "
        "and as they were drawn, right. The optimum knows the truth.",
        "The test is a single day.",
        figures_truth.cumulated,
    ),
    Plot(
        "excess",
        "performance",
        "Excess return",
        "Daily return of the portfolio minus that of the benchmark, compounded, in percent; the "
        "table's drawdown over the benchmark is the largest fall of this curve.",
        "The run has no benchmark return.",
        figures_returns.excess,
    ),
    Plot(
        "drawdown",
        "performance",
        "Drawdown",
        "Fall of compounded wealth from its highest point so far, in percent; the deepest is the "
        "table's drawdown.",
        "The run has no daily returns.",
        figures_returns.drawdowns,
    ),
    Plot(
        "ratio",
        "performance",
        "Rolling information ratio",
        "Mean over standard deviation of the daily excess return in a moving window, times the "
        "root of the trading days in a year, with cost (solid) and without (dashed).",
        "The run has no benchmark return, or too few days for a window.",
        figures_returns.ratio,
    ),
    Plot(
        "ic",
        "signal",
        "IC by month",
        "Mean over the month's signal days of the cross-sectional Pearson correlation between "
        "forecast and realised return: blue above zero, red below, no unit.",
        "The run has no IC.",
        figures_model.ic_by_month,
    ),
    Plot(
        "signal",
        "signal",
        "IC and regret over time",
        "Moving averages of the daily IC and Rank IC (Spearman), and of the daily regret: what "
        "the decision lost against the hindsight portfolio of the same problem, in percent.",
        "The run has neither IC nor regret, or a single day of them.",
        figures_model.signal,
    ),
    Plot(
        "learning",
        "learning",
        "Learning curves",
        "Prediction loss and decision loss by epoch on train and valid, each in its loss's own "
        "unit, and the validation IC. The dashed line is the epoch whose network was kept; where "
        "several networks decide together, each has a line of its own.",
        "This model was not trained in epochs, so it has no learning curves.",
        figures_model.learning,
    ),
    Plot(
        "weights",
        "portfolio",
        "Weights over time",
        "Target weights by signal day of the names with the largest mean weight, in stronger "
        "colour for more, with each name's mean over all days. They are fractions of the part of "
        "the account that is invested; the rest pays costs and is lost to whole lots.",
        "The run has no target weights.",
        figures_holdings.weights,
    ),
    Plot(
        "concentration",
        "portfolio",
        "Concentration and turnover",
        "Names held at the close, effective names 1/Σw² of the targets, the largest target "
        "weight, and one-way turnover: half of buys plus sells over account value.",
        "The run has neither holdings nor turnover.",
        figures_holdings.concentration,
    ),
    Plot(
        "realised",
        "portfolio",
        "Target against realised",
        "Sum over names of |target − realised weight| at the close of the trading day after the "
        "signal, both in percent of the whole account, cash included (at most 200), and orders "
        "stopped by limits or suspensions.",
        "The run has no realised weights to compare its targets with.",
        figures_holdings.realised,
    ),
    Plot(
        "binding",
        "mandate",
        "Constraints that bound",
        "Signal days on which each constraint had a shadow price, in stronger colour for more of "
        "them, and the share of all decided days.",
        "No constraint bound on any day.",
        figures_mandate.binding,
    ),
    Plot(
        "prices",
        "mandate",
        "What constraints cost",
        "Dual of the constraints that bound most often, by signal day: the expected return a day, "
        "in basis points, that one percentage point more of the limit would have brought.",
        "No constraint bound on any day.",
        figures_mandate.shadow_prices,
    ),
    Plot(
        "shortfall",
        "mandate",
        "What kept realised from target weights",
        "Difference at the close of the trading day, in three parts that add up: prices moved "
        "between decision and trade, orders are whole lots, and orders were not filled; and the "
        "return that each earned until the next close.",
        "The run has no orders to compare its targets with.",
        figures_mandate.implementation_shortfall,
    ),
    Plot(
        "solver",
        "solver",
        "Solver health",
        "KKT norm (scaled residual of the optimality conditions, no unit, anything below 10⁻¹⁶ "
        "drawn there, red dots where the solve failed), iterations, and days by status.",
        "The run has no solver figures.",
        figures_model.solver,
    ),
)


def inline_svgs(plot: Plot, results: RunResults) -> tuple[str, str] | None:
    """``plot`` as two SVG elements for the page, wide and narrow, or None without data."""
    svgs = []
    for width in (WIDE, NARROW):
        with drawing():
            figure = plot.draw(results, width)
            if figure is None:
                return None
            svgs.append(to_svg(figure, f"{plot.key}{width}", plot.title))
    return svgs[0], svgs[1]


def write_figures(results: RunResults, folder: Path | str) -> list[Path]:
    """Write each figure that the run has data for as an SVG file of its own; their paths."""
    paths = []
    for plot in PLOTS:
        with drawing():
            figure = plot.draw(results, WIDE)
            if figure is None:
                continue
            svg = to_svg(figure, plot.key, plot.title, themed=False)
        with replacing_file(Path(folder) / f"{plot.key}.svg") as path:
            path.write_text(svg, encoding="utf-8")
        paths.append(Path(folder) / f"{plot.key}.svg")
    return paths
