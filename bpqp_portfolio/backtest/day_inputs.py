"""What is known at the close of a day: one builder for backtest, live weights and appraisal.

Timing: everything in :class:`DayInputs` is known at the close of day t; the trades that it leads to
are made at the close of t+1. What t+1 itself will forbid is not known, and shows as a difference of
realised and target weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.universe.market import MarketData
from ..portfolio.problem import PortfolioProblem
from .learned_risk import with_learned_risk

# Returns of its own that a name's variance takes.
LEAST_RETURNS = 20


@dataclass(frozen=True)
class DayInputs:
    """What is known at the close of a day about the N names that are or were in the universe.

    ``mu`` (N,) expected return from the close of t+1 to that of t+2 as a fraction, NaN without a
    forecast; ``loadings`` (N, k) and ``specific`` (N,), per day², with which is decided, NaN
    without a risk model, and ``statistical`` the two of the risk model itself where a network
    learned to adjust them; ``variance`` (N,) of the name's own past returns, per day²; ``price``
    (N,) last close, NaN where there never was one; ``factor`` (N,) shares of the exchange in one
    unit of a holding (1 where holdings are shares and prices quoted ones); ``suspended``,
    ``at_upper``, ``at_lower``, ``member`` (N,) bool; ``benchmark`` (N,) weights of the index;
    ``sector`` (N,) titles; ``exposures`` (N, f) to ``exposure_names``, NaN where unknown, None
    where none is asked for; ``traded_value`` (N,) currency on an average day, None likewise.
    """

    date: pd.Timestamp
    names: np.ndarray
    mu: np.ndarray
    loadings: np.ndarray
    specific: np.ndarray
    variance: np.ndarray
    price: np.ndarray
    factor: np.ndarray
    suspended: np.ndarray
    at_upper: np.ndarray
    at_lower: np.ndarray
    member: np.ndarray
    benchmark: np.ndarray
    sector: np.ndarray
    exposures: np.ndarray | None = None
    exposure_names: tuple[str, ...] = ()
    statistical: tuple[np.ndarray, np.ndarray] | None = None
    traded_value: np.ndarray | None = None


@dataclass(frozen=True)
class RiskRows:
    """Σ = B Bᵀ + diag(d) of a day: ``names`` (r,) positions of the modelled names among the
    market's, ``loadings`` (r, k), ``specific`` (r,), per day²; ``log_specific`` (M,) and
    ``log_factors`` (k,) are what a model adds to their logs, None where it learned none."""

    names: np.ndarray
    loadings: np.ndarray
    specific: np.ndarray
    log_specific: np.ndarray | None = None
    log_factors: np.ndarray | None = None


@dataclass(frozen=True)
class Quotes:
    """Of N names: ``price``, last close in currency for a unit of a holding; ``factor``, shares in
    a unit; whether they have no close that day, or one at a price limit."""

    price: np.ndarray
    factor: np.ndarray
    suspended: np.ndarray
    at_upper: np.ndarray
    at_lower: np.ndarray


@dataclass(frozen=True)
class MandateData:
    """What limits rest on, for M names: ``benchmark`` (M,) index weights, ``sector`` (M,) titles,
    ``exposures`` (M, f) to ``exposure_names`` and what a name counts as that is in no universe
    (f,), None where no exposure is bounded; ``traded_value`` (M,) currency on an average day, None
    where no trade is bounded by it."""

    benchmark: np.ndarray
    sector: np.ndarray
    exposures: np.ndarray | None = None
    unknown_exposures: np.ndarray | None = None
    exposure_names: tuple[str, ...] = ()
    traded_value: np.ndarray | None = None


@dataclass(frozen=True)
class DayData:
    """A day as its source has it, before it is put in the order of the names that can be held.

    ``market`` has the M names of the universe and their returns; ``names`` are the N that can be
    held, the market's among them; ``scores`` (M,) NaN where there is none; ``problem`` makes
    forecasts of them; ``window`` days of returns count for a name's own variance.
    """

    date: pd.Timestamp
    market: MarketData
    names: np.ndarray
    scores: np.ndarray
    problem: PortfolioProblem
    window: int
    risk: RiskRows
    quotes: Quotes
    mandate: MandateData


def day_inputs(data: DayData) -> DayInputs:
    """What is known at the close of a day, from the panel of a segment or the snapshot of a day."""
    market, names, risk, mandate = data.market, data.names, data.risk, data.mandate
    day = int(market.dates.get_loc(data.date))
    own = pd.Index(names).get_indexer(market.names)

    def spread(values: np.ndarray, fill: Any) -> np.ndarray:
        """(M, ...) of the market's names as (N, ...) of ``names``."""
        out = np.full((len(names), *values.shape[1:]), fill, dtype=values.dtype)
        out[own] = values
        return out

    # The risk model of the names that have one, as it was estimated and as it is decided with.
    loadings = np.full((len(market.names), risk.loadings.shape[1]), np.nan)
    specific = np.full(len(market.names), np.nan)
    loadings[risk.names], specific[risk.names] = risk.loadings, risk.specific
    statistical = None
    if risk.log_specific is not None or risk.log_factors is not None:
        statistical = spread(loadings, np.nan), spread(specific, np.nan)
    loadings, specific = with_learned_risk(loadings, specific, risk.log_specific, risk.log_factors)
    exposures = None
    if mandate.exposures is not None:
        assert mandate.unknown_exposures is not None
        exposures = np.tile(mandate.unknown_exposures, (len(names), 1))
        exposures[own] = mandate.exposures
    return DayInputs(
        date=data.date,
        names=names,
        mu=spread(expected_returns(data.problem, data.scores, specific), np.nan),
        loadings=spread(loadings, np.nan),
        specific=spread(specific, np.nan),
        variance=spread(own_variance(market.returns[: day + 1], data.window), np.nan),
        price=data.quotes.price,
        factor=data.quotes.factor,
        suspended=data.quotes.suspended,
        at_upper=data.quotes.at_upper & ~data.quotes.suspended,
        at_lower=data.quotes.at_lower & ~data.quotes.suspended,
        member=spread(market.member[day], False),
        benchmark=spread(mandate.benchmark, 0.0),
        sector=spread(mandate.sector, ""),
        exposures=exposures,
        exposure_names=mandate.exposure_names,
        statistical=statistical,
        traded_value=None if mandate.traded_value is None else spread(mandate.traded_value, 0.0),
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
    enough = count >= LEAST_RETURNS
    out[enough] = np.nanvar(last[:, enough], axis=0, ddof=1)
    return out
