"""What portfolios were worth by the truth of a simulated market, day by day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from ..data.features.panel import DailyPanel
from ..data.provider.simulate import Truth
from ..losses.account import trades
from ..portfolio.costs import TradingCosts
from .appraisal import StudyData

OPTIMUM, EQUAL = "True optimum", "Equal weights"
"""The portfolios that every table has besides those that are judged."""
END_TO_END, TWO_STAGES = "End to end", "Two stages"
"""A network trained on its decisions, and the one on its forecasts that it began as."""


def with_truth(panel: DailyPanel, truth: Truth) -> DailyPanel:
    """``panel`` with the true mean in place of returns, and the true covariance."""
    day = truth.dates.get_indexer(pd.DatetimeIndex(panel.dates)).repeat(panel.counts.numpy())
    name = pd.Index(truth.names).get_indexer(panel.names)[panel.name_index.numpy()]
    return replace(
        panel,
        returns=torch.from_numpy(truth.mu[day, name]),
        loadings=torch.from_numpy(truth.loadings[name]),
        specific=torch.from_numpy(truth.specific[name]),
        oracle_value=torch.full_like(panel.oracle_value, torch.nan),
    )


@torch.no_grad()
def judge_by_truth(
    data: StudyData, truth: Truth, weights: Mapping[str, pd.Series], costs: TradingCosts
) -> pd.DataFrame:
    """A row for each signal day of the test and each portfolio, in fractions of the account a day.

    ``regret`` is the true one, f(w) − f(w*) with the day's true mean and covariance. ``expected``
    and ``realised`` are the true expected and the realised return over equal weights, after cost;
    ``turnover`` what was bought. Each portfolio is held exactly and in full from the close of t+1
    to that of t+2; equal weights, as what the others are measured by, pay nothing, and the first
    day is bought free of cost. The true optimum solves the day's problem, which knows no cost.

    Parameters
    ----------
    weights : by name of the portfolio, weights > 0 by (signal day, instrument).
    """
    panel, problem, days = data.prepared_panel(), data.problem, data.days("test")
    known = with_truth(panel, truth)
    problem.fill_oracle_values(known, days)
    batch, true = (p.batch(days, features=False) for p in (panel, known))
    mask = batch.mask.double()
    equal = mask / mask.sum(-1, keepdim=True)
    index = panel.index(days)
    held = {OPTIMUM: problem.solve_exactly(true.returns, true).w}
    for name, series in weights.items():
        values = series.reindex(index).fillna(0.0).to_numpy()
        held[name] = batch.pad(torch.tensor(values, dtype=torch.float64))
    held[EQUAL] = equal
    dates = pd.DatetimeIndex(panel.dates[days.numpy()])
    earned = batch.earned.any(-1).numpy()

    tables = []
    for name, w in held.items():
        bought, sold = trades(w, batch)
        cost = costs.buy * bought + costs.sell * sold
        active = w - equal
        realised = ((active * batch.returns).sum(-1) - cost).numpy()
        figures = {
            "datetime": dates,
            "portfolio": name,
            "regret": problem.regret(w, true).numpy(),
            "expected": ((active * true.returns).sum(-1) - cost).numpy(),
            "realised": np.where(earned, realised, np.nan),
            "turnover": bought.numpy(),
        }
        tables.append(pd.DataFrame(figures))
    return pd.concat(tables, ignore_index=True)
