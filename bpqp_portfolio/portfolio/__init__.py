"""From finance to optimisation problem: mean-variance and the portfolio layer."""

from .layer import PortfolioLayer
from .problem import PortfolioProblem, ProblemConfig

__all__ = ["PortfolioLayer", "PortfolioProblem", "ProblemConfig"]
