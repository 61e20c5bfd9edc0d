"""From finance to optimisation problem: mean-variance, mandates and the portfolio layer.

``layer.py`` is the portfolio QP as a layer, ``problem.py`` the decision problem that a network is
trained through, ``mandate/`` a mandate with its constraints and costs, ``policies/`` rivals.
"""

from .costs import TradingCosts
from .layer import PortfolioLayer
from .mandate.mandate import Mandate, MandateSolution
from .mandate.market import Market
from .mandate.terms import (
    ActiveWeights,
    Budget,
    Exposures,
    Groups,
    LinearCost,
    LongOnly,
    MarketNeutral,
    MaxLeverage,
    MaxTrackingError,
    MaxTurnover,
    MaxWeights,
    MinWeights,
    QuadraticCost,
    TrackingPenalty,
)
from .problem import PortfolioProblem, ProblemConfig

__all__ = [
    "ActiveWeights",
    "Budget",
    "Exposures",
    "Groups",
    "LinearCost",
    "LongOnly",
    "Mandate",
    "MandateSolution",
    "Market",
    "MarketNeutral",
    "MaxLeverage",
    "MaxTrackingError",
    "MaxTurnover",
    "MaxWeights",
    "MinWeights",
    "PortfolioLayer",
    "PortfolioProblem",
    "ProblemConfig",
    "QuadraticCost",
    "TrackingPenalty",
    "TradingCosts",
]
