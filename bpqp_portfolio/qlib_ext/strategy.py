"""Qlib strategy that trades towards given target weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qlib.contrib.strategy.signal_strategy import WeightStrategyBase

from ..config import check_number
from ..errors import DataError


class TargetWeightStrategy(WeightStrategyBase):
    """Hold the weights decided at the close of day t, traded at the close of t+1.

    Parameters
    ----------
    signal : Series of target weights, non-negative, indexed by (datetime, instrument).
    blocked : filled with trading day → number of names that are held or wanted but are suspended
        or at a price limit that day.
    orders : filled with trading day → number of names that are held or wanted.
    risk_degree : fraction of the account that is invested, in (0, 1]. No default: Qlib's silent
        0.95 has surprised many.

    Raises
    ------
    ConfigError, DataError
        ``risk_degree`` is outside its range; a weight is negative or not finite.
    """

    def __init__(
        self,
        *,
        signal: pd.Series,
        risk_degree: float,
        blocked: dict[pd.Timestamp, int] | None = None,
        orders: dict[pd.Timestamp, int] | None = None,
        **kwargs: Any,
    ) -> None:
        check_number(risk_degree, "risk_degree", low=0, high=1, open_low=True)
        wrong = signal[~(np.isfinite(signal) & (signal >= 0))]
        if len(wrong):
            raise DataError(
                f"target weights: {len(wrong)} are negative or not finite, the first "
                f"{wrong.index[0]}; Qlib's backtest would drop them silently."
            )
        super().__init__(signal=signal, risk_degree=risk_degree, **kwargs)
        self.blocked = {} if blocked is None else blocked
        self.orders = {} if orders is None else orders

    def generate_target_weight_position(
        self,
        score: pd.Series | pd.DataFrame,
        current: Any,
        trade_start_time: pd.Timestamp,
        trade_end_time: pd.Timestamp,
    ) -> dict[str, float]:
        """Target weights of the day as name → weight, and a count of what cannot be traded."""
        weights = score.iloc[:, 0] if isinstance(score, pd.DataFrame) else score
        target = {str(name): float(w) for name, w in weights.items() if w > 0}
        wanted = set(target) | set(current.get_stock_list())
        self.orders[trade_start_time] = len(wanted)
        self.blocked[trade_start_time] = sum(
            not self.trade_exchange.is_stock_tradable(name, trade_start_time, trade_end_time)
            for name in wanted
        )
        return target
