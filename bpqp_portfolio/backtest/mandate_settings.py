"""The ``mandate:`` block of a workflow: read, checked, refused where no backtest could hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config import check_keys, check_number, from_mapping
from ..data.provider.provider import Provider
from ..data.universe.dated import read_dated
from ..data.universe.exposures import MarketExposures, wanted_exposures
from ..data.universe.index_weights import PROXIES, index_weights
from ..data.universe.market import MarketData, value_traded
from ..data.universe.sectors import read_sectors
from ..errors import ConfigError, DataError
from ..markets.rules import MarketRules
from ..portfolio.costs import TradingCosts
from ..portfolio.mandate.config import SETTINGS, YEAR
from ..portfolio.mandate.mandate import Mandate
from ..portfolio.mandate.objective import OBJECTIVES
from ..portfolio.mandate.terms import CONSTRAINTS, COSTS
from ..portfolio.mandate.terms.linear_cost import LinearCost
from ..portfolio.mandate.terms.long_only import LongOnly
from ..portfolio.mandate.terms.max_weights import MaxWeights
from ..portfolio.problem import ProblemConfig
from ..risk.clusters import ClusterConfig
from .account_rules import AccountRules
from .rebalance import BookRules

OWN = ("sectors", "index_weights", "pin_limits", "exposure_table", "exposure_fill", "account")
"""Keys of the block that are not the mandate's own."""

LEARNING = tuple(
    field.name
    for field in fields(ProblemConfig)
    if field.name not in ("risk_aversion", "max_weight", "costs", "days_per_year")
)
"""Keys of a workflow's ``problem:``; the other fields follow from its mandate and market."""

ASK_ACCOUNT = (
    "State what the backtest trades in: `mandate: {account: {value: 100000000, risk_degree: 0.99}}`"
    " (currency of the prices, and the part of it that is invested)."
)

NO_LONG_ONLY = (
    "mandate: it allows negative weights or a sum above 1, which Qlib's backtest would drop "
    "without a word, since its accounts hold no short position and lend no money. Add "
    "`long_only: true` or a lower bound of 0 and a budget of at most 1, or use the mandate from "
    "Python, where the layer and your own simulation take any sign."
)


