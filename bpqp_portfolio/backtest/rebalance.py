"""The decision of one day, without a simulator: inputs and holdings in, trades and reasons out.

One function for backtest and live weights: value the account, say what may trade, solve, size the
orders in lots. A name that is suspended on the day is held (it stays suspended the next day in most
cases), and one that closed at a price limit is not traded against that limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from ..config import check_number
from ..data.universe.exposures import no_exposure
from ..errors import DataError
from ..portfolio.costs import TradingCosts
from ..portfolio.mandate.mandate import MandateSolution, Market
from ..portfolio.mandate.solution import ConstraintRow
from ..problems.solution import SolveStatus
from .day_inputs import DayInputs
from .lots import account_after, lot_trades

# A dual below this, in return a day, is rounding.
LEAST_DUAL = 1e-10

FALLBACKS = {
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


class DayPolicy(Protocol):
    """What decides on a day's market: a :class:`~bpqp_portfolio.portfolio.mandate.mandate.Mandate`,
    or a :class:`~.problem_policy.ProblemPolicy`."""

    @property
    def benchmarked(self) -> bool:
        """Whether it needs index weights."""
        ...

    def solve(self, market: Market) -> MandateSolution:
        """Its target weights on the market's days."""
        ...


@dataclass(frozen=True)
class BookRules:
    """How an account trades.

    ``risk_degree`` part of the account that weights are fractions of (see
    :class:`~.account_rules.AccountRules`); ``lot`` shares in a lot, None for any amount (see
    :class:`~bpqp_portfolio.markets.rules.MarketRules`); ``costs`` of an order; ``pin_limits``
    whether names that closed at a price limit are kept from trading against it the next day;
    ``whole_shares`` whether fractions of a share stay where there are lots (a backtest sells those
    that splits and dividends leave; at a broker nobody can); ``from_holdings`` whether the decision
    knows what is held. Without, suspended names that are held are no part of the problem and
    targets are fractions of what trades, as in Qlib's own strategies of target weights.
    """

    risk_degree: float
    lot: int | None
    costs: TradingCosts
    pin_limits: bool = True
    from_holdings: bool = True
    whole_shares: bool = False

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
    that is not held is no part of the problem. ``risk`` is √(wᵀΣw) a day by the risk model,
    ``risk_learned`` by what a network made of it, None where it learned nothing.
    """

    date: pd.Timestamp
    table: pd.DataFrame
    solution: MandateSolution
    market: Market
    account: float
    cash: float
    expected_return: float
    risk: float
    risk_learned: float | None
    left_out: dict[str, str]

    @property
    def status(self) -> str:
        """How the solve that was wanted ended, in a word."""
        return str(self.solution.status[0].label)

    @property
    def fallback(self) -> str:
        """The fallback that was taken, empty on a day that was solved."""
        return self.solution.fallback[0] or ""

    @property
    def outcome(self) -> str:
        """How the target came about: the solve's end, or the fallback that was taken."""
        return FALLBACKS.get(self.fallback, self.fallback) or self.status

    @property
    def events(self) -> list[tuple[str, str]]:
        """The fallback that was taken and why; empty on a day that was solved."""
        return [(self.fallback, str(self.solution.reason[0]))] if self.fallback else []

    @property
    def constraints(self) -> list[ConstraintRow]:
        """Every constraint that has a value, the budget first.

        Of a day that relaxed some they are those of the relaxed problem; none where nothing was
        solved, since the duals of an inaccurate point are no prices.
        """
        s = self.solution
        solved = s.status[0] is SolveStatus.SOLVED
        if not solved and self.fallback != "relax":
            return []
        return [row for row in s.rows(0) if np.isfinite(row.dual)]

    @property
    def binding(self) -> list[ConstraintRow]:
        """The constraints whose dual, their shadow price, is more than rounding."""
        return [row for row in self.constraints if abs(row.dual) > LEAST_DUAL]

    @property
    def turnover(self) -> float:
        """One-way, of the names that are decided on: forced sales do not count."""
        own = self.table[self.table["reason"] != LEFT_UNIVERSE]
        return 0.5 * float((own["target"] - own["previous"]).abs().sum())

    def account_after(self, costs: TradingCosts) -> dict[str, float]:
        """The account's ``value`` before the trades, its ``cash`` after them and their ``cost``."""
        held, trade, price = (self.table[c].to_numpy() for c in ("held", "trade", "price"))
        return account_after(held, trade, price, self.cash, costs)


