"""What a run decides on a snapshot from what is held: its trades, their table and its facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..backtest.day_inputs import DayInputs, day_inputs
from ..backtest.lots import settled
from ..backtest.problem_policy import ProblemPolicy
from ..backtest.rebalance import SUSPENDED, BookRules, Rebalance, rebalance
from ..data.provider.provider import Provider
from ..portfolio.costs import TradingCosts
from ..portfolio.mandate.mandate import Mandate
from ..runs.artifact import RunArtifact
from .day_data import day_data
from .snapshot import Snapshot
from .target import as_shares

SIZED = ("previous", "price", "shares", "trade", "target_shares", "value")
"""Columns that mean nothing without an account."""


@dataclass(frozen=True)
class Decision:
    """``plan`` of the day from ``inputs``; ``rules`` by which its trades are sized, None where
    there is no account; ``mandate`` that was solved, None of a run without one."""

    inputs: DayInputs
    plan: Rebalance
    rules: BookRules | None
    mandate: Mandate | None


def decide(
    run: RunArtifact,
    provider: Provider,
    day: Snapshot,
    held: Mapping[str, float] | None = None,
    cash: float = 0.0,
) -> Decision:
    """The decision at the close of the day as the run's backtest makes it.

    Parameters
    ----------
    held : shares by name, a name that was never in the universe too, which is sold; None decides
        on an empty account of any size, whose trades mean nothing.
    cash : currency.

    Raises
    ------
    DataError, ConfigError, SolverError
        As :func:`~bpqp_portfolio.backtest.rebalance.rebalance`; a table of the mandate that cannot
        be used; holdings of a run that had no backtest to size trades by.
    """
    settings = run.mandate
    mandate = None if settings is None else settings.build()
    policy = ProblemPolicy(run.problem) if mandate is None else mandate
    rules = None if held is None else replace(run.rules, whole_shares=True)
    free = TradingCosts(0.0, 0.0, 0.0)
    empty = BookRules(1.0, None, free, run.pin_limits, from_holdings=mandate is not None)
    inputs = day_inputs(day_data(run, settings, provider, day, held or {}))
    plan = rebalance(policy, inputs, held or {}, cash if rules else 1.0, rules or empty)
    if rules is not None:
        plan = replace(plan, table=in_shares(plan.table, rules.lot))
    return Decision(inputs, plan, rules, mandate)


def in_shares(table: pd.DataFrame, lot: int | None) -> pd.DataFrame:
    """The plan's table without the rounding of its sums, so that orders lead to the targets.

    Where there are lots its trades are of whole shares already, sized with ``whole_shares``.
    """
    held, trade = settled(table["held"].to_numpy()), settled(table["trade"].to_numpy())
    if lot is None:
        trade = settled(held + trade) - held
    return table.assign(held=held, trade=trade)


def target_table(decision: Decision, day: Snapshot) -> pd.DataFrame:
    """One row a name that is in the target, held, or not free to trade, and each that is left out.

    Columns as for :class:`~.target.Target`.
    """
    inputs, plan = decision.inputs, decision.plan
    inside = plan.table
    rows = inside[(inside["target"] > 0) | (inside["held"] > 0) | (inside["reason"] != "")]
    out = left_out(plan, day)
    names = [*rows.index, *out]
    frame = rows.reindex(names)
    held, trade = frame["held"].fillna(0.0), frame["trade"].fillna(0.0)
    scores = pd.Series(day.scores, day.names)
    forecasts = pd.Series(inputs.mu, inputs.names).reindex(day.names)
    columns = {
        "instrument": names,
        "weight": frame["target"].fillna(0.0),
        "previous": frame["previous"].fillna(0.0),
        "score": scores.reindex(names),
        "expected_return": forecasts.reindex(names),
        "reason": [out.get(n) or day.left_out.get(n) or rows.loc[n, "reason"] for n in names],
        "price": frame["price"],
        "shares": as_shares(held.to_numpy()),
        "trade": as_shares(trade.to_numpy()),
        "target_shares": as_shares(settled((held + trade).to_numpy())),
        "value": (held + trade) * frame["price"].fillna(0.0),
    }
    sized = decision.rules is not None
    table = pd.DataFrame({k: np.asarray(v) for k, v in columns.items() if sized or k not in SIZED})
    return table.sort_values(["weight", "instrument"], ascending=[False, True], ignore_index=True)


def left_out(plan: Rebalance, day: Snapshot) -> dict[str, str]:
    """Members that are not in the problem, and why."""
    found = {**plan.left_out, **day.left_out}
    return {name: found[name] for name in sorted(found) if name not in plan.table.index}


def target_facts(decision: Decision, day: Snapshot, days_per_year: float) -> dict[str, Any]:
    """What is worth knowing about the decision, as JSON values.

    ``binding`` lists constraints with their value, limit and shadow price, the return a day that a
    unit more of the limit would bring. On a day that was not solved as it stands, ``fallback`` has
    the ``action`` that was taken and the ``reason``, ``status`` says how the target came about, and
    ``wanted_status`` how the solve ended; ``binding`` is that of the relaxed problem, in which a
    relaxed limit's price is its penalty, and empty where no problem was solved.
    """
    plan, rules = decision.plan, decision.rules
    table = plan.table
    facts: dict[str, Any] = {
        "expected_return": plan.expected_return,
        "risk": plan.risk,
        "risk_annual": plan.risk * days_per_year**0.5,
        "annual_days": days_per_year,
        "names_in_problem": plan.market.mu.shape[-1],
        "first_purchase": not bool((table["held"] > 0).any()),
        "binding": [
            {"constraint": r.label, "value": r.value, "limit": r.limit, "shadow_price": r.dual}
            for r in plan.binding
        ],
        "fallback": [{"action": action, "reason": reason} for action, reason in plan.events],
        "status": plan.outcome,
        "wanted_status": plan.status,
        "kkt_norm": float(plan.solution.kkt_norm[0]),
        "left_out": left_out(plan, day),
    }
    if plan.risk_learned is not None:
        # The risk above is that of the risk model, which a network cannot talk down.
        facts["risk_learned"] = plan.risk_learned
    if decision.mandate is not None:
        facts["mandate"] = str(decision.mandate).splitlines()
    if rules is not None:
        kept = (table["held"] > 0) & (table["reason"] == SUSPENDED)
        facts |= {
            "turnover": plan.turnover,
            "account": plan.account_after(rules.costs),
            "kept_without_price": [str(name) for name in table.index[kept]],
        }
    return facts
