"""Qlib record of a mandate: the backtest that solves each day from what is really held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..backtest.day_inputs import MandateDays
from ..backtest.implementation_shortfall import shortfall
from ..backtest.learned_risk import beliefs_of
from ..backtest.rebalance import BookRules, Rebalance
from ..errors import ConfigError
from ..report.metrics import annual
from ..training import torch_threads
from .dataset import PortfolioDataset
from .exchange import BoardExchange
from .mandate_strategy import MandateStrategy
from .records import BacktestConfig, BacktestRecord, realised_weights, solver_metrics

TABLES = ("mandate_weights", "mandate_days", "mandate_activity", "mandate_events", "shortfall")


@dataclass(frozen=True)
class MandateBacktestConfig:
    """Settings of the backtest, but for the costs, which are the mandate's: ``risk_degree``,
    ``account``, ``board_limits`` and ``trade_unit`` as in :class:`BacktestConfig`."""

    risk_degree: float
    account: float = 1e8
    board_limits: bool = True
    trade_unit: int | None = 100

    def __post_init__(self) -> None:
        BacktestConfig(self.risk_degree, self.account, trade_unit=self.trade_unit)


class MandateRecord(BacktestRecord):
    """Qlib's backtest of the dataset's mandate, against the index and equal weights.

    What :class:`BacktestRecord` keeps, and under ``portfolio_analysis/`` besides:
    ``mandate_weights.pkl`` (targets by signal day and name), ``mandate_days.pkl`` (status, forecast
    return and risk by signal day), ``mandate_activity.pkl`` (what bound, and its price),
    ``mandate_events.pkl`` (ways out that were taken, with day and reason) and ``shortfall.pkl``
    (realised against target weights, by trading day).

    Parameters
    ----------
    settings : fields of :class:`MandateBacktestConfig`.
    """

    config_class = MandateBacktestConfig

    def __init__(
        self,
        recorder: Any,
        dataset: PortfolioDataset,
        model: Any = None,
        skip_existing: bool = False,
        **settings: Any,
    ) -> None:
        if dataset.mandate is None:
            raise ConfigError(
                "MandateRecord: the dataset has no `mandate:` block; add one, or use "
                "BacktestRecord."
            )
        super().__init__(recorder, dataset, model, skip_existing, **settings)

    def _backtest(self, **kwargs: Any) -> dict[str, Any]:
        settings, dataset = self.settings, self.dataset
        mandate = dataset.mandate.build()
        rules = BookRules(
            settings.risk_degree, settings.trade_unit, mandate.costs, dataset.mandate.pin_limits
        )
        exchange = BoardExchange(
            freq="day",
            start_time=self.backtest_config["start_time"],
            end_time=self.backtest_config["end_time"],
            codes=list(dataset.market_data.names),
            deal_price="close",
            open_cost=mandate.costs.buy,
            close_cost=mandate.costs.sell,
            min_cost=mandate.costs.minimum,
            trade_unit=settings.trade_unit,
            exclusions=dataset.excluded,
            board_limits=settings.board_limits,
        )
        learned_risk = beliefs_of(self.model, dataset, recorder=self.recorder)
        days = MandateDays(dataset, self.load("pred.pkl").iloc[:, 0], exchange, learned_risk)
        plans: dict[pd.Timestamp, Rebalance] = {}
        options = {"mandate": mandate, "inputs": days.inputs, "rules": rules, "plans": plans}
        self.strategy_config = {"class": MandateStrategy, "kwargs": options}
        self.backtest_config["exchange_kwargs"] = {"exchange": exchange}
        with torch_threads(1):
            artifacts = self._simulate(**kwargs)
        report = artifacts["report_normal_1day.pkl"]
        positions = artifacts["positions_normal_1day.pkl"]
        realised = realised_weights(positions)
        targets = target_table(plans)
        prices = exchange.table("$close", dataset.market_data.names).ffill()
        gaps = shortfall(plans, positions, prices, settings.risk_degree)
        blocked, orders = (dict(gaps[n]) if len(gaps) else {} for n in ("unfilled", "orders"))
        daily = self._daily(report, realised, targets, blocked, orders)
        activity, events = activity_table(plans), event_table(plans)
        status = day_table(plans)
        held = self._held(daily, realised)
        metrics = _metrics(status, events, gaps, dataset.days_per_year)
        if len(status):
            metrics |= {f"bpqp.{name}": value for name, value in solver_metrics(status).items()}
        self.recorder.log_metrics(**metrics)
        tables = (targets, status, activity, events, gaps)
        return {
            **artifacts,
            **held,
            **{f"{name}.pkl": table for name, table in zip(TABLES, tables, strict=True)},
            "mandate_facts.pkl": mandate_facts(mandate, days),
        }

    def list(self) -> list[str]:
        """Artifacts of this record."""
        return [*super().list(), *(f"{name}.pkl" for name in TABLES), "mandate_facts.pkl"]


def target_table(plans: Mapping[pd.Timestamp, Rebalance]) -> pd.Series:
    """Target weights > 0 by (signal day, instrument), fractions of the invested part."""
    parts = {plan.date: plan.table["target"] for plan in plans.values()}
    if not parts:
        index = pd.MultiIndex.from_arrays([[], []], names=["datetime", "instrument"])
        return pd.Series([], index=index, name="weight", dtype=float)
    targets = pd.concat(parts, names=["datetime", "instrument"]).rename("weight")
    return targets[targets > 0]


def day_table(plans: Mapping[pd.Timestamp, Rebalance]) -> pd.DataFrame:
    """By signal day: the solver's figures, and what the decision was expected to do."""
    rows = {
        plan.date: {
            "status": plan.status,
            "kkt_norm": float(plan.solution.kkt_norm[0]),
            "iterations": float(plan.solution.iterations[0]),
            "solver": plan.solution.solver[0],
            "way": plan.solution.fallback[0] or "",
            "expected_return": plan.expected_return,
            "risk": plan.risk,
            "turnover": plan.turnover,
            "names": plan.market.mu.shape[-1],
            "pinned": 0.0 if plan.market.pinned is None else float(plan.market.pinned.sum()),
        }
        for plan in plans.values()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("datetime")


def event_table(plans: Mapping[pd.Timestamp, Rebalance]) -> pd.DataFrame:
    """Ways out that were taken: ``datetime`` of the signal, ``action``, ``reason``."""
    rows = [(p.date, action, reason) for p in plans.values() for action, reason in p.events]
    table = pd.DataFrame(rows, columns=["datetime", "action", "reason"])
    return table.astype({"datetime": "datetime64[ns]"})


def activity_table(plans: Mapping[pd.Timestamp, Rebalance]) -> pd.DataFrame:
    """Constraints by signal day: ``datetime``, ``constraint``, ``binding`` (0 or 1), ``price``."""
    rows = [(p.date, *row) for p in plans.values() for row in p.activity]
    table = pd.DataFrame(rows, columns=["datetime", "constraint", "binding", "price"])
    return table.astype({"datetime": "datetime64[ns]", "binding": float, "price": float})


def _metrics(
    status: pd.DataFrame, events: pd.DataFrame, gaps: pd.DataFrame, days_per_year: float
) -> dict[str, float]:
    """Figures of the mandate under names that a tracker takes."""
    out = {"bpqp.mandate.days": float(len(status)), "bpqp.mandate.fallbacks": float(len(events))}
    for action, count in events["action"].value_counts().items():
        word = "".join(c if c.isalnum() else "_" for c in str(action))
        out[f"bpqp.mandate.fallback.{word}"] = float(count)
    if len(status):
        out["bpqp.mandate.by_cones"] = float((status["solver"] == "cones").sum())
    for name, count in status["status"].value_counts().items() if len(status) else ():
        out[f"bpqp.mandate.status.{str(name).replace(' ', '_')}"] = float(count)
    if len(gaps):
        out["bpqp.mandate.gap"] = float(gaps["gap"].mean())
        year = annual(float(gaps["gap_return"].mean()), len(gaps), days_per_year)
        if math.isfinite(year):
            out["bpqp.mandate.gap_annual_return"] = year
        for name in ("orders", "unfilled", "cut"):
            out[f"bpqp.mandate.{name}"] = float(gaps[name].sum())
    return out


def mandate_facts(mandate: Any, days: MandateDays) -> dict[str, Any]:
    """What the report says about the mandate: its own words and where its tables come from."""
    return {
        "constraints": str(mandate).splitlines(),
        "sectors": days.sectors.source,
        "index_weights": days.index.source,
        **({} if days.exposures is None else {"exposures": days.exposures.source}),
        "trades": "decided at the close of a day from what is held and known then, traded at the "
        "next close",
    }
