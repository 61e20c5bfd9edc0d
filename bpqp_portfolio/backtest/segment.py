"""The days of a segment: their inputs from cached risk, a table of scores and the exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ..data.provider.provider import Provider
from ..data.universe.exposures import MarketExposures
from ..data.universe.index_weights import IndexWeights, index_weights
from ..data.universe.market import MarketData, average_traded
from ..data.universe.sectors import Sectors, read_sectors
from ..files.cache import cached
from ..risk.clusters import ClusterConfig, cluster_returns
from .day_inputs import DayData, DayInputs, MandateData, Quotes, RiskRows, day_inputs
from .learned_risk import LearnedRisk
from .mandate_settings import MandateSettings


class SegmentDays:
    """Inputs of the days of a segment, by :func:`~.day_inputs.day_inputs`.

    Parameters
    ----------
    dataset : a :class:`~bpqp_portfolio.qlib_ext.dataset.PortfolioDataset` with a mandate.
    scores : forecasts by (datetime, instrument), in units of the problem's score scale.
    exchange : the backtest's; its prices are those that accounts are valued at.
    learned_risk : the model's κ and risk; by default the dataset's problem and its statistical
    risk.
    """

    def __init__(
        self,
        dataset: Any,
        scores: pd.Series,
        exchange: Any,
        learned_risk: LearnedRisk | None = None,
    ) -> None:
        self.settings: MandateSettings = dataset.mandate
        self.market: MarketData = dataset.market_data
        self.names = self.market.names.to_numpy(str)
        self._window: int = dataset.risk.window
        self._learned = learned_risk or LearnedRisk(dataset.problem)
        self._risk = dataset.risk_arrays()
        self._scores = scores.unstack().reindex(columns=self.market.names)
        self._close = exchange.table("$close", self.market.names)
        self._price = self._close.ffill()
        self._factor = exchange.table("$factor", self.market.names).ffill()
        self._upper = exchange.table("limit_buy", self.market.names)
        self._lower = exchange.table("limit_sell", self.market.names)
        self._provider: Provider = dataset.provider
        self._key: Mapping[str, Any] = dataset.data_key

    @cached_property
    def sectors(self) -> Sectors:
        """The user's sectors, or groups of past returns."""
        return sectors_of(self.settings, self.market, self._key)

    @cached_property
    def index(self) -> IndexWeights:
        """The index's weights, or a proxy."""
        return index_weights(self.settings.index_weights, self.market, self._provider)

    @cached_property
    def traded(self) -> np.ndarray | None:
        """Value traded (T, M) on each day, where a constraint rests on it."""
        return self.settings.value_traded(self.market, self._provider)

    @cached_property
    def exposures(self) -> MarketExposures | None:
        """Exposures of the names, where the mandate bounds any."""
        return self.settings.exposures(self.market, self._provider, self._window)

    def inputs(self, date: pd.Timestamp) -> DayInputs | None:
        """What is known at the close of ``date``; None where there is no forecast."""
        if date not in self._scores.index:
            return None
        return day_inputs(
            DayData(
                date=date,
                market=self.market,
                names=self.names,
                scores=self._scores.loc[date].to_numpy(dtype=np.float64),
                problem=self._learned.problem,
                window=self._window,
                risk=self._risk_of(date),
                quotes=self._quotes_of(date),
                mandate=self._mandate_of(date),
            )
        )

    def _risk_of(self, date: pd.Timestamp) -> RiskRows:
        """The cached risk model of the day, and what the model adds to it."""
        day = self.market.dates.get_loc(date)
        rows = slice(*np.searchsorted(self._risk["day"], [day, day + 1]))
        kept = np.flatnonzero(self._risk["modelled"][rows]) + rows.start
        specific, factors = self._learned.log_specific, self._learned.log_factors
        return RiskRows(
            names=self._risk["name"][kept],
            loadings=self._risk["loadings"][kept],
            specific=self._risk["specific"][kept],
            log_specific=None
            if specific is None
            else specific.loc[date].reindex(self.market.names).to_numpy(),
            log_factors=None if factors is None else factors.loc[date].to_numpy(),
        )

    def _quotes_of(self, date: pd.Timestamp) -> Quotes:
        """The exchange's prices; a unit of a holding is ``factor`` shares."""
        return Quotes(
            price=self._price.loc[date].to_numpy(dtype=np.float64),
            factor=self._factor.loc[date].to_numpy(dtype=np.float64),
            suspended=~np.isfinite(self._close.loc[date].to_numpy()),
            at_upper=self._upper.loc[date].to_numpy(dtype=bool),
            at_lower=self._lower.loc[date].to_numpy(dtype=bool),
        )

    def _mandate_of(self, date: pd.Timestamp) -> MandateData:
        """The day's index weights, sectors and exposures."""
        day, exposures = int(self.market.dates.get_loc(date)), self.exposures
        return MandateData(
            benchmark=self.index.weights[day],
            sector=self.sectors.of_day(day),
            exposures=None if exposures is None else exposures.of_day(day),
            unknown_exposures=None if exposures is None else exposures.unknown,
            exposure_names=() if exposures is None else exposures.names,
            traded_value=None if self.traded is None else average_traded(self.traded[: day + 1]),
        )


def sectors_of(
    settings: MandateSettings, market: MarketData, data_key: Mapping[str, Any]
) -> Sectors:
    """Sectors of the names of ``market``: the user's table, or groups kept in the cache."""
    if isinstance(settings.sectors, str):
        return read_sectors(settings.sectors, market.dates, market.names)
    config = settings.sectors
    key = {**data_key, "clusters": asdict(config)}

    def build() -> dict[str, np.ndarray]:
        return {"codes": cluster_returns(market.returns, market.dates, config)}

    source = f"{config.count} groups of names whose returns move together, found anew every " + (
        f"{config.months} months" if config.months > 1 else "month"
    )
    return Sectors(cached("sectors", key, build)["codes"], group_titles(config), source)


def group_titles(config: ClusterConfig) -> tuple[str, ...]:
    """What groups of past returns are called."""
    return tuple(f"group {i + 1}" for i in range(config.count))
