"""What a trade costs: one definition for the optimiser, the backtest and the orders of tomorrow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import check_number

# Beyond this a rate was meant in per cent.
LARGEST_RATE = 0.1

ASK_COSTS = (
    "State what a trade costs, zero too: `mandate: {costs: {buy: 0.0005, sell: 0.0015, minimum: "
    "5}}` (fractions of the value traded, and currency an order)."
)


@dataclass(frozen=True)
class TradingCosts:
    """What an order costs. Nothing has a default: a cost is stated, zero too.

    The optimiser and the losses see the two rates; the minimum, which is not convex, is for orders
    alone.

    Parameters
    ----------
    buy : [fraction of the value traded] rate of what is bought, at most 0.1.
    sell : [fraction of the value traded] rate of what is sold, at most 0.1, stamp duty included.
    minimum : [currency] least fee of an order, in the backtest and in tomorrow's orders.

    Raises
    ------
    ConfigError
        A rate outside [0, 0.1], or a minimum below zero.

    Examples
    --------
    >>> TradingCosts(buy=0.0005, sell=0.0015, minimum=5.0).turnover
    0.001
    """

    buy: float
    sell: float
    minimum: float

    def __post_init__(self) -> None:
        for name in ("buy", "sell"):
            check_number(getattr(self, name), name, low=0, high=LARGEST_RATE)
        check_number(self.minimum, "minimum", low=0)

    @property
    def turnover(self) -> float:
        """Mean of the two rates, a fraction of the value traded: a portfolio that stays invested
        buys what it sells."""
        return (self.buy + self.sell) / 2

    def of_orders(self, value: np.ndarray) -> np.ndarray:
        """Fee of each order, for signed values traded (n,) in currency: buys above zero."""
        fee = np.maximum(np.where(value > 0, self.buy, self.sell) * np.abs(value), self.minimum)
        return np.where(value == 0, 0.0, fee)
