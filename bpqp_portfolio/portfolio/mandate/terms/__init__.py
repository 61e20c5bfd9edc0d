"""Constraints and costs of a mandate by name.

Start at ``base.py``, which says what a term is. A new one is a file of its own and one line here.
"""

from __future__ import annotations

from typing import Any

from .active_weights import ActiveWeights
from .base import Draft, Term
from .budget import Budget
from .exposures import Exposures
from .groups import Groups
from .leverage import MaxLeverage
from .linear_cost import LinearCost
from .long_only import LongOnly
from .market_neutral import MarketNeutral
from .max_tracking_error import MaxTrackingError
from .max_turnover import MaxTurnover
from .max_weights import MaxWeights
from .min_weights import MinWeights
from .quadratic_cost import QuadraticCost
from .tracking_penalty import TrackingPenalty

# In the order in which they are written into a draft: a later bound tightens an earlier one.
CONSTRAINTS: dict[str, Any] = {
    "min_weights": MinWeights,
    "long_only": LongOnly,
    "max_weights": MaxWeights,
    "active_weights": ActiveWeights,
    "budget": Budget,
    "market_neutral": MarketNeutral,
    "groups": Groups,
    "exposures": Exposures,
    "max_turnover": MaxTurnover,
    "max_leverage": MaxLeverage,
    "max_tracking_error": MaxTrackingError,
}
COSTS: dict[str, Any] = {
    "linear_cost": LinearCost,
    "quadratic_cost": QuadraticCost,
    "tracking_penalty": TrackingPenalty,
}

__all__ = [
    "CONSTRAINTS",
    "COSTS",
    "ActiveWeights",
    "Budget",
    "Draft",
    "Exposures",
    "Groups",
    "LinearCost",
    "LongOnly",
    "MarketNeutral",
    "MaxLeverage",
    "MaxTrackingError",
    "MaxTurnover",
    "MaxWeights",
    "MinWeights",
    "QuadraticCost",
    "Term",
    "TrackingPenalty",
]
