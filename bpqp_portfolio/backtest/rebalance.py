"""The decision of one day, without a simulator: what is known and held in, trades and reasons out.

Timing: everything in :class:`DayInputs` is known at the close of day t; the trades it leads to are
made at the close of t+1. So a name that is suspended on t is held (it stays suspended the next day
in most cases), and a name that closed at a price limit on t is not traded against that limit; what
t+1 itself will forbid is not known, and shows as a difference of realised and target weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from ..config import check_number
from ..data.universe.exposures import no_exposure
from ..errors import DataError
from ..portfolio.costs import TradingCosts
from ..portfolio.mandate.mandate import Mandate, MandateSolution, Market
from ..problems.solution import SolveStatus
from .lots import lot_trades

# A dual below this, in return a day, is rounding.
LEAST_PRICE = 1e-10

WAYS = {
    "relax": "solved with limits relaxed",
    "hold": "not solved: held",
    "equal_weights": "not solved: equal weights",
}
"""How a target came about that is not the answer of the mandate as it stands."""

SUSPENDED = "suspended"
NO_RISK_MODEL = "no risk model: too short a history"
NO_FORECAST = "no forecast"
LEFT_UNIVERSE = "left the universe: sold"
AT_UPPER_LIMIT = "at the upper price limit: not bought"
AT_LOWER_LIMIT = "at the lower price limit: not sold"


@dataclass(frozen=True)
class DayInputs:
    """What is known at the close of a day about the N names that are or were in the universe.

    ``mu`` (N,) expected return from the close of t+1 to that of t+2 as a fraction, NaN without a
    forecast; ``loadings`` (N, k) and ``specific`` (N,), per day², NaN without a risk model;
    ``variance`` (N,) of the name's own past returns, per day²; ``price`` (N,) last close, NaN where
    there never was one; ``factor`` (N,) shares of the exchange in one unit of a holding (1 where
    holdings are shares and prices quoted ones); ``suspended``, ``at_upper``, ``at_lower``,
    ``member`` (N,) bool; ``benchmark`` (N,) weights of the index; ``sector`` (N,) titles;
    ``exposures`` (N, f) to ``exposure_names``, NaN where unknown, None where none is asked for.
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


@dataclass(frozen=True)
class BookRules:
    """``risk_degree`` part of the account that weights are fractions of; ``lot`` shares in a lot,
    None for any amount; ``costs`` of an order; ``pin_limits`` whether names that closed at a price
    limit are kept from trading against it the next day."""

    risk_degree: float
    lot: int | None = 100
    costs: TradingCosts = field(default_factory=TradingCosts)
    pin_limits: bool = True

    def __post_init__(self) -> None:
        check_number(self.risk_degree, "risk_degree", low=0, high=1, open_low=True)
        if self.lot is not None:
            check_number(self.lot, "lot", low=1, integer=True)


@dataclass(frozen=True)
class Rebalance:
    """A day's decision.

    ``table`` is indexed by instrument, one row for each name that is in the problem or held:
    ``previous`` and ``target`` weights (fractions of the invested part, risk_degree × account),
    ``price``, ``held``, ``wanted`` (before lots) and ``trade`` (a buy above zero) in units of the
    holdings, ``reason`` why a name does not trade freely, or empty. ``left_out`` says why a member
    that is not held is no part of the problem. ``activity`` lists each constraint in its own words,
    whether it is binding, and its price (return a day for a unit of its limit); ``events`` the ways
    out that were taken and why.
    """

    date: pd.Timestamp
    table: pd.DataFrame
    solution: MandateSolution
    market: Market
    account: float
    cash: float
    expected_return: float
    risk: float
    left_out: dict[str, str]
    activity: list[tuple[str, bool, float]]
    events: list[tuple[str, str]]

    @property
    def status(self) -> str:
        """How the solve that was wanted ended, in a word."""
        return SolveStatus.from_code(self.solution.status[0]).label

    @property
    def ending(self) -> str:
        """How the target came about, in words: the solve's end, or the way out that was taken."""
        way = self.solution.fallback[0]
        return WAYS.get(way, way) if way else self.status

    @property
    def turnover(self) -> float:
        """One-way, of the names that the mandate decides on: forced sales do not count."""
        own = self.table[self.table["reason"] != LEFT_UNIVERSE]
        return 0.5 * float((own["target"] - own["previous"]).abs().sum())


