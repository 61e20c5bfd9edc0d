"""What a caller lets solvers keep from one call to the next: factorisations and warm starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..problems.matrices import same
from ..problems.qp import QP
from ..problems.solution import Solution


@dataclass(eq=False)
class Slot:
    """What one solver keeps of one problem.

    ``state`` is the solver's own: factors, or a solver object with updatable vectors. It may be
    used for a problem for which :meth:`reusable` holds. ``solution`` is the last usable one, a
    start for the next.
    """

    problem: QP | None = None
    state: Any = None
    solution: Solution | None = None

    def reusable(self, problem: QP) -> bool:
        """Whether P, A and G, and which bounds are finite or equal, are those of ``state``."""
        old = self.problem
        if self.state is None or old is None:
            return False
        return old.bounds_pattern() == problem.bounds_pattern() and all(
            same(getattr(old, name), getattr(problem, name)) for name in ("P", "A", "G")
        )

    def keep(self, problem: QP, state: Any, solution: Solution) -> None:
        """Keep ``state`` and, if it is usable, ``solution`` of ``problem``."""
        self.problem, self.state = problem, state
        if solution.status.usable:
            self.solution = solution

    def start(self, problem: QP) -> Solution | None:
        """The kept solution if it has the sizes of ``problem``."""
        s = self.solution
        if s is None or (len(s.z), len(s.nu), len(s.lam)) != (problem.n, problem.p, problem.m):
            return None
        return s


@dataclass(eq=False)
class Handle:
    """Pass one to successive calls of a layer that solve similar problems.

    Solvers that can then update q, b, h and finite bounds without a new factorisation while P, A
    and G stay the same, and start from the last solution. It belongs to one caller: two threads
    that solve at once need one each.
    """

    slots: dict[tuple[str, int], Slot] = field(default_factory=dict, repr=False)

    def slot(self, solver: str, item: int) -> Slot:
        """The slot of ``solver`` for position ``item`` of the batch."""
        return self.slots.setdefault((solver, item), Slot())

    def clear(self) -> None:
        """Forget everything."""
        self.slots.clear()
