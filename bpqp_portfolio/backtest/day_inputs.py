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

from ..data.provider.provider import Provider
from ..data.universe.exposures import MarketExposures
from ..data.universe.index_weights import IndexWeights, index_weights
from ..data.universe.market import MarketData
from ..data.universe.sectors import Sectors, read_sectors
from ..files.cache import cached
from ..portfolio.problem import PortfolioProblem
from ..risk.clusters import ClusterConfig, cluster_returns
from .learned_risk import LearnedRisk, believed
from .mandate_settings import MandateSettings
from .rebalance import DayInputs


class MandateDays:
    """Inputs of a mandate for the days of a segment.

    Parameters
    ----------
    dataset : a :class:`~.dataset.PortfolioDataset` with a mandate.
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
        self.mandate = self.settings.build()
        self.names = dataset.market_data.names.to_numpy(str)
        self._market: MarketData = dataset.market_data
        self._beliefs = learned_risk or LearnedRisk(dataset.problem)
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
        self._window = dataset.risk.window
        self._clock, self._key = dataset.clock, dataset.data_key

    @cached_property
    def sectors(self) -> Sectors:
        """The user's sectors, or groups of past returns."""
        return sectors_of(self.settings, self._market, self._key)

    @cached_property
    def index(self) -> IndexWeights:
        """The index's weights, or a proxy."""
        return index_weights(self.settings.index_weights, self._market, _provider())

    @cached_property
    def exposures(self) -> MarketExposures | None:
        """Exposures of the names, where the mandate bounds any."""
        return self.settings.exposures(self._market, _provider(), self._window)

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
        loadings, specific = believed(loadings, specific, *self._said(date))
        scores = self._scores.loc[date].to_numpy(dtype=np.float64)
        suspended = ~np.isfinite(self._close.loc[date].to_numpy())
        return DayInputs(
            date=date,
            names=self.names,
            mu=expected_returns(self._beliefs.problem, scores, specific),
            loadings=loadings,
            specific=specific,
            variance=own_variance(self._market.returns[: day + 1], self._window),
            price=self._price.loc[date].to_numpy(dtype=np.float64),
            factor=self._factor.loc[date].to_numpy(dtype=np.float64),
            suspended=suspended,
            at_upper=self._upper.loc[date].to_numpy(dtype=bool) & ~suspended,
            at_lower=self._lower.loc[date].to_numpy(dtype=bool) & ~suspended,
            member=self._market.member[day],
            benchmark=self.index.weights[day],
            sector=self.sectors.of_day(day),
            exposures=None if self.exposures is None else self.exposures.of_day(day),
            exposure_names=() if self.exposures is None else self.exposures.names,
        )

    def _said(self, date: pd.Timestamp) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What the model adds to the logs of specific variances (N,) and factor scales (k,)."""
        specific, factors = self._beliefs.log_specific, self._beliefs.log_factors
        return (
            None if specific is None else specific.loc[date].reindex(self._market.names).to_numpy(),
            None if factors is None else factors.loc[date].to_numpy(),
        )


def expected_returns(
    problem: PortfolioProblem, scores: np.ndarray, specific: np.ndarray
) -> np.ndarray:
    """Forecasts (N,) of a day as fractions, NaN for a name without a score or a risk model.

    Scores (N,) are normalised over the names that the network was trained to tell apart.
    """
    scored = np.isfinite(scores) & np.isfinite(specific)
    table, mask = (torch.from_numpy(part)[None] for part in (np.where(scored, scores, 0.0), scored))
    return np.where(scored, problem.forecast(table, mask)[0].numpy(), np.nan)


def own_variance(returns: np.ndarray, window: int) -> np.ndarray:
    """Variance (N,) per day² of the last ``window`` of ``returns`` (T, N), NaN below 20 of them."""
    last = returns[-window:]
    count = np.isfinite(last).sum(0)
    out = np.full(len(count), np.nan)
    out[count >= 20] = np.nanvar(last[:, count >= 20], axis=0, ddof=1)
    return out


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


def _provider() -> Provider:
    return Provider(Path(C.dpm.get_data_uri("day")))