@dataclass(frozen=True)
class MandateSettings:
    """The ``mandate:`` block of a dataset: what is constrained, and the tables it needs.

    Limits, costs, risk aversion and account are those of the training problem, the losses, the
    backtest, the orders and the report. One that allows negative weights or a sum above 1 is for
    Python alone: a workflow with it is refused.

    Parameters
    ----------
    rules : everything in the block that is not below, for :meth:`Mandate.from_config`.
    days_per_year : [days] that annual limits count, the market's.
    sectors : groups of ``groups``: a CSV file (see
        :func:`~bpqp_portfolio.data.universe.sectors.read_sectors`), or the fields of
        :class:`~bpqp_portfolio.risk.clusters.ClusterConfig` for groups found in past returns.
    index_weights : weights w_b of the benchmark that limits are relative to: ``equal``;
        ``traded_value``, a proxy from the mean value traded over 250 days; or a CSV file (see
        :func:`~bpqp_portfolio.data.universe.index_weights.index_weights`).
    pin_limits : keeps a name that closed at a price limit from trading against it the next day.
    exposure_table : CSV file of what ``exposures`` bounds, but for what is built in: ``beta``,
        ``size``, ``momentum`` (see
        :class:`~bpqp_portfolio.data.universe.exposures.MarketExposures`).
    exposure_fill : [the exposure's own] what a member counts as that the table leaves out; null
        makes such a member an error.
    account : what a backtest trades in, fields of :class:`~.account_rules.AccountRules`; null where
        nothing is traded.
    """

    rules: Mapping[str, Any]
    days_per_year: float
    sectors: str | ClusterConfig
    index_weights: str = "equal"
    pin_limits: bool = True
    exposure_table: str | None = None
    exposure_fill: float | None = None
    account: AccountRules | None = None

    @classmethod
    def from_config(cls, block: Mapping[str, Any], days_per_year: float) -> MandateSettings:
        """Settings from the block of a workflow; ``days_per_year`` are those of its market.

        Raises
        ------
        ConfigError
            An unknown key or value, no ``risk_aversion`` where the objective weighs returns, or a
            mandate with negative weights or leverage.
        """
        if not isinstance(block, Mapping):
            raise ConfigError(f"mandate: expected a mapping, got {block!r}.")
        try:
            json.dumps(block)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"mandate: {error}; write numbers, words, lists and mappings alone, since the run "
                "keeps them as JSON for the days after it."
            ) from error
        known = (*OWN, *SETTINGS, "constraints", "costs", *CONSTRAINTS, *COSTS)
        check_keys(block, known, "mandate")
        objective = block.get("objective", "mean_variance")
        weighed = [name for name, one in OBJECTIVES.items() if one.returns]
        if objective in weighed and "risk_aversion" not in block:
            raise ConfigError(
                f"mandate.risk_aversion: missing, and the objective {objective} weighs risk by it. "
                "State it, in 1/(return per day): `mandate: {risk_aversion: 5}`."
            )
        own = {k: block[k] for k in OWN if k in block}
        sectors = own.pop("sectors", None)
        if not isinstance(sectors, str):
            sectors = from_mapping(ClusterConfig, sectors, "mandate.sectors")
        if not isinstance(own.get("index_weights", ""), str):
            raise ConfigError(
                f"mandate.index_weights: expected equal, traded_value or a CSV file, "
                f"got {own['index_weights']!r}."
            )
        if not isinstance(own.get("pin_limits", True), bool):
            raise ConfigError(
                f"mandate.pin_limits: expected true or false, got {own['pin_limits']!r}."
            )
        table, fill = own.get("exposure_table"), own.get("exposure_fill")
        if table is not None and not isinstance(table, str):
            raise ConfigError(f"mandate.exposure_table: expected a CSV file, got {table!r}.")
        if fill is not None:
            check_number(fill, "mandate.exposure_fill")
            if table is None:
                raise ConfigError("mandate.exposure_fill: there is no exposure_table to complete.")
        if own.get("account") is not None:
            own["account"] = from_mapping(AccountRules, own["account"], "mandate.account")
        rules = {k: v for k, v in block.items() if k not in OWN}
        settings = cls(rules=rules, days_per_year=days_per_year, sectors=sectors, **own)
        if not settings.build().long_only:
            raise ConfigError(NO_LONG_ONLY)
        named, every = settings._wanted
        if (named or every) and table is None:
            wanted_exposures(named, every, (), None)
        return settings

    def to_config(self) -> dict[str, Any]:
        """The block again, for :meth:`from_config` in any folder: paths of tables are absolute."""
        sectors, index = self.sectors, self.index_weights
        if isinstance(sectors, ClusterConfig):
            tables: dict[str, Any] = {"sectors": asdict(sectors)}
        else:
            tables = {"sectors": _absolute(sectors)}
        tables["index_weights"] = index if index in PROXIES else _absolute(index)
        if self.exposure_table is not None:
            tables["exposure_table"] = _absolute(self.exposure_table)
            tables["exposure_fill"] = self.exposure_fill
        if self.account is not None:
            tables["account"] = asdict(self.account)
        return {**self.rules, **tables, "pin_limits": self.pin_limits}

    def build(self) -> Mandate:
        """The mandate itself."""
        return Mandate.from_config({YEAR: self.days_per_year, **self.rules})

    @property
    def costs(self) -> TradingCosts | None:
        """What an order costs; None where it is not stated."""
        return self.build().trading

    @property
    def beyond_training(self) -> list[str]:
        """What of the mandate its training problem does not know (see
        :meth:`training_problem`)."""
        mandate = self.build()
        known = (MaxWeights.name, LongOnly.name, LinearCost.name)
        names = [term.name for term in mandate.terms if term.name not in known]
        plain = mandate.objective in ("mean_variance", "maximum_utility")
        return names if plain else [f"objective {mandate.objective}", *names]

    def traded(self) -> tuple[AccountRules, TradingCosts]:
        """The account, and what its orders cost.

        Raises
        ------
        ConfigError
            One of them is not stated.
        """
        if self.account is None:
            raise ConfigError(f"mandate.account: missing. {ASK_ACCOUNT}")
        return self.account, self.build().costs

    def book_rules(self, market: MarketRules) -> BookRules:
        """What orders of the account are sized by; raises as :meth:`traded`."""
        account, costs = self.traded()
        return BookRules(account.risk_degree, market.lot, costs, self.pin_limits)

    def training_problem(self, block: Mapping[str, Any] | None) -> ProblemConfig:
        """The problem that a network learns through: the mandate's, as far as it has one.

        γ is the mandate's (twice its ``risk_aversion`` under ``maximum_utility``), the cap its
        ``max_weights`` (the largest of caps by name), costs and days a year its own; other
        constraints are for the backtest alone. ``block`` is the workflow's ``problem:``.

        Raises
        ------
        ConfigError
            A value outside its range; an unknown key, or one whose fact the mandate states.
        """
        given = {} if block is None else block
        check_keys(given, LEARNING, "problem")
        mandate = self.build()
        gamma = mandate.risk_aversion
        check_number(gamma, "mandate.risk_aversion", low=0, open_low=True)
        gamma *= 2 if mandate.objective == "maximum_utility" else 1
        cap = next((t.limit for t in mandate.terms if isinstance(t, MaxWeights)), 1.0)
        if isinstance(cap, Mapping):
            cap = max(1.0 if v is None else float(v) for v in {"default": 1.0, **cap}.values())
        check_number(cap, "mandate.constraints.max_weights", low=0, high=1, open_low=True)
        facts = {"costs": mandate.trading, "days_per_year": self.days_per_year}
        limits = {"risk_aversion": gamma, "max_weight": cap}
        return from_mapping(ProblemConfig, {**given, **limits, **facts}, "problem")

    @property
    def _wanted(self) -> tuple[tuple[str, ...], bool]:
        """Exposures that constraints and costs name, and whether they bound all there are."""
        terms = self.build().terms
        named = dict.fromkeys(name for term in terms for name in term.exposures_named)
        return tuple(named), any(term.exposures_all for term in terms)

    def exposures(
        self, market: MarketData, provider: Provider, window: int
    ) -> MarketExposures | None:
        """What constraints and costs need, over ``window`` days of returns; None for nothing."""
        named, every = self._wanted
        if not (named or every):
            return None
        return MarketExposures(
            named,
            market,
            provider,
            window=window,
            every=every,
            table=self.exposure_table,
            fill=self.exposure_fill,
        )

    def value_traded(self, market: MarketData, provider: Provider) -> np.ndarray | None:
        """(T, N) value traded on each day, in currency; None where no constraint needs it.

        Raises
        ------
        ConfigError
            A name has no volume.
        """
        if not self.build().needs("traded_value"):
            return None
        who = "mandate.max_participation"
        return value_traded(market, provider, who, "leave it out, or add the volume to the data.")

    def check_tables(
        self,
        market: MarketData,
        provider: Provider,
        window: int,
        test: tuple[pd.Timestamp, pd.Timestamp],
    ) -> None:
        """Read the tables once, so that their faults are reported before any long work.

        ``window`` days of returns, for exposures that are found in them; ``test`` first and last
        day that the mandate decides on.

        Raises
        ------
        DataError
            A table cannot be used, or does not cover the test days.
        """
        exposures = self.exposures(market, provider, window)
        if exposures is not None:
            exposures.check(*test)
        elif self.exposure_table is not None:
            read_dated(self.exposure_table, "exposures", market.names)
        self.value_traded(market, provider)
        index = index_weights(self.index_weights, market, provider)
        decided = (market.dates >= test[0]) & (market.dates <= test[1])
        without = np.flatnonzero(decided & ~(index.weights.sum(1) > 0))
        if self.build().benchmarked and len(without):
            raise DataError(
                f"mandate.index_weights: {index.source} has no weight of a member on "
                f"{market.dates[without[0]]:%Y-%m-%d} ({len(without)} such days): add the weights "
                "of a date on or before it, or bound nothing relative to the index."
            )
        if isinstance(self.sectors, str):
            read_sectors(self.sectors, market.dates, market.names)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