def rebalance(
    mandate: Mandate,
    inputs: DayInputs,
    holdings: Mapping[str, float],
    cash: float,
    rules: BookRules,
) -> Rebalance:
    """Solve the day's problem from the weights that are really held, and turn it into trades.

    Members of the universe with a forecast and a risk model that are not suspended may be held;
    names that are held besides are sold outright where they left the universe, and pinned at their
    weight otherwise. Such a forced sale does not count against a turnover limit. From an account
    without any share the mandate is solved without its previous weights, since no turnover limit
    could be kept then.

    Raises
    ------
    DataError
        A holding has an unknown name, no price, or is negative; a name of the problem lacks an
        exposure.
    SolverError
        The day was not solved and the mandate's ``on_failure`` says to raise.
    """
    names = inputs.names
    position = {str(name): i for i, name in enumerate(names)}
    held = np.zeros(len(names))
    for name, amount in holdings.items():
        if name not in position:
            raise DataError(
                f"holdings: {name!r} is no name of this universe's data; sell it by hand, or "
                "correct its code."
            )
        i = position[name]
        if not (np.isfinite(amount) and amount >= 0):
            raise DataError(f"holdings: {amount} of {name}; expected a number of shares >= 0.")
        if amount > 0 and not np.isfinite(inputs.price[i]):
            raise DataError(f"holdings: no price of {name} up to {inputs.date:%Y-%m-%d}.")
        held[i] = amount
    price = np.nan_to_num(inputs.price)
    account = cash + float(held @ price)
    if not account > 0:
        raise DataError(f"the account is worth {account:g} on {inputs.date:%Y-%m-%d}.")
    book = rules.risk_degree * account
    previous = held * price / book

    modelled = np.isfinite(inputs.specific) & np.isfinite(inputs.loadings).all(-1)
    known = np.isfinite(inputs.mu)
    open_ = inputs.member & known & modelled & ~inputs.suspended
    is_held = held > 0
    leaver = is_held & ~inputs.member & ~inputs.suspended
    pinned = is_held & ~open_ & ~leaver
    reasons = np.full(len(names), "", dtype=object)
    reasons[~modelled] = NO_RISK_MODEL
    reasons[modelled & ~known] = NO_FORECAST
    reasons[inputs.suspended] = SUSPENDED
    reasons[open_] = ""
    reasons[leaver] = LEFT_UNIVERSE
    no_buy = open_ & inputs.at_upper & rules.pin_limits
    no_sell = open_ & is_held & inputs.at_lower & rules.pin_limits
    reasons[no_buy], reasons[no_sell] = AT_UPPER_LIMIT, AT_LOWER_LIMIT

    first = not is_held.any()
    # Without holdings there is nothing to pin; what must not be bought is no part of the problem.
    chosen = np.flatnonzero((open_ & ~no_buy) if first else (open_ | pinned))
    known_index = np.where(inputs.member, inputs.benchmark, 0.0)[chosen]
    if mandate.benchmarked and len(chosen) and not known_index.sum() > 0:
        raise DataError(
            f"mandate.index_weights: no weight of a name that may be held on "
            f"{inputs.date:%Y-%m-%d}, which the mandate's limits are relative to."
        )
    market = _market(inputs, chosen, previous, modelled, pinned, no_buy, no_sell, first)
    with torch.no_grad():
        solution = mandate.solve(market)
    target = np.zeros(len(names))
    target[chosen] = solution.w[0].numpy()

    wanted = np.zeros(len(names))
    shown = price > 0
    wanted[shown] = target[shown] * book / price[shown]
    keep = pinned | (no_buy & (wanted > held)) | (no_sell & (wanted < held))
    wanted[keep] = held[keep]
    trade = lot_trades(
        names, wanted, held, inputs.factor, price, cash, lot=rules.lot, costs=rules.costs
    )
    rows = np.flatnonzero(open_ | is_held)
    table = pd.DataFrame(
        {
            "previous": previous,
            "target": target,
            "price": price,
            "held": held,
            "wanted": wanted,
            "trade": trade,
            "reason": reasons,
        },
        index=pd.Index(names, name="instrument"),
    ).iloc[rows]
    outside = np.flatnonzero(inputs.member & ~open_ & ~is_held)
    w = target[chosen]
    exposure = market.loadings[0].numpy().T @ w
    variance = float(exposure @ exposure + market.specific[0].numpy() @ w**2)
    return Rebalance(
        date=inputs.date,
        table=table,
        solution=solution,
        market=market,
        account=account,
        cash=cash,
        expected_return=float(market.mu[0].numpy() @ w),
        risk=float(np.sqrt(variance)),
        left_out={str(names[i]): str(reasons[i]) for i in outside},
        activity=_activity(mandate, solution),
        events=_events(solution),
    )


