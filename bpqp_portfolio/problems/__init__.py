"""What is solved: quadratic, cone and smooth programs, their solutions and KKT residuals.

Start at ``qp.py`` (data and scaling) and ``solution.py`` (point, status, residuals);
``reference.py`` has problems with known answers.
"""

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
