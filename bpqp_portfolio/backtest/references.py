"""What regret is compared with: that of equal weights, and of decisions on shuffled scores."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from .appraisal import StudyData, appraise, decide, problem_scores
from .learned_risk import LearnedRisk

LEAST_DAYS = 1000
"""Days that are decided on shuffled scores at least, a short segment's more than once."""


def regret_references(
    dataset: StudyData,
    scores: pd.Series,
    segment: str = "test",
    learned_risk: LearnedRisk | None = None,
    days: pd.DatetimeIndex | None = None,
) -> pd.DataFrame:
    """Regret by day, as fractions, of portfolios that know nothing.

    Parameters
    ----------
    scores : indexed by (datetime, instrument).
    learned_risk : what decides besides the scores; see :func:`~.appraisal.decide`.
    days : signal days that were traded; NaN on the others. By default all.

    Returns
    -------
    ``regret_equal`` of equal weights in all names of the day's problem; ``regret_shuffled`` of what
    the problem decides when the day's scores are dealt out to its names at random, the mean of as
    many draws as make :data:`LEAST_DAYS` days. Both hold exactly what they want: no lots, limits or
    suspensions. Hindsight's own regret is zero.
    """
    scores = problem_scores(dataset, scores, segment)
    by_day = scores.groupby(level="datetime", sort=False)
    equal = 1 / by_day.transform("size").astype(float)
    random = np.random.default_rng(0)
    draws = math.ceil(LEAST_DAYS / by_day.ngroups)
    shuffled = [
        decide(dataset, by_day.transform(random.permutation), segment, learned_risk)[0]
        for _ in range(draws)
    ]
    regrets = [
        appraise(dataset, weights, segment, days)["regret"] for weights in (equal, *shuffled)
    ]
    return pd.DataFrame(
        {"regret_equal": regrets[0], "regret_shuffled": sum(regrets[1:]) / draws},
    )
