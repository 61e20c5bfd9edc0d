"""The public names of bpqp_portfolio and where they live: the one place that declares them."""

from .errors import BPQPError as BPQPError
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import DownloadError as DownloadError
from .errors import ProblemError as ProblemError
from .errors import ProviderError as ProviderError
from .errors import SolverError as SolverError
from .errors import SolverNotInstalledError as SolverNotInstalledError
from .layers.convex import ConvexLayer as ConvexLayer
from .layers.cvxpy.layer import from_cvxpy as from_cvxpy
from .layers.qp import QPLayer as QPLayer
from .layers.socp import SOCPLayer as SOCPLayer
from .portfolio.layer import PortfolioLayer as PortfolioLayer
from .portfolio.mandate.mandate import Mandate as Mandate
from .portfolio.mandate.market import Market as Market
from .problems.socp import SecondOrderCone as SecondOrderCone
from .problems.solution import Solution as Solution
from .problems.solution import SolveStatus as SolveStatus
from .solvers.common.cache import SolverCache as SolverCache
from .solvers.registry import available_solvers as available_solvers

__version__: str
