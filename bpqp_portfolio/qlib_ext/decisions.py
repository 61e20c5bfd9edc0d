"""From a model's scores to target weights and what each day's decision was worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..backtest.learned_risk import LearnedRisk
from ..data.features.panel import DayBatch
from ..errors import DataError
from ..losses import information_coefficient
from ..portfolio.problem import PortfolioProblem
from ..problems.solution import SolveStatus
from .dataset import PortfolioDataset
from .model import row_index


def decide(
    dataset: PortfolioDataset,
    scores: pd.Series,
    segment: str = "test",
    chunk: int = 128,
    learned_risk: LearnedRisk | None = None,
) -> tuple[pd.Series, pd.DataFrame]:
    """Weights and daily figures of ``scores`` on a segment.

    Parameters
    ----------
    scores : indexed by (datetime, instrument); names without a risk model that day are ignored.
    learned_risk : what decides besides; by default the dataset's problem and its statistical risk,
        by which a decision is judged in any case.

    Returns
    -------
    Positive weights indexed by (datetime, instrument), and a frame by day with ``regret`` and
    ``decision_value`` (fractions per day), ``ic``, ``rank_ic``, ``mse`` (these five NaN on a day
    whose returns are not known yet), ``kkt_norm``, ``iterations``, ``status``, ``universe``.
    ``mse`` is on one scale for all models, see :func:`scaled_error`.

    Raises
    ------
    DataError
        A name of the day's problem has no finite score.
    """
    scores = problem_scores(dataset, scores, segment)
    learned_risk = learned_risk or LearnedRisk(dataset.problem)
    problem = learned_risk.problem
    weights, rows = [], []
    learned = _days_of(learned_risk.log_factors, dataset, segment)
    start = 0
    for batch, table, *said in _batches(dataset, segment, chunk, *_rows_of(scores, learned_risk)):
        if said:
            batch = replace(batch, log_specific=said[0])
        if learned is not None:
            batch = replace(batch, log_factors=learned[start : start + len(table)])
        start += len(table)
        solution = problem.solve(table, batch)
        weights.append(solution.w[batch.mask])
        rows.append(
            {
                **_figures(problem, batch, table, solution.w),
                "kkt_norm": solution.kkt_norm,
                "iterations": solution.iterations,
                "status": solution.status,
                "universe": batch.mask.sum(-1),
            }
        )
    frame = _by_day(dataset, segment, rows)
    frame["status"] = frame["status"].map({one.code: one.label for one in SolveStatus})
    series = pd.Series(torch.cat(weights).numpy(), index=scores.index, name="weight")
    return series[series > 0], frame


def appraise(
    dataset: PortfolioDataset,
    scores: pd.Series,
    weights: pd.Series,
    segment: str = "test",
    chunk: int = 128,
) -> pd.DataFrame:
    """Daily figures of ``weights`` that another rule made of ``scores``, both by (day, name).

    As :func:`decide` has them, without those of the solver. A day without weights held nothing; of
    names outside of the day's problem nothing is counted.
    """
    scores = problem_scores(dataset, scores, segment)
    held = weights.reindex(scores.index).fillna(0.0)
    rows = [
        {**_figures(dataset.problem, batch, table, w), "universe": batch.mask.sum(-1)}
        for batch, table, w in _batches(dataset, segment, chunk, scores, held)
    ]
    return _by_day(dataset, segment, rows)


def worth_of_held(
    dataset: PortfolioDataset,
    held: pd.Series,
    days: pd.DatetimeIndex,
    segment: str = "test",
    chunk: int = 128,
) -> pd.DataFrame:
    """``regret`` and ``decision_value``, as fractions a day, of what an account really held.

    Parameters
    ----------
    held : weights by (signal day, name): of the invested part of the account, at the close at which
        the signal was traded. A signal day of ``days`` without any held nothing; of names outside
        of the day's problem nothing is counted.
    days : signal days that were traded; of the others, nothing is known.

    Where what is held lies outside of the problem's limits, regret can be below zero.
    """
    index = row_index(dataset.prepared_panel(), dataset.days(segment))
    weights = held.reindex(index).fillna(0.0)
    rows = [
        _worth(dataset.problem, batch, w) for batch, w in _batches(dataset, segment, chunk, weights)
    ]
    frame = _by_day(dataset, segment, rows)
    frame.loc[~frame.index.isin(days)] = np.nan
    return frame


def _rows_of(scores: pd.Series, learned_risk: LearnedRisk) -> list[pd.Series]:
    """The scores, and what is said of the specific variance of their names, where it is."""
    said = learned_risk.log_specific
    return [scores] if said is None else [scores, said.reindex(scores.index)]


def _days_of(
    table: pd.DataFrame | None, dataset: PortfolioDataset, segment: str
) -> torch.Tensor | None:
    """Rows (T, k) of the segment's days, None where there is no table."""
    if table is None:
        return None
    dates = dataset.prepared_panel().dates[dataset.days(segment).numpy()]
    return torch.tensor(table.reindex(pd.DatetimeIndex(dates)).to_numpy(), dtype=torch.float64)


def problem_scores(dataset: PortfolioDataset, scores: pd.Series, segment: str) -> pd.Series:
    """``scores`` of the names and days of the segment's problems, in the panel's order.

    Raises
    ------
    DataError
        One of them has no finite score.
    """
    index = row_index(dataset.prepared_panel(), dataset.days(segment))
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


def _batches(
    dataset: PortfolioDataset, segment: str, chunk: int, *columns: pd.Series
) -> Iterator[tuple[Any, ...]]:
    """Batches of the segment's days, and the tables (T, n) of ``columns`` with its rows."""
    panel = dataset.prepared_panel()
    dataset.fill_oracle_values([segment])
    values = [torch.tensor(c.to_numpy(), dtype=torch.float64) for c in columns]
    start = 0
    for part in dataset.days(segment).split(chunk):
        batch = panel.batch(part, features=False)
        end = start + int(batch.mask.sum())
        yield batch, *(batch.pad(v[start:end]) for v in values)
        start = end


def _figures(
    problem: PortfolioProblem, batch: DayBatch, scores: torch.Tensor, w: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What weights and scores (T, n) of the batch were worth, each (T,)."""
    rank = _ranks(scores, batch.earned), _ranks(batch.returns, batch.earned)
    return {
        **_worth(problem, batch, w),
        "ic": information_coefficient(scores, batch.returns, batch.earned),
        "rank_ic": information_coefficient(*rank, batch.earned),
        **_moments(scores, batch.returns, batch.earned),
    }


def _worth(problem: PortfolioProblem, batch: DayBatch, w: torch.Tensor) -> dict[str, torch.Tensor]:
    """What weights (T, n) were worth, each (T,)."""
    # At the end of the calendar nobody knows yet what a decision was worth.
    unknown = ~batch.earned.any(-1)
    return {
        "regret": problem.regret(w, batch).masked_fill(unknown, torch.nan),
        "decision_value": problem.value(w, batch).masked_fill(unknown, torch.nan),
    }


def _by_day(
    dataset: PortfolioDataset, segment: str, rows: list[dict[str, torch.Tensor]]
) -> pd.DataFrame:
    dates = dataset.prepared_panel().dates[dataset.days(segment).numpy()]
    columns = {key: torch.cat([row[key] for row in rows]).numpy() for key in rows[0]}
    if set(MOMENTS) <= set(columns):
        columns["mse"] = scaled_error(*(columns.pop(name) for name in MOMENTS))
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
