"""What a mandate knows on each day of a backtest: forecasts, risk, sectors and the exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from qlib.config import C

from ..data.cache import cached
from ..data.index_weights import IndexWeights, index_weights
from ..data.market import Market
from ..data.provider import Provider
from ..data.sectors import Sectors, read_sectors
from ..risk.clusters import cluster_returns
from .mandate_settings import MandateSettings
from .rebalance import DayInputs


class MandateDays:
    """Inputs of a mandate for the days of a segment.

    Parameters
    ----------
    dataset : a :class:`~.dataset.PortfolioDataset` with a mandate.
    scores : forecasts by (datetime, instrument), in units of the problem's score scale.
    exchange : the backtest's; its prices are those that accounts are valued at.
    """

    def __init__(self, dataset: Any, scores: pd.Series, exchange: Any) -> None:
        self.settings: MandateSettings = dataset.mandate
        self.mandate = self.settings.build()
        self.names = dataset.market_data.names.to_numpy(str)
        self._market: Market = dataset.market_data
        self._problem = dataset.problem
        self._risk = dataset.risk_arrays()
        self._first = int(self._risk["day"].min())
        days = np.arange(self._first, int(self._risk["day"].max()) + 2)
        self._rows = np.searchsorted(self._risk["day"], days)
        self._scores = scores.unstack().reindex(columns=self._market.names)
        self._close = exchange.table("$close", self._market.names)
        self._price = self._close.ffill()
        self._factor = exchange.table("$factor", self._market.names).ffill()
        self._upper = exchange.table("limit_buy", self._market.names)
        self._lower = exchange.table("limit_sell", self._market.names)
        window = pd.DataFrame(self._market.returns).rolling(dataset.risk.window, min_periods=20)
        self._variance = window.var().to_numpy()
        self._clock, self._key = dataset.clock, dataset.data_key

    @cached_property
    def sectors(self) -> Sectors:
        """The user's sectors, or groups of past returns."""
        return sectors_of(self.settings, self._market, self._key)

    @cached_property
    def index(self) -> IndexWeights:
        """The index's weights, or a proxy."""
        return index_weights(self.settings.index_weights, self._market, _provider())

    def inputs(self, date: pd.Timestamp) -> DayInputs | None:
        """What is known at the close of ``date``; None where there is no forecast."""
        if date not in self._scores.index:
            return None
        day = int(self._market.dates.get_loc(date))
        rows = slice(self._rows[day - self._first], self._rows[day - self._first + 1])
        name, modelled = self._risk["name"][rows], self._risk["modelled"][rows]
        loadings = np.full((len(self.names), self._risk["loadings"].shape[1]), np.nan)
        specific = np.full(len(self.names), np.nan)
        loadings[name[modelled]] = self._risk["loadings"][rows][modelled]
        specific[name[modelled]] = self._risk["specific"][rows][modelled]
        scores = torch.from_numpy(self._scores.loc[date].to_numpy(dtype=np.float64, copy=True))
        # Normalised over the names that the network was trained to tell apart.
        scored = torch.isfinite(scores) & torch.from_numpy(np.isfinite(specific))
        mu = self._problem.forecast(scores.masked_fill(~scored, 0.0)[None], scored[None])[0]
        suspended = ~np.isfinite(self._close.loc[date].to_numpy())
        return DayInputs(
            date=date,
            names=self.names,
            mu=mu.masked_fill(~scored, torch.nan).numpy(),
            loadings=loadings,
            specific=specific,
            variance=self._variance[day],
            price=self._price.loc[date].to_numpy(dtype=np.float64),
            factor=self._factor.loc[date].to_numpy(dtype=np.float64),
            suspended=suspended,
            at_upper=self._upper.loc[date].to_numpy(dtype=bool) & ~suspended,
            at_lower=self._lower.loc[date].to_numpy(dtype=bool) & ~suspended,
            member=self._market.member[day],
            benchmark=self.index.weights[day],
            sector=self.sectors.of_day(day),
        )


def sectors_of(settings: MandateSettings, market: Market, data_key: Mapping[str, Any]) -> Sectors:
    """Sectors of the names of ``market``: the user's table, or groups kept in the cache."""
    if isinstance(settings.sectors, str):
        return read_sectors(settings.sectors, market.dates, market.names)
    config = settings.sectors
    key = {**data_key, "clusters": asdict(config)}

    def build() -> dict[str, np.ndarray]:
        return {"codes": cluster_returns(market.returns, market.dates, config)}

    titles = tuple(f"group {i + 1}" for i in range(config.count))
    source = f"{config.count} groups of names whose returns move together, found anew every " + (
        f"{config.months} months" if config.months > 1 else "month"
    )
    return Sectors(cached("sectors", key, build)["codes"], titles, source)


def _provider() -> Provider:
    return Provider(Path(C.dpm.get_data_uri("day")))
