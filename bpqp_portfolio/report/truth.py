"""What the portfolios of a simulated market were worth by its truth: table, sentence, section."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from ..backtest.truth import END_TO_END, EQUAL, TWO_STAGES
from ..runs.results import RunResults

BLOCK = 20
"""Days whose mean counts as one observation, since the features of neighbouring days overlap."""
BASIS_POINTS = 1e4
SPACE = "\N{NO-BREAK SPACE}"
TITLE = "Returns over equal weights, after cost, ± half a 95 % interval"
HEADERS = {
    "true regret": "bp a day",
    "bought": "% a day",
    "expected": "% a year",
    "realised": "% a year",
}
"""Columns of the table, and their units."""
CAPTION = (
    "True regret is f(w) − f(w*) with the day's true mean and covariance. Expected, by the truth, "
    "and realised return are over equal weights and after cost, ± half of a 95 % interval. Each "
    "portfolio is held exactly and in full; the optimum is that of the day's problem, which knows "
    "no cost."
)


def truth_table(truth: pd.DataFrame, days_per_year: float) -> pd.DataFrame:
    """Means over the test days by portfolio, with half-widths of their 95 % intervals.

    ``regret`` and ``turnover`` are fractions a day; ``expected`` and ``realised``, over equal
    weights and after cost, fractions a year; ``regret_error`` and the like the half-widths.

    Parameters
    ----------
    truth : table of :func:`~bpqp_portfolio.backtest.truth.judge_by_truth`.
    """
    rows = {}
    for name, days in truth.groupby("portfolio", sort=False):
        row = {"turnover": days["turnover"].mean()}
        for figure, scale in _SCALES.items():
            mean, error = _mean(days[figure])
            unit = days_per_year if scale else 1.0
            row |= {figure: unit * mean, f"{figure}_error": unit * error}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


_SCALES = {"regret": False, "expected": True, "realised": True}
"""Figures, and whether they are given a year."""


def truth_gain(
    truth: pd.DataFrame, better: str, worse: str, days_per_year: float
) -> dict[str, float]:
    """Figures of ``better`` less those of ``worse``, paired by day; keys as of a row above."""
    tables = [truth[truth["portfolio"] == name].set_index("datetime") for name in (better, worse)]
    difference = tables[0].drop(columns="portfolio") - tables[1].drop(columns="portfolio")
    difference = difference.assign(portfolio="").reset_index()
    return truth_table(difference, days_per_year).iloc[0].to_dict()


def truth_sentences(results: RunResults) -> list[str]:
    """What the truth says of the run, with half-widths of 95 % intervals; none without a truth."""
    truth, year = results.truth, results.days_per_year
    if truth.empty:
        return []
    table = truth_table(truth, year)
    own = table.index[1]  # between the optimum and the others
    if own != END_TO_END:
        equal = basis_points(table.loc[EQUAL, "regret"])
        return [
            f"{own} has a true regret of {basis_points(table.loc[own, 'regret'])} basis points a "
            f"day, equal weights {equal}."
        ]
    gain = truth_gain(truth, END_TO_END, TWO_STAGES, year)
    before, after = (table.loc[name, "regret"] for name in (TWO_STAGES, END_TO_END))
    share = 100 * abs(gain["regret"]) / before
    side = "less" if gain["regret"] < 0 else "more"
    realised = (
        ""
        if abs(gain["realised"]) > gain["realised_error"]
        else (", which alone is not distinguishable from chance")
    )
    return [
        f"End to end has {share:.0f}{SPACE}% {side} true regret "
        f"than two stages: {basis_points(after)} against {basis_points(before)} basis points a day "
        f"({plus_minus(BASIS_POINTS * gain['regret'], BASIS_POINTS * gain['regret_error'])}).",
        f"By the truth that is {plus_minus(100 * gain['expected'], 100 * gain['expected_error'])}"
        f"{SPACE}% a year after cost; in the days that were drawn, "
        f"{plus_minus(100 * gain['realised'], 100 * gain['realised_error'])}{SPACE}% a year"
        f"{realised}.",
    ]


def truth_rows(results: RunResults) -> list[tuple[str, list[str]]]:
    """Rows of the table as text: a portfolio, and a cell for each of :data:`HEADERS`."""
    table = truth_table(results.truth, results.days_per_year)
    return [
        (
            str(name),
            [
                basis_points(row["regret"]),
                f"{100 * row['turnover']:.0f}",
                plus_minus(100 * row["expected"], 100 * row["expected_error"]),
                plus_minus(100 * row["realised"], 100 * row["realised_error"]),
            ],
        )
        for name, row in table.iterrows()
    ]


def basis_points(value: float) -> str:
    """A fraction in basis points, 1e-4."""
    return f"{BASIS_POINTS * value:z.2f}"


def plus_minus(value: float, error: float) -> str:
    """A signed figure with half of its interval.

    >>> plus_minus(-1.234, 0.31)
    '−1.2 ± 0.3'
    """
    return f"{value:+z.1f} ± {error:.1f}".replace("-", "−")


def _mean(days: pd.Series) -> tuple[float, float]:
    """Mean of a daily series and half of its 95 % interval, by Student's t over BLOCK-day means.

    NaN days are left out; the half-width is NaN with fewer than two blocks.
    """
    values = days.dropna().to_numpy()
    blocks = values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)
    if len(blocks) < 2:
        return float(values.mean()) if len(values) else math.nan, math.nan
    error = float(blocks.std(ddof=1)) / math.sqrt(len(blocks))
    return float(values.mean()), error * float(stats.t.ppf(0.975, len(blocks) - 1))
