"""How it is solved: forward solvers by name and the backward QP, which any of them can do.

``registry.py`` finds a solver; ``common/`` has what all share, ``qp/``, ``conic/``, ``smooth/`` and
``factor/`` the solvers of each kind of program; start at ``common/protocol.py``.
"""

from .common.protocol import Solver, SolverOptions
from .qp.adjoint import Adjoint, adjoint
from .registry import available_solvers, get_solver, solver_names

__all__ = [
    "Adjoint",
    "Solver",
    "SolverOptions",
    "adjoint",
    "available_solvers",
    "get_solver",
    "solver_names",
]
