"""What scores and portfolios of a segment were worth, day by day, and the weights of a problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from ..data.features.panel import DailyPanel
from ..errors import DataError
from ..losses import information_coefficient
from ..portfolio.problem import PortfolioProblem
from ..problems.solution import SolveStatus
from .learned_risk import LearnedRisk

CHUNK = 128  # days that are solved or judged at once


class StudyData(Protocol):
    """What an appraisal asks of a study's data, as
    :class:`~bpqp_portfolio.qlib_ext.dataset.PortfolioDataset` has it."""

    @property
    def problem(self) -> PortfolioProblem:
        """The decision problem."""
        ...

    def prepared_panel(self) -> DailyPanel:
        """The panel of all segments' days."""
        ...

    def days(self, segment: str) -> torch.Tensor:
        """Positions (D,) of a segment's days in the panel."""
        ...

    def fill_oracle_values(self, segments: list[str]) -> None:
        """Solve the days of ``segments`` with perfect foresight, into the panel."""


def decide(
    dataset: StudyData,
    scores: pd.Series,
    segment: str = "test",
    learned_risk: LearnedRisk | None = None,
) -> tuple[pd.Series, pd.DataFrame]:
    """Weights that the problem makes of ``scores`` on a segment, blind to what is held.

    Parameters
    ----------
    scores : indexed by (datetime, instrument); names without a risk model that day are ignored.
    learned_risk : what decides besides; by default the dataset's problem and its statistical risk.

    Returns
    -------
    Positive weights indexed by (datetime, instrument), and the solver's ``kkt_norm``,
    ``iterations`` and ``status`` by day.

    Raises
    ------
    DataError
        A name of the day's problem has no finite score.
    """
    scores = problem_scores(dataset, scores, segment)
    learned_risk = learned_risk or LearnedRisk(dataset.problem)
    specific, factors = learned_risk.log_specific, learned_risk.log_factors
    columns = [scores] if specific is None else [scores, specific.reindex(scores.index)]
    panel, problem = dataset.prepared_panel(), learned_risk.problem
    weights, rows = [], []
    for batch, table, *log_specific in _batches(dataset, segment, *columns):
        if log_specific:
            batch = replace(batch, log_specific=log_specific[0])
        if factors is not None:
            dates = pd.DatetimeIndex(panel.dates[batch.days.numpy()])
            scales = torch.tensor(factors.reindex(dates).to_numpy(), dtype=torch.float64)
            batch = replace(batch, log_factors=scales)
        solution = problem.solve(table, batch)
        weights.append(solution.w[batch.mask])
        rows.append(
            {
                "kkt_norm": solution.kkt_norm,
                "iterations": solution.iterations,
                "status": solution.codes,
            }
        )
    frame = _by_day(dataset, segment, rows)
    frame["status"] = frame["status"].map({one.code: one.label for one in SolveStatus})
    series = pd.Series(torch.cat(weights).numpy(), index=scores.index, name="weight")
    return series[series > 0], frame


def score_figures(dataset: StudyData, scores: pd.Series, segment: str = "test") -> pd.DataFrame:
    """What ``scores`` by (datetime, instrument) said of returns, whatever was made of them.

    By day: ``ic``, ``rank_ic`` and ``mse`` (NaN on a day whose returns are not known yet; the last
    on one scale for all models, see :func:`scaled_error`), and ``universe``, names in the problem.
    """
    scores = problem_scores(dataset, scores, segment)
    rows = []
    for batch, table in _batches(dataset, segment, scores):
        ranks = _ranks(table, batch.earned), _ranks(batch.returns, batch.earned)
        rows.append(
            {
                "ic": information_coefficient(table, batch.returns, batch.earned),
                "rank_ic": information_coefficient(*ranks, batch.earned),
                **_moments(table, batch.returns, batch.earned),
                "universe": batch.mask.sum(-1),
            }
        )
    frame = _by_day(dataset, segment, rows)
    frame.insert(2, "mse", scaled_error(*(frame.pop(name).to_numpy() for name in MOMENTS)))
    return frame


