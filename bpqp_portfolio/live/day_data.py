"""The day of a snapshot: the run's risk model, quoted prices, and what the mandate rests on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..backtest.day_inputs import DayData, MandateData, Quotes, RiskRows
from ..backtest.holdings import quotes
from ..backtest.mandate_settings import MandateSettings
from ..backtest.segment import group_titles
from ..data.provider.provider import Provider
from ..data.universe.index_weights import WINDOW, index_weights
from ..data.universe.market import MarketData, average_traded
from ..data.universe.sectors import NONE, Sectors, read_sectors
from ..errors import DataError
from ..qlib_ext.exchange import at_limits
from ..risk.clusters import ClusterConfig, cluster_returns
from ..runs.artifact import RunArtifact
from .snapshot import Snapshot


def day_data(
    run: RunArtifact,
    settings: MandateSettings | None,
    provider: Provider,
    day: Snapshot,
    held: Iterable[str] = (),
) -> DayData:
    """The snapshot's day, for :func:`~bpqp_portfolio.backtest.day_inputs.day_inputs`.

    Prices are quoted ones and holdings shares, so that a unit of a holding is one share.

    Parameters
    ----------
    settings : the run's mandate, None for one that decided without.
    held : names that are held, also such as were never in the universe.

    Raises
    ------
    DataError, ConfigError
        A table of the mandate that cannot be used.
    """
    names = np.array(sorted({*day.market.names, *held}))
    scores = np.full(len(day.market.names), np.nan)
    scores[day.columns] = day.scores
    return DayData(
        date=day.date,
        market=day.market,
        names=names,
        scores=scores,
        problem=run.problem,
        window=run.risk.window,
        risk=_risk(day),
        quotes=_quotes(run, provider, day, names),
        mandate=_mandate_data(run, settings, provider, day.market),
    )


def _risk(day: Snapshot) -> RiskRows:
    """The day's risk model of all members, and what the network adds to it."""
    rows, batch = day.risk, day.batch
    log_specific = None
    if batch.log_specific is not None:
        log_specific = np.full(len(day.market.names), np.nan)
        log_specific[day.columns] = batch.log_specific[0].numpy()
    return RiskRows(
        names=rows.names[rows.modelled],
        loadings=rows.loadings[rows.modelled],
        specific=rows.specific[rows.modelled],
        log_specific=log_specific,
        log_factors=None if batch.log_factors is None else batch.log_factors[0].numpy(),
    )


def _quotes(run: RunArtifact, provider: Provider, day: Snapshot, names: np.ndarray) -> Quotes:
    """Quoted closes up to the day, and whether one is at a price limit, as in the backtest."""
    at = int(provider.calendar.get_loc(day.date))
    table = quotes(provider, list(names), at)
    change = np.full(len(names), np.nan)
    if run.market_rules.price_limits is not None:
        for i, name in enumerate(names):
            if provider.has(name, "change"):
                change[i] = provider.series(name, "change")[at]
        # A move that is excluded is taken for none.
        excluded = day.market.names[day.market.excluded[-1]]
        change[np.isin(names, excluded.to_numpy(str))] = 0.0
    upper, lower = at_limits(change, run.market_rules.limits(names, [day.date])[0])
    return Quotes(
        price=table["price"].to_numpy(),
        factor=np.ones(len(names)),
        suspended=~table["traded"].to_numpy(),
        at_upper=upper,
        at_lower=lower,
    )


def _mandate_data(
    run: RunArtifact, settings: MandateSettings | None, provider: Provider, market: MarketData
) -> MandateData:
    """The day's index weights, sectors and exposures; none of a run without a mandate."""
    if settings is None:
        count = len(market.names)
        return MandateData(np.zeros(count), np.full(count, ""))
    last = slice(-WINDOW, None)  # what an index's weights look back on
    recent = MarketData(
        market.dates[last],
        market.names,
        market.close[last],
        market.member[last],
        market.excluded[last],
    )
    traded = settings.value_traded(recent, provider)
    exposures = settings.exposures(market, provider, run.risk.window)
    return MandateData(
        benchmark=index_weights(settings.index_weights, recent, provider).weights[-1],
        sector=_sectors(run, settings, market).of_day(0),
        exposures=None if exposures is None else exposures.of_day(len(market.dates) - 1),
        unknown_exposures=None if exposures is None else exposures.unknown,
        exposure_names=() if exposures is None else exposures.names,
        traded_value=None if traded is None else average_traded(traded),
    )


def _sectors(run: RunArtifact, settings: MandateSettings, market: MarketData) -> Sectors:
    """Sectors of the market's last day: the user's table, or groups that go on from the run's."""
    if isinstance(settings.sectors, str):
        return read_sectors(settings.sectors, market.dates[-1:], market.names)
    config: ClusterConfig = settings.sectors
    if run.groups is None:
        raise DataError(
            f"run {run.run_id!r} keeps no groups of names, which its mandate needs: run its "
            "workflow again."
        )
    start, codes = run.groups
    known, date = pd.DatetimeIndex(run.days), market.dates[-1]
    today = known.searchsorted(date, side="right") - 1
    row = codes[np.searchsorted(start, today, side="right") - 1]
    found = pd.Series(row, run.facts["data"]["names"]).reindex(market.names, fill_value=NONE)
    group = found.to_numpy()
    if date > known[-1]:
        since = int(market.dates.searchsorted(known[-1], side="right"))
        group = cluster_returns(
            market.returns, market.dates, config, since=since, before=group, progress=False
        )[-1]
    return Sectors(group[None], group_titles(config), "groups of names whose returns move together")