def rebalance(
    policy: DayPolicy,
    inputs: DayInputs,
    holdings: Mapping[str, float],
    cash: float,
    rules: BookRules,
) -> Rebalance:
    """Solve the day's problem from the weights that are really held, and turn it into trades.

    Members of the universe with a forecast and a risk model that are not suspended may be held;
    names that are held besides are sold outright where they left the universe, and pinned at their
    weight otherwise. Such a forced sale does not count against a turnover limit. From an account
    without any share the problem is solved without previous weights, since no turnover limit could
    be kept then.

    Raises
    ------
    DataError
        A holding has an unknown name, no price, or is negative; a name of the problem lacks an
        exposure.
    SolverError
        The day was not solved and the mandate's ``on_failure`` says to raise.
    """
    book = _book(inputs, holdings, cash, rules)
    roles = _roles(inputs, book.held > 0, rules)
    chosen = np.flatnonzero(roles.in_problem)
    market = _market(inputs, chosen, book, roles, rules)
    _check_benchmark(policy, market, inputs.date)
    with torch.no_grad():
        solution = policy.solve(market)
    target = np.zeros(len(inputs.names))
    target[chosen] = solution.w[0].numpy()
    wanted = _wanted(target, inputs, book, roles, rules)
    trade = lot_trades(
        inputs.names, wanted, book.held, inputs.factor, book.price, cash,
        lot=rules.lot, costs=rules.costs, whole_shares=rules.whole_shares,
    )  # fmt: skip
    table = pd.DataFrame(
        {
            "previous": book.previous,
            "target": target,
            "price": book.price,
            "held": book.held,
            "wanted": wanted,
            "trade": trade,
            "reason": roles.reasons,
        },
        index=pd.Index(inputs.names, name="instrument"),
    )
    held = book.held > 0
    outside = np.flatnonzero(inputs.member & ~roles.open & ~held)
    risk, learned = _risks(target[chosen], chosen, market, inputs)
    return Rebalance(
        date=inputs.date,
        table=table[roles.open | held],
        solution=solution,
        market=market,
        account=book.account,
        cash=cash,
        expected_return=float(market.mu[0].numpy() @ target[chosen]),
        risk=risk,
        risk_learned=learned,
        left_out={str(inputs.names[i]): str(roles.reasons[i]) for i in outside},
    )


@dataclass(frozen=True)
class _Book:
    """An account before its trade: ``held`` (N,) units, ``price`` (N,) currency a unit, 0 where
    there is none; ``account`` in all and ``invested`` of it, which weights are fractions of."""

    held: np.ndarray
    price: np.ndarray
    cash: float
    account: float
    invested: float

    @property
    def previous(self) -> np.ndarray:
        """Weights (N,) that are held."""
        return self.held * self.price / self.invested


@dataclass(frozen=True)
class _Roles:
    """What each of the N names may do, all bool but ``reasons``, which say why not more.

    ``open`` may be held and traded, but ``no_buy`` and ``no_sell`` in that direction; ``pinned``
    are held and cannot be traded; ``in_problem`` have a weight to be decided.
    """

    open: np.ndarray
    pinned: np.ndarray
    no_buy: np.ndarray
    no_sell: np.ndarray
    in_problem: np.ndarray
    reasons: np.ndarray


def _book(inputs: DayInputs, holdings: Mapping[str, float], cash: float, rules: BookRules) -> _Book:
    """The account at the day's prices; refuses holdings that cannot be."""
    position = {str(name): i for i, name in enumerate(inputs.names)}
    held = np.zeros(len(inputs.names))
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
    return _Book(held, price, cash, account, rules.risk_degree * account)


def _modelled(inputs: DayInputs) -> np.ndarray:
    """(N,) whether a name has a risk model."""
    return np.isfinite(inputs.specific) & np.isfinite(inputs.loadings).all(-1)


def _roles(inputs: DayInputs, held: np.ndarray, rules: BookRules) -> _Roles:
    modelled, known = _modelled(inputs), np.isfinite(inputs.mu)
    open_ = inputs.member & known & modelled & ~inputs.suspended
    leaver = held & ~inputs.member & ~inputs.suspended
    pinned = held & ~open_ & ~leaver
    no_buy = open_ & inputs.at_upper & rules.pin_limits
    no_sell = open_ & held & inputs.at_lower & rules.pin_limits
    reasons = np.full(len(inputs.names), "", dtype=object)
    for which, reason in (
        (~modelled, NO_RISK_MODEL),
        (modelled & ~known, NO_FORECAST),
        (inputs.suspended, SUSPENDED),
        (open_, ""),
        (leaver, LEFT_UNIVERSE),
        (no_buy, AT_UPPER_LIMIT),
        (no_sell, AT_LOWER_LIMIT),
    ):
        reasons[which] = reason
    # Without holdings there is nothing to pin; what must not be bought is no part of the problem.
    if not held.any():
        in_problem = open_ & ~no_buy
    else:
        in_problem = open_ | pinned if rules.from_holdings else open_
    return _Roles(open_, pinned, no_buy, no_sell, in_problem, reasons)


