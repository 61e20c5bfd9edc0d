"""What a report says of the truth of a simulated market."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bpqp_portfolio.report.truth import truth_gain, truth_sentences, truth_table


def judged(days: int = 100, **portfolios: float) -> pd.DataFrame:
    """A table of the truth in which every portfolio's figures are one number and a common wave."""
    dates = pd.bdate_range("2020-01-01", periods=days)
    wave = np.repeat([1e-4, -1e-4], 20)[np.arange(days) % 40]
    return pd.concat(
        pd.DataFrame(
            {
                "datetime": dates,
                "portfolio": name.replace("_", " "),
                "regret": value + wave,
                "expected": value,
                "realised": np.where(np.arange(days) == days - 1, np.nan, value + wave),
                "turnover": 0.1,
            }
        )
        for name, value in portfolios.items()
    )


def test_means_a_year_and_their_intervals_by_blocks_of_twenty_days():
    table = truth_table(judged(This_run=1e-3), 252)
    row = table.loc["This run"]
    assert row["regret"] == pytest.approx(1e-3 + 1e-4 * (60 - 40) / 100)
    assert row["expected"] == pytest.approx(0.252) and row["expected_error"] == pytest.approx(0)
    blocks = 1e-4 * np.array([1, -1, 1, -1, 1])
    error = blocks.std(ddof=1) / math.sqrt(5) * stats.t.ppf(0.975, 4)
    assert row["regret_error"] == pytest.approx(error)
    # The last day's return is not known yet: 99 days, four whole blocks.
    error = blocks[:4].std(ddof=1) / 2 * stats.t.ppf(0.975, 3)
    assert row["realised_error"] == pytest.approx(252 * error)


def test_too_few_days_have_no_interval():
    row = truth_table(judged(days=39, This_run=1e-3), 252).loc["This run"]
    assert math.isfinite(row["regret"]) and math.isnan(row["regret_error"])


def test_differences_are_paired_by_day():
    gain = truth_gain(judged(A=1e-3, B=3e-3), "A", "B", 252)
    assert gain["regret"] == pytest.approx(-2e-3)
    assert gain["regret_error"] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("portfolios", "words"),
    [
        (
            {"True_optimum": 0.0, "End_to_end": 1e-3, "Two_stages": 2e-3, "Equal_weights": 3e-3},
            "End to end has 50 % less true regret than two stages: 10.20 against 20.20 basis",
        ),
        (
            {"True_optimum": 0.0, "End_to_end": 3e-3, "Two_stages": 2e-3, "Equal_weights": 3e-3},
            "End to end has 50 % more true regret than two stages: 30.20 against 20.20 basis",
        ),
        (
            {"True_optimum": 0.0, "This_run": 1e-3, "Equal_weights": 3e-3},
            "This run has a true regret of 10.20 basis points a day, equal weights 30.20.",
        ),
    ],
)
def test_the_sentences_say_which_is_better(run, changed, portfolios, words):
    said = truth_sentences(changed(truth=judged(**portfolios)))
    assert words in said[0].replace("\N{NO-BREAK SPACE}", " ")
    assert truth_sentences(changed(truth=pd.DataFrame())) == []
