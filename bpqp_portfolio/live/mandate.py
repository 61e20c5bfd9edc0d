"""What a saved run's mandate decides on one day from what is held, outside of a backtest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..backtest.day_inputs import expected_returns, group_titles, own_variance
from ..backtest.holdings import quotes
from ..backtest.learned_risk import believed
from ..backtest.lots import account_after
from ..backtest.mandate_settings import MandateSettings
from ..backtest.rebalance import LEAST_PRICE, SUSPENDED, BookRules, DayInputs, Rebalance, rebalance
from ..data.provider.provider import Provider
from ..data.universe.index_weights import WINDOW, index_weights
from ..data.universe.market import MarketData
from ..data.universe.sectors import NONE, Sectors, read_sectors
from ..errors import DataError
from ..markets.price_limits import price_limits
from ..portfolio.mandate.mandate import Mandate
from ..portfolio.problem import PortfolioProblem
from ..qlib_ext.exchange import at_limits
from ..risk.clusters import ClusterConfig, cluster_returns
from ..runs.artifact import RunArtifact
from .snapshot import Snapshot


def decide_mandate(
    run: RunArtifact,
    settings: MandateSettings,
    provider: Provider,
    day: Snapshot,
    held: Mapping[str, float] | None,
    cash: float,
) -> Rebalance:
    """The decision at the close of the day, as the run's backtest makes it.

    Parameters
    ----------
    held : shares by name, a name that was never in the universe too, which is sold; None decides
        on an empty account of any size, whose trades mean nothing.
    cash : currency.

    Raises
    ------
    DataError, ConfigError, SolverError
        As :func:`~.rebalance.rebalance`; a table of the mandate that cannot be used.
    """
    mandate = settings.build()
    if held is None:
        rules = BookRules(1.0, None, mandate.costs, settings.pin_limits)
        return rebalance(mandate, single_inputs(run, settings, provider, day, {}), {}, 1.0, rules)
    inputs = single_inputs(run, settings, provider, day, held)
    return rebalance(mandate, inputs, held, cash, run.rules)


def single_inputs(
    run: RunArtifact,
    settings: MandateSettings,
    provider: Provider,
    day: Snapshot,
    held: Mapping[str, float],
) -> DayInputs:
    """What is known at the close of the day about the universe's names and those that are held.

    Prices are quoted ones and holdings shares, so that a unit of a holding is one share.
    """
    market = day.market
    names = np.array(sorted({*market.names, *held}))
    own = np.searchsorted(names, market.names.to_numpy(str))

    def spread(values: np.ndarray, fill: Any) -> np.ndarray:
        """(N, ...) of the market's names as (N', ...) of ``names``."""
        out = np.full((len(names), *values.shape[1:]), fill, dtype=values.dtype)
        out[own] = values
        return out

    modelled = day.risk.names[day.risk.modelled]
    loadings = np.full((len(market.names), day.risk.loadings.shape[1]), np.nan)
    specific = np.full(len(market.names), np.nan)
    loadings[modelled] = day.risk.loadings[day.risk.modelled]
    specific[modelled] = day.risk.specific[day.risk.modelled]
    loadings, specific = believed(loadings, specific, *_said(day, len(market.names)))
    scores = np.full(len(market.names), np.nan)
    scores[day.columns] = day.scores
    at = int(provider.calendar.get_loc(day.date))
    quote = quotes(provider, list(names), at)
    traded = quote["traded"].to_numpy()
    upper, lower = _at_limits(run, provider, names, day, at)
    recent = _recent(market)
    index = index_weights(settings.index_weights, recent, provider)
    exposures = settings.exposures(market, provider, run.risk.window)
    exposed = None
    if exposures is not None:
        exposed = np.tile(exposures.unknown, (len(names), 1))
        exposed[own] = exposures.of_day(len(market.dates) - 1)
    return DayInputs(
        date=day.date,
        names=names,
        mu=spread(expected_returns(run.problem, scores, specific), np.nan),
        loadings=spread(loadings, np.nan),
        specific=spread(specific, np.nan),
        variance=spread(own_variance(market.returns, run.risk.window), np.nan),
        price=quote["price"].to_numpy(),
        factor=np.ones(len(names)),
        suspended=~traded,
        at_upper=upper & traded,
        at_lower=lower & traded,
        member=spread(market.member[-1], False),
        benchmark=spread(index.weights[-1], 0.0),
        sector=spread(_sectors(run, settings, market).of_day(0), ""),
        exposures=exposed,
        exposure_names=() if exposures is None else exposures.names,
    )


def _said(day: Snapshot, names: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What the model adds to the logs of specific variances (N,) and factor scales (k,)."""
    specific, factors = day.batch.log_specific, day.batch.log_factors
    own = None
    if specific is not None:
        own = np.full(names, np.nan)
        own[day.columns] = specific[0].numpy()
    return own, None if factors is None else factors[0].numpy()


