"""What a decision leaves: a table of targets and trades, and facts that are JSON values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

STORED = 1.4e-7
"""Relative error of a price from an adjusted close and a factor in single precision."""


@dataclass(frozen=True, eq=False)
class Target:
    """What :func:`~.target_weights.target_weights` decided.

    ``table`` : one row a name that is in the target, held, or left out of the problem, the largest
    weight first: ``instrument``, ``weight`` (fraction of the invested part), ``score``,
    ``expected_return`` (fraction per day), ``reason`` (why a name is not in the problem, or does
    not trade freely), and where holdings or cash were given ``previous`` weight, ``price`` (quoted
    close), ``shares`` held, ``trade`` (shares, a purchase above zero), ``target_shares``, and their
    ``value``.

    ``summary`` : JSON values: run, dates, currency, lot, and what
    :func:`~.decision.target_facts` says: expected return and risk, binding constraints with their
    shadow prices in daily return, the solver's status, the fallback of a day that was not solved,
    and the account.
    """

    table: pd.DataFrame
    summary: dict[str, Any]

    @property
    def is_sized(self) -> bool:
        """Are there shares and trades, and not weights alone?"""
        return "trade" in self.table

    def to_json(self) -> str:
        """Summary and table as one JSON object."""
        rows = json.loads(self.table.to_json(orient="records", double_precision=15))
        return json.dumps({**self.summary, "table": rows}, indent=2)


def as_shares(amount: np.ndarray) -> np.ndarray:
    """Amounts (n,) with each whole one an integer: int64, or objects where one is a fraction.

    >>> as_shares(np.array([100.0, -3.0])).tolist(), as_shares(np.array([2.0, 0.5])).tolist()
    ([100, -3], [2, 0.5])
    """
    whole = amount == np.round(amount)
    if whole.all():
        return amount.astype(np.int64)
    mixed = [int(a) if w else float(a) for a, w in zip(amount, whole, strict=True)]
    return np.array(mixed, dtype=object)


def quoted(price: pd.Series) -> pd.Series:
    """Prices (n,) as exchanges quote them: the fewest digits that stored ones cannot be told from.

    >>> quoted(pd.Series([10.140001297, 1234.56789, 0.285826])).tolist()
    [10.14, 1234.568, 0.285826]
    """

    def shortest(value: float) -> float:
        near = (float(f"{value:.{digits}g}") for digits in range(1, 9))
        return next((p for p in near if abs(p - value) <= STORED * abs(value)), float(value))

    return price.map(shortest)
