"""What the portfolios of a simulated market were worth by its truth: table, sentence, section."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

BLOCK = 20
"""Days whose mean counts as one observation, since the features of neighbouring days overlap."""
BASIS_POINTS = 1e4


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
