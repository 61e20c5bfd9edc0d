"""The public names of bpqp_portfolio, imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        BPQPError,
        ConfigError,
        DataError,
        DownloadError,
        ProblemError,
        ProviderError,
        SolverError,
        SolverNotInstalledError,
    )
    from .layers.convex import ConvexLayer
    from .layers.cvxpy.layer import from_cvxpy
    from .layers.qp import QPLayer
    from .layers.socp import SOCPLayer
    from .portfolio.layer import PortfolioLayer
    from .portfolio.mandate.mandate import Mandate
    from .portfolio.mandate.market import Market
    from .problems.socp import SecondOrderCone
    from .problems.solution import Solution, SolveStatus
    from .solvers.common.cache import SolverCache
    from .solvers.registry import available_solvers

__all__ = [
    "BPQPError",
    "ConfigError",
    "ConvexLayer",
    "DataError",
    "DownloadError",
    "Mandate",
    "Market",
    "PortfolioLayer",
    "ProblemError",
    "ProviderError",
    "QPLayer",
    "SOCPLayer",
    "SecondOrderCone",
    "Solution",
    "SolveStatus",
    "SolverCache",
    "SolverError",
    "SolverNotInstalledError",
    "available_solvers",
    "from_cvxpy",
]

_HOMES = {
    "ConvexLayer": "layers.convex",
    "SolverCache": "solvers.common.cache",
    "Mandate": "portfolio.mandate.mandate",
    "Market": "portfolio.mandate.market",
    "PortfolioLayer": "portfolio.layer",
    "QPLayer": "layers.qp",
    "SOCPLayer": "layers.socp",
    "SecondOrderCone": "problems.socp",
    "Solution": "problems.solution",
    "SolveStatus": "problems.solution",
    "available_solvers": "solvers.registry",
    "from_cvxpy": "layers.cvxpy.layer",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES.get(name, 'errors')}", __name__)
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
