"""Qlib's top-k dropout on the same scores, in the same exchange as the problem's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from qlib.contrib.strategy.signal_strategy import TopkDropoutStrategy

from ..backtest.appraisal import problem_scores
from ..backtest.learned_risk import LearnedRisk
from ..backtest.realised import held_by_signal
from ..config import check_number
from ..errors import ConfigError
from .exchange import BoardExchange
from .records import BacktestRecord, Decided


@dataclass(frozen=True)
class TopkDropoutConfig:
    """Settings of Qlib's top-k dropout.

    Parameters
    ----------
    topk : [names] number of names that are held, those of the highest scores.
    n_drop : [names] largest number of names that are replaced a day.

    Raises
    ------
    ConfigError
        A number outside its range.
    """

    topk: int = 50
    n_drop: int = 5

    def __post_init__(self) -> None:
        for name in ("topk", "n_drop"):
            check_number(getattr(self, name), name, low=1, integer=True)
        if self.n_drop > self.topk:
            raise ConfigError(f"n_drop: {self.n_drop} of {self.topk} names cannot be replaced.")


class CountingTopkDropout(TopkDropoutStrategy):
    """Qlib's strategy, which also counts what is suspended or at a price limit.

    ``orders`` is filled with trading day → number of names that it wanted to trade, ``blocked``
    with how many of them it could not.
    """

    def __init__(
        self, *, blocked: dict[pd.Timestamp, int], orders: dict[pd.Timestamp, int], **kwargs: Any
    ) -> None:
        self._refused: set[str] = set()
        self._blocked, self._orders = blocked, orders
        super().__init__(**kwargs)

    @property
    def trade_exchange(self) -> Any:
        """The exchange, with an ear on what it refuses."""
        return Listening(super().trade_exchange, self._refused)

    def generate_trade_decision(self, execute_result: Any = None) -> Any:
        """The orders of the step."""
        self._refused.clear()
        decision = super().generate_trade_decision(execute_result)
        start, _ = self.trade_calendar.get_step_time(self.trade_calendar.get_trade_step())
        self._blocked[start] = len(self._refused)
        traded = {order.stock_id for order in decision.get_decision()}
        self._orders[start] = len(self._refused | traded)
        return decision


class Listening:
    """An exchange that notes the names it was asked about and would not trade."""

    def __init__(self, exchange: Any, refused: set[str]) -> None:
        self._exchange, self._refused = exchange, refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def is_stock_tradable(self, stock_id: str, *args: Any, **kwargs: Any) -> bool:
        """Qlib's answer; a name that does not trade is noted."""
        tradable = self._exchange.is_stock_tradable(stock_id, *args, **kwargs)
        if not tradable:
            self._refused.add(stock_id)
        return tradable


class TopkDropoutRecord(BacktestRecord):
    """Qlib's backtest of its TopkDropoutStrategy, in place of that of the problem's weights.

    Keeps what :class:`BacktestRecord` keeps but for the solver's health, since no problem is
    solved: the targets of a signal day are the weights that were held after its trades, over their
    sum.

    Settings are the fields of :class:`TopkDropoutConfig`.
    """

    config_class = TopkDropoutConfig

    def _strategy(
        self, scores: pd.Series, learned: LearnedRisk, exchange: BoardExchange
    ) -> dict[str, Any]:
        settings = self.settings
        self._blocked, self._orders = {}, {}
        options = {
            "signal": problem_scores(self.dataset, scores, "test"),
            "topk": settings.topk,
            "n_drop": settings.n_drop,
            "risk_degree": self.rules.risk_degree,
            "blocked": self._blocked,
            "orders": self._orders,
        }
        return {"class": CountingTopkDropout, "kwargs": options}

    def _decided(
        self, realised: pd.DataFrame, artifacts: Mapping[str, Any], exchange: BoardExchange
    ) -> Decided:
        held = held_by_signal(realised, artifacts["report_normal_1day.pkl"].index)
        targets = held / held.groupby("datetime").transform("sum")
        return Decided(targets, None, self._blocked, self._orders)
