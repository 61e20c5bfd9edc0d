"""What a mandate did in a run, as tables: constraints that bound, failures, orders and targets."""

from __future__ import annotations

import pandas as pd

from ..runs.results import RunResults
from .metrics import annual

CAUSES = {
    "drift": "Prices moved before the trade",
    "lots": "Whole lots, and cash for costs",
    "unfilled": "Suspended, at a limit, or cut for want of cash",
}
"""Parts of the difference of realised and target weights, and what they are called."""

EVENTS_SHOWN = 200


def has_mandate(results: RunResults) -> bool:
    """Did a mandate decide in this run?"""
    tables = (results.activity, results.implementation_shortfall, results.events)
    return any(len(table) for table in tables)


def constraint_table(results: RunResults) -> pd.DataFrame:
    """One row for each constraint, the most often binding first.

    Columns: ``share`` of the decided days on which it bound; ``shadow_price``, the mean over those
    days of its dual for one percentage point of its limit, in basis points of return a day;
    ``all_days`` the same over all days.
    """
    activity = results.activity
    if activity.empty:
        return pd.DataFrame(columns=["share", "shadow_price", "all_days"])
    days = max(results.implementation_shortfall.index.nunique(), activity["datetime"].nunique())
    # A point is 0.01 of the limit's unit, a basis point 0.0001 of the return's: 0.01 / 0.0001.
    points = 100 * activity["price"].astype(float)
    bound = activity["binding"].astype(bool)
    frame = pd.DataFrame({"constraint": activity["constraint"], "bound": bound, "points": points})
    grouped = frame[bound].groupby("constraint", observed=True)["points"]
    table = pd.DataFrame({"share": grouped.size() / days, "shadow_price": grouped.mean()})
    table["all_days"] = table["shadow_price"] * table["share"]
    idle = sorted(set(frame["constraint"]) - set(table.index))
    table = pd.concat([table, pd.DataFrame(0.0, index=idle, columns=table.columns)])
    return table.sort_values(["share", "all_days"], ascending=False, kind="stable")


def cause_table(results: RunResults) -> pd.DataFrame:
    """By cause, and ``all``: ``gap`` mean Σ|realised − target| of the account, and ``annual``,
    the return that the difference earned a year (below zero it lost; NaN of too few days)."""
    table, year = results.implementation_shortfall, results.days_per_year
    names = [cause for cause in CAUSES if f"gap_{cause}" in table]
    rows = {
        name: (
            table[f"gap{end}"].mean(),
            annual(table[f"gap_return{end}"].mean(), len(table), year),
        )
        for name, end in [*((c, f"_{c}") for c in names), ("all", "")]
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["gap", "annual"])


def event_counts(results: RunResults) -> pd.Series:
    """How often each fallback was used, the most frequent first."""
    return results.events["action"].value_counts()
