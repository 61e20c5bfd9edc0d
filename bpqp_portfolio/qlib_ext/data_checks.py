"""Checks of a workflow's data before any feature is computed: index, universe and risk model."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..data.provider.provider import Provider
from ..data.universe.market import MarketData
from ..errors import ConfigError, DataError
from ..portfolio.problem import ProblemConfig
from ..risk.config import RiskConfig
from .segments import Segments


def check_benchmark(benchmark: str | None, market: str, provider: Provider) -> None:
    """The index has prices, and is no name of the universe that it is compared with.

    Raises
    ------
    ConfigError
        No such prices, or the index is a member of ``market``.
    """
    if benchmark is None:
        return
    if not isinstance(benchmark, str):
        raise ConfigError(f"benchmark: expected a code or null, got {benchmark!r}.")
    if benchmark.lower() not in provider.folders:
        raise ConfigError(
            f"benchmark: no prices of {benchmark!r} in {provider.root}; an index has a code such "
            "as SH000300, and `benchmark: null` compares with none."
        )
    if benchmark.upper() in set(provider.spells(market)["instrument"]):
        raise ConfigError(
            f"benchmark: {benchmark} is itself a member of the universe {market!r}, so the "
            f"portfolio could hold it. Take it out of {provider.root}/instruments/{market}.txt, or "
            f"import the data again with `bpqp data import … --benchmark {benchmark}`."
        )


def check_universe(
    market: MarketData, segments: Segments, risk: RiskConfig, problem: ProblemConfig
) -> None:
    """Every day has enough names for the risk model and for the largest weight.

    Counted are the names that can be invested in and that have a risk model on the day.

    Raises
    ------
    DataError, ConfigError
        A day without a name, with too few for the factors, or for ``max_weight``.
    """
    first, last = segments["train"][0], segments["test"][1]
    days = (market.dates >= first) & (market.dates <= last)
    dates = market.dates[days]
    tradable = market.investable[days].sum(1)
    if tradable.min() == 0:
        raise DataError(
            f"no name can be invested in on {dates[tradable.argmin()]:%Y-%m-%d} "
            f"({(tradable == 0).sum()} such days): the universe is empty or all its prices are "
            "missing. Run `bpqp data check`, or choose other segments."
        )
    before = int(np.flatnonzero(days)[0])
    if before < risk.min_history:
        raise DataError(
            f"the risk model needs {risk.min_history} returns up to the first training day, but "
            f"the data begin {before} days before {first:%Y-%m-%d}: start the train segment later "
            "or lower risk.min_history."
        )
    returns = pd.DataFrame(np.isfinite(market.returns)).rolling(risk.window, min_periods=1).sum()
    modelled = returns.to_numpy()[days] >= risk.min_history
    count = (market.investable[days] & modelled).sum(1)
    fewest, worst = int(count.min()), dates[count.argmin()]
    if fewest <= risk.factors:
        raise DataError(
            f"{fewest} of the {tradable[count.argmin()]} names of {worst:%Y-%m-%d} have a history "
            f"of {risk.min_history} returns, but the risk model has {risk.factors} factors and "
            "needs more names than that: lower risk.factors or risk.min_history, or start the "
            "train segment later."
        )
    if fewest * problem.max_weight < 1 - 1e-9:
        least = math.ceil(1e4 / fewest) / 1e4
        raise ConfigError(
            f"mandate.constraints.max_weights {problem.max_weight:g} cannot reach a sum of 1 with "
            f"the {fewest} names that have a risk model on {worst:%Y-%m-%d}: set it to at least "
            f"{least:g}."
        )