def _at_limits(
    run: RunArtifact, provider: Provider, names: np.ndarray, day: Snapshot, at: int
) -> tuple[np.ndarray, np.ndarray]:
    change = np.full(len(names), np.nan)
    if run.facts["backtest"].get("board_limits", True):
        for i, name in enumerate(names):
            if provider.has(name, "change"):
                change[i] = provider.series(name, "change")[at]
        # A move that is not believed is taken for none.
        disbelieved = day.market.names[day.market.excluded[-1]]
        change[np.isin(names, disbelieved.to_numpy(str))] = 0.0
    return at_limits(change, price_limits(names, [day.date])[0])


def _recent(market: MarketData) -> MarketData:
    """The days that an index's weights look back on."""
    last = slice(-WINDOW, None)
    return MarketData(
        market.dates[last],
        market.names,
        market.close[last],
        market.member[last],
        market.excluded[last],
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


def mandate_table(
    plan: Rebalance, problem: PortfolioProblem, day: Snapshot, sized: bool
) -> pd.DataFrame:
    """One row a name that is in the target, held, or not free to trade, and each that is left out.

    Columns as for :class:`~.tomorrow.Target`, and where ``sized`` the ``previous`` weight.
    """
    inside = plan.table
    rows = inside[(inside["target"] > 0) | (inside["held"] > 0) | (inside["reason"] != "")]
    out = left_out(plan, day)
    names = [*rows.index, *out]
    frame = rows.reindex(names)
    after = (frame["held"] + frame["trade"]).fillna(0.0)
    columns = {
        "instrument": names,
        "weight": frame["target"].fillna(0.0),
        "previous": frame["previous"].fillna(0.0),
        "score": pd.Series(day.scores, day.names).reindex(names),
        "expected_return": pd.Series(day.forecasts(problem), day.names).reindex(names),
        "reason": [out.get(n) or day.left_out.get(n) or rows.loc[n, "reason"] for n in names],
        "price": frame["price"],
        "shares": frame["held"].fillna(0.0),
        "trade": frame["trade"].fillna(0.0),
        "target_shares": after,
        "value": after * frame["price"].fillna(0.0),
    }
    if not sized:
        for name in ("previous", "price", "shares", "trade", "target_shares", "value"):
            del columns[name]
    table = pd.DataFrame({k: np.asarray(v) for k, v in columns.items()})
    return table.sort_values(["weight", "instrument"], ascending=[False, True], ignore_index=True)


def left_out(plan: Rebalance, day: Snapshot) -> dict[str, str]:
    """Members that are not in the problem, and why."""
    found = {**plan.left_out, **day.left_out}
    return {name: found[name] for name in sorted(found) if name not in plan.table.index}


def mandate_facts(
    mandate: Mandate, plan: Rebalance, day: Snapshot, sized: bool, days_per_year: float
) -> dict[str, Any]:
    """What is worth knowing about the decision, as JSON values.

    ``binding`` lists constraints with their value, limit and price, the return a day that a unit
    more of the limit would bring. On a day that was not solved as it stands, ``fallback`` has the
    ``way`` out that was taken and the ``reason``, ``status`` says how the target came about, and
    ``wanted_status`` how the solve ended; ``binding`` is that of the relaxed problem, in which a
    relaxed limit's price is its penalty, and empty where no problem was solved.
    """
    table = plan.table
    priced = bool(plan.activity) or plan.solution.fallback[0] == "relax"
    facts: dict[str, Any] = {
        "expected_return": plan.expected_return,
        "risk": plan.risk,
        "risk_annual": plan.risk * days_per_year**0.5,
        "annual_days": days_per_year,
        "names_in_problem": plan.market.mu.shape[-1],
        "mandate": {
            "words": str(mandate).splitlines(),
            "from_holdings": bool((table["held"] > 0).any()),
        },
        "binding": [
            {"constraint": words, "value": value, "limit": limit, "price": dual}
            for words, value, limit, _, dual in mandate.explain(plan.solution, 0)
            if priced and abs(dual) > LEAST_PRICE
        ],
        "fallback": [{"way": way, "reason": reason} for way, reason in plan.events],
        "status": plan.ending,
        "wanted_status": plan.status,
        "kkt_norm": float(plan.solution.kkt_norm[0]),
        "left_out": left_out(plan, day),
    }
    if sized:
        held, trade, price = (table[c].to_numpy() for c in ("held", "trade", "price"))
        facts |= {
            "turnover": plan.turnover,
            "account": account_after(held, trade, price, plan.cash, mandate.costs),
            "kept_without_price": [
                str(name) for name, row in table.iterrows()
                if row["held"] > 0 and row["reason"] == SUSPENDED
            ],
        }  # fmt: skip
    return facts
