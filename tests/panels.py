"""Small panels and days, random and by hand, for the tests of portfolio, losses and training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bpqp_portfolio.data.features.panel import DailyPanel, DayBatch, previous_rows

# What block losses ask of a problem besides its limits.
STATED = {"costs": {"buy": 0.0005, "sell": 0.0015, "minimum": 5.0}, "days_per_year": 252}


def paying(cost: float) -> dict[str, Any]:
    """Settings of a problem that pays ``cost`` for what is bought and for what is sold."""
    return {"costs": {"buy": cost, "sell": cost, "minimum": 0.0}, "trading_costs": True}


def random_panel(
    days: int = 20,
    names: int = 12,
    features: int = 4,
    factors: int = 2,
    *,
    window: int = 1,
    seed: int = 0,
    unknown: float = 0.1,
    dtype: torch.dtype = torch.float32,
) -> DailyPanel:
    """Days whose universes differ; the return has a part that a nonlinear function of the first
    two features explains; a share ``unknown`` of labels and returns is NaN."""
    rng = np.random.default_rng(seed)
    members = [
        np.sort(rng.choice(names, size=rng.integers(max(2, names // 2), names + 1), replace=False))
        for _ in range(days)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in members])])
    name_index = np.concatenate(members)
    rows = len(name_index)
    x = rng.normal(size=(rows, features))
    score = 0.5 * x[:, 0] + 0.5 * np.tanh(2 * x[:, 1]) + rng.normal(size=rows)
    label = np.empty(rows)
    for start, end in itertools.pairwise(offsets):
        day = score[start:end]
        label[start:end] = (day - day.mean()) / day.std()
    label[rng.random(rows) < unknown] = np.nan
    return DailyPanel(
        dates=np.datetime64("2020-01-01") + np.arange(days),
        names=np.array([f"SH{600000 + i}" for i in range(names)]),
        offsets=torch.from_numpy(offsets),
        name_index=torch.from_numpy(name_index),
        features=torch.tensor(x, dtype=dtype),
        label=torch.tensor(label, dtype=dtype),
        returns=torch.from_numpy(0.02 * label),
        loadings=torch.from_numpy(0.01 * rng.normal(size=(rows, factors))),
        specific=torch.from_numpy((0.02 * rng.uniform(0.5, 2.0, size=rows)) ** 2),
        previous=torch.from_numpy(previous_rows(name_index)),
        oracle_value=torch.full((days,), torch.nan, dtype=torch.float64),
        window=window,
    )


def days_by_hand(
    returns: Sequence[Sequence[float]],
    *,
    names: Sequence[Sequence[int]] | None = None,
    days: Sequence[int] | None = None,
    specific: float | Sequence[float] = 0.05,
    shared: float = 0.0,
) -> DayBatch:
    """Days (T, n) of ``returns``, consecutive and of the same ``names`` unless they are given.

    Specific variances are ``specific``, and each name has the loading ``shared`` on one factor; a
    name of -1 is padding.
    """
    y = torch.tensor(returns, dtype=torch.float64)
    T, n = y.shape
    codes = torch.arange(n).expand(T, n) if names is None else torch.tensor(names)
    mask = codes >= 0
    variance = torch.as_tensor(specific, dtype=torch.float64).expand(T, n)
    return DayBatch(
        features=torch.zeros(int(mask.sum()), 1, 1),
        mask=mask,
        label=torch.zeros_like(y),
        known=mask,
        earned=mask,
        returns=y,
        loadings=torch.full((T, n, 1), shared, dtype=torch.float64),
        specific=torch.where(mask, variance, 0.0),
        oracle_value=torch.full((T,), torch.nan, dtype=torch.float64),
        days=torch.arange(T) if days is None else torch.tensor(days),
        names=codes,
    )
