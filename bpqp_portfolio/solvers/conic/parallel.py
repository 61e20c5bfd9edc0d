"""Solving many cone programs of equal sizes on several threads, each from its last solution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...problems.socp import SOCP, ConePoint, SOCPSolution
from ..common.cache import CacheEntry
from ..common.parallel import in_chunks, more_exactly
from ..common.protocol import SolverOptions
from .finalize import finish_cones
from .standard_form import ConeSolver

_EXACT = 1e-12


def solve_cones(
    solver: ConeSolver,
    problems: Sequence[SOCP],
    *,
    options: SolverOptions,
    entries: Sequence[CacheEntry] | None = None,
) -> list[SOCPSolution]:
    """Solutions of ``problems``, which have equal sizes, on as many threads as torch may use.

    With ``entries`` Newton's method first continues from the last solution on its active set; its
    point is taken where it reaches a KKT norm of 1e-12, whichever solver found the last one.
    """
    if not problems:
        return []

    every = [None] * len(problems) if entries is None else entries

    def work(part: slice) -> list[SOCPSolution]:
        pairs = zip(problems[part], every[part], strict=True)
        return [solve_cone(solver, problem, options, entry) for problem, entry in pairs]

    size = cone_entries(problems[0])
    return [s for part in in_chunks(work, len(problems), size) for s in part]


def cone_entries(problem: SOCP) -> int:
    """Entries of one problem's KKT matrix, a group of cones being dense."""
    rows = problem.qp.p + problem.qp.m + sum(len(g.d) + g.r for g in problem.groups)
    return (problem.n + rows) ** 2


def solve_cone(
    solver: ConeSolver, problem: SOCP, options: SolverOptions, entry: CacheEntry | None
) -> SOCPSolution:
    """The solution of one problem; see :func:`solve_cones`."""
    if entry is None:
        return more_exactly(solver, problem, solver.solve(problem, options=options), options)
    last = entry.solution
    if isinstance(last, SOCPSolution) and _fits(problem, last) and options.polish:
        point = ConePoint.of(problem, last)
        found = finish_cones(problem, point, iterations=0, solver=last.solver, options=options)
        if found.kkt_norm <= _EXACT:
            entry.solution = found
            return found
    found = more_exactly(solver, problem, solver.solve(problem, options=options), options)
    if found.status.usable:
        entry.solution = found
    return found


def _fits(problem: SOCP, last: SOCPSolution) -> bool:
    qp = problem.qp
    cones = [len(dual) - 1 for dual in last.cone_duals]
    own = {i: group.r for group in problem.groups for i in group.members}
    sizes = (qp.n, qp.p, qp.m)
    same = (len(last.z), len(last.nu), len(last.lam)) == sizes
    return same and cones == [own[i] for i in range(len(own))] and bool(np.isfinite(last.z).all())