def _market(
    inputs: DayInputs,
    chosen: np.ndarray,
    previous: np.ndarray,
    modelled: np.ndarray,
    pinned: np.ndarray,
    no_buy: np.ndarray,
    no_sell: np.ndarray,
    first: bool,
) -> Market:
    """The mandate's market of one day: the names ``chosen``, in the order of ``inputs``."""

    def one(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[chosen])).unsqueeze(0)

    has = modelled[:, None]
    # A pinned name without a risk model has its own variance, and no correlation.
    usual = np.nanmedian(np.where(modelled, inputs.specific, np.nan))
    alone = np.where(np.isfinite(inputs.variance), inputs.variance, usual)
    index = np.where(inputs.member, inputs.benchmark, 0.0)[chosen]
    total = index.sum()
    titles = sorted({str(title) for title in inputs.sector})
    exposures = None if inputs.exposures is None else one(inputs.exposures)
    if exposures is not None and bool(exposures.isnan().any()):
        _, i, j = exposures.isnan().nonzero()[0].tolist()
        raise no_exposure(inputs.exposure_names[j], str(inputs.names[chosen[i]]), inputs.date)
    return Market(
        mu=one(np.nan_to_num(inputs.mu)),
        loadings=one(np.where(has, inputs.loadings, 0.0)),
        specific=one(np.where(modelled, inputs.specific, alone)),
        mask=torch.ones(1, len(chosen), dtype=torch.bool),
        previous=None if first else one(previous),
        benchmark=torch.from_numpy(index / total if total > 0 else index).unsqueeze(0),
        pinned=None if first else one(pinned),
        no_buy=None if first else one(no_buy),
        no_sell=None if first else one(no_sell),
        groups={title: one((inputs.sector == title).astype(float)) for title in titles if title},
        exposures=exposures,
        exposure_names=inputs.exposure_names,
        names=[str(name) for name in inputs.names[chosen]],
    )


def _activity(mandate: Mandate, solution: MandateSolution) -> list[tuple[str, bool, float]]:
    """Constraints but for the budget, which always holds; none on a day that was not solved.

    The duals of an inaccurate point are no prices.
    """
    if SolveStatus.from_code(solution.status[0]) is not SolveStatus.SOLVED:
        return []
    rows = mandate.explain(solution, 0, all_rows=True)[1:]
    return [
        (words, abs(dual) > LEAST_PRICE, dual) for words, _, _, _, dual in rows if np.isfinite(dual)
    ]


def _events(solution: MandateSolution) -> list[tuple[str, str]]:
    way, reason = solution.fallback[0], solution.reason[0]
    return [(way, str(reason))] if way else []