def _completed(
    loadings: np.ndarray, specific: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """B (N, k) and d (N,) of all names: one without a risk model has its own variance, or that of
    the median name, and no correlation."""
    modelled = np.isfinite(specific) & np.isfinite(loadings).all(-1)
    usual = np.nanmedian(np.where(modelled, specific, np.nan))
    alone = np.where(np.isfinite(variance), variance, usual)
    return np.where(modelled[:, None], loadings, 0.0), np.where(modelled, specific, alone)


def _market(
    inputs: DayInputs, chosen: np.ndarray, book: _Book, roles: _Roles, rules: BookRules
) -> Market:
    """The market of one day: the names ``chosen``, in the order of ``inputs``."""

    def one(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[chosen])).unsqueeze(0)

    loadings, specific = _completed(inputs.loadings, inputs.specific, inputs.variance)
    index = np.where(inputs.member, inputs.benchmark, 0.0)[chosen]
    total = index.sum()
    titles = sorted({str(title) for title in inputs.sector})
    exposures = None if inputs.exposures is None else one(inputs.exposures)
    if exposures is not None and bool(exposures.isnan().any()):
        _, i, j = exposures.isnan().nonzero()[0].tolist()
        raise no_exposure(inputs.exposure_names[j], str(inputs.names[chosen[i]]), inputs.date)
    blank = not rules.from_holdings or not (book.held > 0).any()
    return Market(
        mu=one(np.nan_to_num(inputs.mu)),
        loadings=one(loadings),
        specific=one(specific),
        mask=torch.ones(1, len(chosen), dtype=torch.bool),
        previous=None if blank else one(book.previous),
        benchmark=torch.from_numpy(index / total if total > 0 else index).unsqueeze(0),
        pinned=None if blank else one(roles.pinned),
        no_buy=None if blank else one(roles.no_buy),
        no_sell=None if blank else one(roles.no_sell),
        groups={title: one((inputs.sector == title).astype(float)) for title in titles if title},
        exposures=exposures,
        exposure_names=inputs.exposure_names,
        traded_value=None if inputs.traded_value is None else one(inputs.traded_value),
        account=torch.tensor([book.invested], dtype=torch.float64),
        names=[str(name) for name in inputs.names[chosen]],
    )


def _check_benchmark(policy: DayPolicy, market: Market, date: pd.Timestamp) -> None:
    """Limits relative to an index that weighs nothing would be limits of another kind."""
    assert market.benchmark is not None
    if policy.benchmarked and market.benchmark.numel() and not bool(market.benchmark.sum() > 0):
        raise DataError(
            f"mandate.index_weights: no weight of a name that may be held on {date:%Y-%m-%d}, "
            "which the mandate's limits are relative to."
        )


def _wanted(
    target: np.ndarray, inputs: DayInputs, book: _Book, roles: _Roles, rules: BookRules
) -> np.ndarray:
    """Units (N,) to hold for the ``target`` weights, before lots; what cannot trade is kept."""
    book_value, shown = book.invested, book.price > 0
    if rules.from_holdings:
        keep = roles.pinned
    else:
        # Qlib sizes target weights by what trades: its value and the cash less what is to stay
        # uninvested, over one plus the larger rate of cost.
        keep = inputs.suspended | ~shown
        trading = (book.held * book.price)[~keep].sum() + book.cash
        trading -= (1 - rules.risk_degree) * book.account
        book_value = max(trading, 0.0) / (1 + max(rules.costs.buy, rules.costs.sell))
    wanted = np.zeros(len(target))
    wanted[shown] = target[shown] * book_value / book.price[shown]
    against_limit = (roles.no_buy & (wanted > book.held)) | (roles.no_sell & (wanted < book.held))
    keep = keep | against_limit
    wanted[keep] = book.held[keep]
    return wanted


def _risks(
    w: np.ndarray, chosen: np.ndarray, market: Market, inputs: DayInputs
) -> tuple[float, float | None]:
    """√(wᵀΣw) a day by the risk model, and by what a network made of it where it did."""

    def root(loadings: np.ndarray, specific: np.ndarray) -> float:
        return float(np.sqrt(np.square(w @ loadings).sum() + (specific * w * w).sum()))

    decided = root(market.loadings[0].numpy(), market.specific[0].numpy())
    if inputs.statistical is None:
        return decided, None
    loadings, specific = _completed(*inputs.statistical, inputs.variance)
    return root(loadings[chosen], specific[chosen]), decided
