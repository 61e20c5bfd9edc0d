"""The snapshot of a day as a source of day inputs: the run's risk model, quoted prices."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..backtest.day_inputs import MandateData, Quotes, RiskRows
from ..backtest.holdings import quotes
from ..backtest.mandate_settings import MandateSettings
from ..backtest.segment import group_titles
from ..data.provider.provider import Provider
from ..data.universe.index_weights import WINDOW, index_weights
from ..data.universe.market import MarketData
from ..data.universe.sectors import NONE, Sectors, read_sectors
from ..errors import DataError
from ..qlib_ext.exchange import at_limits
from ..risk.clusters import ClusterConfig, cluster_returns
from ..runs.artifact import RunArtifact
from .snapshot import Snapshot


class SnapshotSource:
    """One day, for :func:`~bpqp_portfolio.backtest.day_inputs.day_inputs`.

    Prices are quoted ones and holdings shares, so that a unit of a holding is one share.

    Parameters
    ----------
    settings : the run's mandate, None for one that decided without.
    held : names that are held, also such as were never in the universe.
    """

    def __init__(
        self,
        run: RunArtifact,
        settings: MandateSettings | None,
        provider: Provider,
        day: Snapshot,
        held: Iterable[str] = (),
    ) -> None:
        self.market, self.problem, self.window = day.market, run.problem, run.risk.window
        self.names = np.array(sorted({*day.market.names, *held}))
        self._run, self._settings, self._provider, self._day = run, settings, provider, day

    def scores(self, date: pd.Timestamp) -> np.ndarray:
        """(M,) scores of the names in the day's problem, NaN of the others."""
        out = np.full(len(self.market.names), np.nan)
        out[self._day.columns] = self._day.scores
        return out

    def risk(self, date: pd.Timestamp) -> RiskRows:
        """The day's risk model of all members, and what the network adds to it."""
        rows, batch = self._day.risk, self._day.batch
        log_specific = None
        if batch.log_specific is not None:
            log_specific = np.full(len(self.market.names), np.nan)
            log_specific[self._day.columns] = batch.log_specific[0].numpy()
        return RiskRows(
            names=rows.names[rows.modelled],
            loadings=rows.loadings[rows.modelled],
            specific=rows.specific[rows.modelled],
            log_specific=log_specific,
            log_factors=None if batch.log_factors is None else batch.log_factors[0].numpy(),
        )

    def quotes(self, date: pd.Timestamp) -> Quotes:
        """Quoted closes up to the day, and whether they are at a price limit."""
        at = int(self._provider.calendar.get_loc(date))
        table = quotes(self._provider, list(self.names), at)
        upper, lower = self._at_limits(date, at)
        return Quotes(
            price=table["price"].to_numpy(),
            factor=np.ones(len(self.names)),
            suspended=~table["traded"].to_numpy(),
            at_upper=upper,
            at_lower=lower,
        )

    def mandate_data(self, date: pd.Timestamp) -> MandateData:
        """The day's index weights, sectors and exposures; none of a run without a mandate."""
        market, settings = self.market, self._settings
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
        exposures = settings.exposures(market, self._provider, self.window)
        return MandateData(
            benchmark=index_weights(settings.index_weights, recent, self._provider).weights[-1],
            sector=_sectors(self._run, settings, market).of_day(0),
            exposures=None if exposures is None else exposures.of_day(len(market.dates) - 1),
            unknown_exposures=None if exposures is None else exposures.unknown,
            exposure_names=() if exposures is None else exposures.names,
        )

    def _at_limits(self, date: pd.Timestamp, at: int) -> tuple[np.ndarray, np.ndarray]:
        """(N,) whether the close is at the upper and at the lower limit, as the backtest has it."""
        change = np.full(len(self.names), np.nan)
        if self._run.market_rules.price_limits is not None:
            for i, name in enumerate(self.names):
                if self._provider.has(name, "change"):
                    change[i] = self._provider.series(name, "change")[at]
            # A move that is excluded is taken for none.
            excluded = self.market.names[self.market.excluded[-1]]
            change[np.isin(self.names, excluded.to_numpy(str))] = 0.0
        return at_limits(change, self._run.market_rules.limits(self.names, [date])[0])


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
