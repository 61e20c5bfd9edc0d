"""Qlib's exchange with the price limit of each board and date, and without invalid moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.exchange import Exchange

from ..backtest.rebalance import BookRules
from ..data.quality.exclusions import Exclusions
from ..markets.rules import MarketRules

# A close within half a per cent of the limit counts as at the limit, as in Qlib's 0.095 for 10 %.
LIMIT_MARGIN = 0.005


def at_limits(change: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a close is at the upper and whether it is at the lower price limit.

    ``change`` from the last close and ``limit`` as fractions, of one shape, NaN where there is
    none.
    """
    near = limit - LIMIT_MARGIN
    with np.errstate(invalid="ignore"):
        return change >= near, change <= -near


class BoardExchange(Exchange):
    """Exchange whose limits follow the board of a name and the date.

    Parameters
    ----------
    exclusions : on these days a name's return is taken as zero: its prices from that day on are
        scaled to continue the last close (its factor too, so that quoted prices stay).
    rules : of the market, whose price limits apply.
    kwargs : as for Qlib's exchange, except ``limit_threshold`` and ``trade_unit``.
    """

    def __init__(
        self, *, rules: MarketRules, exclusions: Exclusions | None = None, **kwargs: Any
    ) -> None:
        self._exclusions = exclusions or Exclusions()
        self._rules = rules
        super().__init__(limit_threshold=None, trade_unit=rules.lot, **kwargs)

    def get_quote_from_qlib(self) -> None:
        """Load the quotes, then splice them over excluded moves."""
        super().get_quote_from_qlib()
        for entry in self._exclusions:
            self._splice(entry.instrument, entry.date)
        self._update_limit(None)  # a return of zero meets no limit

    def _update_limit(self, limit_threshold: Any) -> None:
        quote = self.quote_df
        suspended = quote["$close"].isna()
        quote["limit_buy"] = quote["limit_sell"] = suspended
        if self._rules.price_limits is None:
            return
        names = quote.index.get_level_values("instrument")
        dates = quote.index.get_level_values("datetime")
        name_codes, name_values = pd.factorize(names)
        date_codes, date_values = pd.factorize(dates)
        limit = self._rules.limits(name_values, date_values)[date_codes, name_codes]
        upper, lower = at_limits(quote["$change"].to_numpy(), limit)
        quote["limit_buy"], quote["limit_sell"] = suspended | upper, suspended | lower

    def table(self, field: str, names: pd.Index) -> pd.DataFrame:
        """``field`` of the quotes by day and name, (T, n), NaN where the exchange has none."""
        return self.quote_df[field].unstack("instrument").reindex(columns=names)

    def _splice(self, name: str, date: pd.Timestamp) -> None:
        quote = self.quote_df
        if name not in quote.index.get_level_values("instrument"):
            return
        close = quote.loc[name, "$close"]
        before = close[close.index < date].dropna()
        if date not in close.index or not len(before) or np.isnan(close[date]):
            return
        scale = before.iloc[-1] / close[date]
        prices = {"$close", "$factor", self.buy_price, self.sell_price}
        rows = (quote.index.get_level_values("instrument") == name) & (
            quote.index.get_level_values("datetime") >= date
        )
        for column in prices:
            quote.loc[rows, column] *= scale
        quote.loc[(name, date), "$change"] = 0.0


def exchange_of(dataset: Any, rules: BookRules) -> BoardExchange:
    """The exchange of a dataset's test segment: its market's limits and lots, ``rules``' costs."""
    start, end = dataset.span_names["test"]
    return BoardExchange(
        freq="day",
        start_time=start,
        end_time=end,
        codes=list(dataset.market_data.names),
        deal_price="close",
        open_cost=rules.costs.buy,
        close_cost=rules.costs.sell,
        min_cost=rules.costs.minimum,
        exclusions=dataset.excluded,
        rules=dataset.market_rules,
    )
