"""From a model's scores to target weights and what each day's decision was worth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..errors import DataError
from ..losses import information_coefficient
from ..portfolio.layer import STATUS_NAMES
from .dataset import PortfolioDataset
from .model import row_index


def decide(
    dataset: PortfolioDataset, scores: pd.Series, segment: str = "test", chunk: int = 128
) -> tuple[pd.Series, pd.DataFrame]:
    """Weights and daily figures of ``scores`` on a segment.

    Parameters
    ----------
    scores : indexed by (datetime, instrument); names without a risk model that day are ignored.

    Returns
    -------
    Positive weights indexed by (datetime, instrument), and a frame by day with ``regret`` and
    ``decision_value`` (fractions per day), ``ic``, ``rank_ic`` (these four NaN on a day whose
    returns are not known yet), ``kkt_norm``, ``iterations``, ``status``, ``universe``.

    Raises
    ------
    DataError
        A name of the day's problem has no finite score.
    """
    panel = dataset.prepared_panel()
    days = dataset.days(segment)
    index = row_index(panel, days)
    # Qlib's models index by (datetime, instrument), in any order of rows.
    aligned = scores.reindex(index)
    missing = ~np.isfinite(aligned.to_numpy())
    if missing.any():
        date, name = index[missing][0]
        raise DataError(
            f"{missing.sum()} names of the {segment} problem have no finite score, the first "
            f"{name} on {date:%Y-%m-%d}: the model must score every row of the handler."
        )
    values = torch.from_numpy(aligned.to_numpy(dtype=np.float64, copy=True))
    problem = dataset.problem
    dataset.fill_optimal([segment])
    weights, rows, start = [], [], 0
    for part in days.split(chunk):
        batch = panel.batch(part, features=False)
        count = int(batch.mask.sum())
        table = batch.pad(values[start : start + count])
        start += count
        solution = problem.solve(table, batch)
        weights.append(solution.w[batch.mask])
        rank = _ranks(table, batch.known), _ranks(batch.returns, batch.known)
        # At the end of the calendar nobody knows yet what a decision was worth.
        unknown = ~batch.known.any(-1)
        rows.append(
            {
                "regret": problem.regret(solution.w, batch).masked_fill(unknown, torch.nan),
                "decision_value": problem.value(solution.w, batch).masked_fill(unknown, torch.nan),
                "ic": information_coefficient(table, batch.returns, batch.known),
                "rank_ic": information_coefficient(*rank, batch.known),
                "kkt_norm": solution.kkt_norm,
                "iterations": solution.iterations,
                "status": solution.status,
                "universe": batch.mask.sum(-1),
            }
        )
    frame = pd.DataFrame(
        {key: torch.cat([row[key] for row in rows]).numpy() for key in rows[0]},
        index=pd.DatetimeIndex(panel.dates[days.numpy()], name="datetime"),
    )
    frame["status"] = frame["status"].map(STATUS_NAMES)
    series = pd.Series(torch.cat(weights).numpy(), index=index, name="weight")
    return series[series > 0], frame


def _ranks(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Average ranks of the known values of each day (ties share theirs)."""
    frame = pd.DataFrame(np.where(known.numpy(), values.numpy(), np.nan))
    return torch.from_numpy(frame.rank(axis=1).fillna(0.0).to_numpy(copy=True))
