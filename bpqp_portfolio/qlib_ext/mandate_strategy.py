"""Qlib strategy that solves the day's mandate from the weights that are really held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.strategy.base import BaseStrategy

from ..backtest.day_inputs import DayInputs
from ..backtest.rebalance import BookRules, Rebalance, rebalance
from ..portfolio.mandate.mandate import Mandate


class MandateStrategy(BaseStrategy):
    """At each step, decide with what the close of the day before has shown, and order that.

    Orders are sized at the close of the signal day and traded at the next close. A name that is
    suspended or at the limit in the order's direction then does not trade; a sale at the upper
    limit and a purchase at the lower one do. Sales come before purchases, large orders before
    small ones; Qlib's exchange cuts what the cash cannot pay.

    Parameters
    ----------
    mandate : what is solved.
    inputs : signal day → :class:`DayInputs`, or None for a day without a forecast, which holds.
    rules : invested part, lots and costs.
    plans : filled with trading day → :class:`Rebalance`.
    """

    def __init__(
        self,
        *,
        mandate: Mandate,
        inputs: Callable[[pd.Timestamp], DayInputs | None],
        rules: BookRules,
        plans: dict[pd.Timestamp, Rebalance],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mandate, self.inputs, self.rules, self.plans = mandate, inputs, rules, plans

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """The orders of the step."""
        step = self.trade_calendar.get_trade_step()
        start, end = self.trade_calendar.get_step_time(step)
        signal_day, _ = self.trade_calendar.get_step_time(step, shift=1)
        known = self.inputs(pd.Timestamp(signal_day).normalize())
        if known is None:
            return TradeDecisionWO([], self)
        position = self.trade_position
        plan = rebalance(
            self.mandate, known, position.get_stock_amount_dict(), position.get_cash(), self.rules
        )
        self.plans[pd.Timestamp(start).normalize()] = plan
        trade = plan.table["trade"]
        value = (trade * plan.table["price"])[trade != 0]
        # Sales first, and among them the large ones first.
        order = value.index[np.lexsort((-value.abs(), value > 0))]
        return TradeDecisionWO(
            [
                Order(
                    stock_id=name,
                    amount=float(abs(trade[name])),
                    direction=OrderDir.BUY if trade[name] > 0 else OrderDir.SELL,
                    start_time=start,
                    end_time=end,
                )
                for name in order
            ],
            self,
        )
