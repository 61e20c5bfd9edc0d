"""What is solved: quadratic programs, their solutions and KKT residuals, and reference problems."""

from .qp import QP
from .reference import ReferenceProblem, reference_problems
from .solution import KKTResiduals, Solution, SolveStatus, kkt_residuals

__all__ = [
    "QP",
    "KKTResiduals",
    "ReferenceProblem",
    "Solution",
    "SolveStatus",
    "kkt_residuals",
    "reference_problems",
]
