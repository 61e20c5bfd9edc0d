"""What a caller lets solvers keep from one call to the next: factorisations and warm starts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from ...problems.matrices import Matrix, same
from ...problems.qp import QP
from ...problems.solution import Solution


@dataclass(eq=False)
class CacheEntry:
    """What one solver keeps of one problem.

    ``state`` is the solver's own: factors, or a solver object with updatable vectors. It may be
    used for a problem for which :meth:`reusable` holds. ``solution`` is the last usable one, a
    start for the next.
    """

    state: Any = None
    solution: Solution | None = None
    matrices: dict[str, Matrix] = field(default_factory=dict, repr=False)
    pattern: bytes = field(default=b"", repr=False)

    def __reduce__(self) -> tuple[type[CacheEntry], tuple[()]]:
        # Solvers' own objects can be neither copied nor stored; what is kept can be found again.
        return type(self), ()

    def reusable(self, problem: QP) -> bool:
        """Whether P, A and G, and which bounds are finite or equal, are those of ``state``."""
        if self.state is None or self.pattern != problem.bounds_pattern():
            return False
        return all(same(matrix, getattr(problem, name)) for name, matrix in self.matrices.items())

    def keep(self, problem: QP, state: Any, solution: Solution) -> None:
        """Keep ``state`` and, if it is usable, ``solution`` of ``problem``.

        The same state again belongs to the same P, A and G. A new one's are copied, since a caller
        may overwrite its own.
        """
        if state is not self.state:
            names = ("P", "A", "G") if state is not None else ()
            self.matrices = {name: deepcopy(getattr(problem, name)) for name in names}
        self.state, self.pattern = state, problem.bounds_pattern()
        if solution.status.usable:
            self.solution = solution

    def initial_point(self, problem: QP) -> Solution | None:
        """The kept solution if it has the sizes of ``problem``."""
        s = self.solution
        if s is None or (len(s.z), len(s.nu), len(s.lam)) != (problem.n, problem.p, problem.m):
            return None
        return s


# Of several problems, in their order.
Entries = Sequence[CacheEntry] | None


@dataclass(eq=False)
class SolverCache:
    """Pass one to successive calls of a layer that solve similar problems.

    Solvers that can then update q, b, h and finite bounds without a new factorisation while P, A
    and G stay the same, and start from the last solution. Threads that use one cache solve one
    after the other; with one each they solve at once. A copy, and what is pickled, keeps nothing.

    Examples
    --------
    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> layer, cache, P = bp.QPLayer("osqp"), bp.SolverCache(), torch.eye(2)
    >>> for day in ([1.0, 2.0], [1.1, 2.1]):
    ...     z = layer(P, -torch.tensor(day), ub=torch.ones(2), cache=cache)
    >>> z
    tensor([1., 1.])
    """

    entries: dict[tuple[str, int], CacheEntry] = field(default_factory=dict, repr=False)
    _lock: Any = field(default_factory=RLock, init=False, repr=False)

    def __reduce__(self) -> tuple[type[SolverCache], tuple[()]]:
        return type(self), ()

    def entry(self, solver: str, item: int) -> CacheEntry:
        """The entry of ``solver`` for position ``item`` of the batch."""
        return self.entries.setdefault((solver, item), CacheEntry())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.entries.clear()


def alone(cache: SolverCache | None) -> AbstractContextManager[Any]:
    """A context in which no other thread solves with ``cache``."""
    return nullcontext() if cache is None else cache._lock
