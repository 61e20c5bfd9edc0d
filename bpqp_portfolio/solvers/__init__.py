"""How it is solved: a protocol, solvers by name, the direct KKT solve and the backward QP."""

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
