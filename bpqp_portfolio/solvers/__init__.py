"""How it is solved: a protocol, solvers by name, the direct KKT solve and the backward QP."""

from .adjoint import Adjoint, adjoint
from .protocol import Solver, SolverOptions
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
