"""Qlib record of a mandate: the backtest that solves each day from what is really held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..backtest.implementation_shortfall import implementation_shortfall
from ..backtest.learned_risk import LearnedRisk
from ..backtest.rebalance import LEAST_DUAL, Rebalance
from ..backtest.segment import SegmentDays
from ..report.metrics import annual
from .exchange import BoardExchange
from .mandate_strategy import MandateStrategy
from .records import BacktestRecord, Decided

SOLVER = ("kkt_norm", "iterations", "status")


class MandateRecord(BacktestRecord):
    """Qlib's backtest of the dataset's mandate, solved each day from what is really held.

    What :class:`BacktestRecord` keeps, and besides, under ``bpqp/results/``, ``activity`` (what
    bound, and its shadow price), ``events`` (fallbacks that were taken, with day and reason) and
    ``shortfall`` (realised against target weights, by trading day), each where it holds anything;
    ``bpqp/mandate_days.parquet`` (status, forecast return and risk by signal day) and
    ``bpqp/mandate_facts.json``.
    """

    by_mandate = True

    def _strategy(
        self, scores: pd.Series, learned: LearnedRisk, exchange: BoardExchange
    ) -> dict[str, Any]:
        self._days = SegmentDays(self.dataset, scores, exchange, learned)
        self._plans: dict[pd.Timestamp, Rebalance] = {}
        options = {
            "mandate": self.dataset.mandate.build(),
            "inputs": self._days.inputs,
            "rules": self.rules,
            "plans": self._plans,
        }
        return {"class": MandateStrategy, "kwargs": options}

    def _decided(
        self, realised: pd.DataFrame, artifacts: Mapping[str, Any], exchange: BoardExchange
    ) -> Decided:
        plans, positions = self._plans, artifacts["positions_normal_1day.pkl"]
        prices = exchange.table("$close", self.dataset.market_data.names).ffill()
        gaps = implementation_shortfall(plans, positions, prices, self.rules.risk_degree)
        days, events = day_table(plans), event_table(plans)
        blocked, orders = (dict(gaps[n]) if len(gaps) else {} for n in ("unfilled", "orders"))
        return Decided(
            target_table(plans),
            days[list(SOLVER)],
            blocked,
            orders,
            tables={
                "activity": activity_table(plans),
                "events": events,
                "implementation_shortfall": gaps,
            },
            details={
                "mandate_days": days,
                "mandate_facts": mandate_facts(self.dataset.mandate.build(), self._days),
            },
            metrics=_metrics(days, events, gaps, self.dataset.days_per_year),
        )


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
    rows = [
        {
            "status": plan.status,
            "kkt_norm": float(plan.solution.kkt_norm[0]),
            "iterations": float(plan.solution.iterations[0]),
            "solver": plan.solution.solver[0],
            "fallback": plan.fallback,
            "expected_return": plan.expected_return,
            "risk": plan.risk,
            "turnover": plan.turnover,
            "names": plan.market.mu.shape[-1],
            "pinned": 0.0 if plan.market.pinned is None else float(plan.market.pinned.sum()),
        }
        for plan in plans.values()
    ]
    days = pd.DatetimeIndex([plan.date for plan in plans.values()], name="datetime")
    return pd.DataFrame(rows, index=days, columns=None if rows else list(SOLVER))


def event_table(plans: Mapping[pd.Timestamp, Rebalance]) -> pd.DataFrame:
    """Fallbacks that were taken: ``datetime`` of the signal, ``action``, ``reason``."""
    rows = [(p.date, action, reason) for p in plans.values() for action, reason in p.events]
    table = pd.DataFrame(rows, columns=["datetime", "action", "reason"])
    return table.astype({"datetime": "datetime64[ns]"})


def activity_table(plans: Mapping[pd.Timestamp, Rebalance]) -> pd.DataFrame:
    """Constraints by signal day: ``datetime``, ``constraint``, ``binding`` (0 or 1), ``price``.

    But for the budget, which always holds; none on a day that was not solved as it stands.
    """
    rows = [
        (p.date, row.label, abs(row.dual) > LEAST_DUAL, row.dual)
        for p in plans.values()
        if p.status == "solved"
        for row in p.constraints[1:]
    ]
    table = pd.DataFrame(rows, columns=["datetime", "constraint", "binding", "price"])
    return table.astype({"datetime": "datetime64[ns]", "binding": float, "price": float})


def _metrics(
    status: pd.DataFrame, events: pd.DataFrame, gaps: pd.DataFrame, days_per_year: float
) -> dict[str, float]:
    """Figures of the mandate under names that a tracker takes, without the prefix."""
    out = {"mandate.fallbacks": float(len(events))}
    for action, count in events["action"].value_counts().items():
        word = "".join(c if c.isalnum() else "_" for c in str(action))
        out[f"mandate.fallback.{word}"] = float(count)
    if len(status):
        out["mandate.by_cones"] = float((status["solver"] == "cones").sum())
    if len(gaps):
        out["mandate.gap"] = float(gaps["gap"].mean())
        year = annual(float(gaps["gap_return"].mean()), len(gaps), days_per_year)
        if math.isfinite(year):
            out["mandate.gap_annual_return"] = year
        for name in ("orders", "cut"):
            out[f"mandate.{name}"] = float(gaps[name].sum())
    return out


def mandate_facts(mandate: Any, days: SegmentDays) -> dict[str, Any]:
    """What the report says about the mandate: its terms, and where its tables come from."""
    return {
        "constraints": str(mandate).splitlines(),
        "sectors": days.sectors.source,
        "index_weights": days.index.source,
        **({} if days.exposures is None else {"exposures": days.exposures.source}),
        "trades": "decided at the close of a day from what is held and known then, traded at the "
        "next close",
    }
