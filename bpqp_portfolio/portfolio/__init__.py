"""From finance to optimisation problem: mean-variance, mandates and the portfolio layer.

``layer.py`` is the portfolio QP as a layer, ``problem.py`` the decision problem that a network is
trained through, ``mandate/`` a mandate with its constraints and costs, ``policies/`` rivals.
"""

from .costs import TradingCosts as TradingCosts
from .layer import PortfolioLayer as PortfolioLayer
from .mandate.mandate import Mandate as Mandate
from .mandate.market import Market as Market
from .mandate.solution import MandateSolution as MandateSolution
from .mandate.terms import *  # noqa: F403 (every constraint and cost, by its class)
from .problem import PortfolioProblem as PortfolioProblem
from .problem import ProblemConfig as ProblemConfig