def appraise(
    dataset: StudyData,
    weights: pd.Series,
    segment: str = "test",
    days: pd.DatetimeIndex | None = None,
) -> pd.DataFrame:
    """``regret`` and ``decision_value`` by day, as fractions, of what an account held.

    Parameters
    ----------
    weights : by (signal day, name): of the invested part of the account, at the close at which the
        signal was traded. A signal day without any held nothing; of names outside of the day's
        problem nothing is counted.
    days : signal days that were traded; of the others, nothing is known. By default all.

    Both are judged by the statistical risk, and NaN on a day whose returns are not known yet. Where
    what is held lies outside of the problem's limits, regret can be below zero.
    """
    index = dataset.prepared_panel().index(dataset.days(segment))
    held, problem = weights.reindex(index).fillna(0.0), dataset.problem
    dataset.fill_oracle_values([segment])
    rows = []
    for batch, w in _batches(dataset, segment, held):
        # At the end of the calendar nobody knows yet what a decision was worth.
        unknown = ~batch.earned.any(-1)
        rows.append(
            {
                "regret": problem.regret(w, batch).masked_fill(unknown, torch.nan),
                "decision_value": problem.value(w, batch).masked_fill(unknown, torch.nan),
            }
        )
    frame = _by_day(dataset, segment, rows)
    if days is not None:
        frame.loc[~frame.index.isin(days)] = np.nan
    return frame


def problem_scores(dataset: StudyData, scores: pd.Series, segment: str) -> pd.Series:
    """``scores`` of the names and days of the segment's problems, in the panel's order.

    Raises
    ------
    DataError
        One of them has no finite score.
    """
    index = dataset.prepared_panel().index(dataset.days(segment))
    # Qlib's models index by (datetime, instrument), in any order of rows.
    aligned = scores.reindex(index)
    missing = ~np.isfinite(aligned.to_numpy())
    if missing.any():
        date, name = index[missing][0]
        raise DataError(
            f"{missing.sum()} names of the {segment} problem have no finite score, the first "
            f"{name} on {date:%Y-%m-%d}: the model must score every row of the handler."
        )
    return aligned


def _batches(dataset: StudyData, segment: str, *columns: pd.Series) -> Iterator[tuple[Any, ...]]:
    """Batches of the segment's days, and the tables (T, n) of ``columns`` with its rows."""
    panel = dataset.prepared_panel()
    values = [torch.tensor(c.to_numpy(), dtype=torch.float64) for c in columns]
    start = 0
    for part in dataset.days(segment).split(CHUNK):
        batch = panel.batch(part, features=False)
        end = start + int(batch.mask.sum())
        yield batch, *(batch.pad(v[start:end]) for v in values)
        start = end


def _by_day(dataset: StudyData, segment: str, rows: list[dict[str, torch.Tensor]]) -> pd.DataFrame:
    dates = dataset.prepared_panel().dates[dataset.days(segment).numpy()]
    columns = {key: torch.cat([row[key] for row in rows]).numpy() for key in rows[0]}
    return pd.DataFrame(columns, index=pd.DatetimeIndex(dates, name="datetime"))


MOMENTS = ("_with_returns", "_of_scores")


def _moments(
    scores: torch.Tensor, returns: torch.Tensor, known: torch.Tensor
) -> dict[str, torch.Tensor]:
    """By day, (T,): the mean product of scores and standardised returns over the names whose return
    is known, and the scores' variance; NaN on a day without such names."""
    count = known.sum(-1, keepdim=True)

    def centred(values: torch.Tensor) -> torch.Tensor:
        kept = values.double().masked_fill(~known, 0.0)
        return (kept - kept.sum(-1, keepdim=True) / count).masked_fill(~known, 0.0)

    x, y = centred(scores), centred(returns)
    spread = (y.square().sum(-1) / count[..., 0]).sqrt()
    product = (x * y).sum(-1) / count[..., 0] / spread
    return dict(zip(MOMENTS, (product, x.square().sum(-1) / count[..., 0]), strict=True))


def scaled_error(with_returns: np.ndarray, of_scores: np.ndarray) -> np.ndarray:
    """Mean squared error by day, (T,), on a scale that all models share.

    Realised daily returns are standardised over the names of each day (mean 0, variance 1), scores
    are centred by day and multiplied by one factor, the one b >= 0 that suits all of the days best:
    mean over names of (y − b s)² = 1 − 2 b·``with_returns`` + b²·``of_scores``. So a model's unit,
    its label's horizon and the spread of its scores do not enter; that its scores differ more on
    days on which it knows more, does. 1 is the error of a model that knows nothing, and 1 less the
    mean error is the share of variance explained, R². With one factor for some hundred thousand
    returns, fitting it on the days themselves flatters nobody.
    """
    known = np.isfinite(with_returns) & np.isfinite(of_scores)
    spread = of_scores[known].mean() if known.any() else 0.0
    factor = max(0.0, with_returns[known].mean() / spread) if spread > 0 else 0.0
    error = 1 - 2 * factor * with_returns + factor**2 * of_scores
    return np.where(known, error, np.nan)


def _ranks(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Average ranks of the known values of each day (ties share theirs)."""
    frame = pd.DataFrame(np.where(known.numpy(), values.numpy(), np.nan))
    return torch.from_numpy(frame.rank(axis=1).fillna(0.0).to_numpy(copy=True))
