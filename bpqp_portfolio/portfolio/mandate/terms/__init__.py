"""Constraints and costs of a mandate, by name: one file each, and one line here for each.

Start with ``base.py`` (what a term is) and ``../parts.py`` (what it states); ``max_turnover.py`` is
a short example. What is imported here is registered under its ``name``, tested and documented.
"""

from .active_weights import ActiveWeights as ActiveWeights
from .base import MarketView as MarketView
from .base import Term as Term
from .budget import Budget as Budget
from .exposure_target import ExposureTarget as ExposureTarget
from .exposures import Exposures as Exposures
from .groups import Groups as Groups
from .linear_cost import LinearCost as LinearCost
from .long_only import LongOnly as LongOnly
from .market_neutral import MarketNeutral as MarketNeutral
from .max_leverage import MaxLeverage as MaxLeverage
from .max_participation import MaxParticipation as MaxParticipation
from .max_tracking_error import MaxTrackingError as MaxTrackingError
from .max_turnover import MaxTurnover as MaxTurnover
from .max_weights import MaxWeights as MaxWeights
from .min_weights import MinWeights as MinWeights
from .quadratic_cost import QuadraticCost as QuadraticCost
from .tracking_penalty import TrackingPenalty as TrackingPenalty

_all = [t for t in list(vars().values()) if isinstance(t, type) and issubclass(t, Term)]
_TERMS: list[type[Term]] = [t for t in _all if t is not Term]
CONSTRAINTS: dict[str, type[Term]] = {t.name: t for t in _TERMS if not t.is_cost}
COSTS: dict[str, type[Term]] = {t.name: t for t in _TERMS if t.is_cost}
