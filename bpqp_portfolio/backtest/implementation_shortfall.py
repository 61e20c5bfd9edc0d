"""Target against realised weights of a backtest: what made them differ, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .rebalance import Rebalance

CAUSES = ("drift", "lots", "unfilled")


def implementation_shortfall(
    plans: Mapping[pd.Timestamp, Rebalance],
    positions: Mapping[pd.Timestamp, Any],
    prices: pd.DataFrame,
    risk_degree: float,
) -> pd.DataFrame:
    """Differences of realised and target weights by trading day, as fractions of the account.

    A name's difference at the close of a trading day is the sum of three: ``drift`` (orders are
    sized at the close of the signal day, prices move until they are traded), ``lots`` (orders are
    whole lots that the cash can pay) and ``unfilled`` (suspended or at a limit when traded, or cut
    for want of cash).

    Parameters
    ----------
    plans : trading day → decision that was traded then.
    positions : trading day → Qlib's position at its close.
    prices : (T, N) closes that accounts are valued at, without gaps, by day.
    risk_degree : part of the account that target weights are fractions of.

    Returns
    -------
    By trading day: ``gap`` Σ|realised − target|, ``gap_CAUSE`` the same of each part;
    ``gap_return`` Σ(realised − target)·r with r the names' returns to the next close, and
    ``gap_return_CAUSE`` (below zero: the difference lost that much; NaN on the last day);
    ``orders``, and ``unfilled`` and ``cut`` of them that were not and not wholly filled.
    """
    rows = {}
    days = prices.index
    for date, plan in plans.items():
        names = plan.table.index
        position = positions[date]
        amount = pd.Series(position.get_stock_amount_dict(), dtype=float)
        got = amount.reindex(names, fill_value=0.0).to_numpy()
        at = days.get_loc(date)
        price = prices.iloc[at].reindex(names).to_numpy()
        unit = np.nan_to_num(price) / position.calculate_value()
        held, trade = plan.table["held"].to_numpy(), plan.table["trade"].to_numpy()
        wanted = plan.table["wanted"].to_numpy()
        target = risk_degree * plan.table["target"].to_numpy()
        parts = {
            "drift": wanted * unit - target,
            "lots": (held + trade - wanted) * unit,
            "unfilled": (got - held - trade) * unit,
        }
        if at + 1 < len(days):
            later = prices.iloc[at + 1].reindex(names).to_numpy()
            returns = np.nan_to_num(later / price - 1)
        else:
            returns = np.full(len(names), np.nan)
        total = sum(parts.values())
        sizes = np.abs(trade) > 0
        missed = np.abs(got - held - trade) > 1e-6 * np.maximum(np.abs(trade), 1e-9)
        nothing = np.isclose(got, held, rtol=1e-9, atol=0.0)
        rows[date] = {
            "gap": np.abs(total).sum(),
            **{f"gap_{cause}": np.abs(part).sum() for cause, part in parts.items()},
            "gap_return": float(total @ returns),
            **{f"gap_return_{cause}": float(part @ returns) for cause, part in parts.items()},
            "orders": float(sizes.sum()),
            "unfilled": float((sizes & nothing).sum()),
            "cut": float((sizes & missed & ~nothing).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("datetime")
