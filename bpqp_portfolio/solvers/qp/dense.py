"""Our own solver for dense QPs: one Cholesky factorisation, then work in the space of the rows.

With P = LLᵀ (+ σAᵀA and ρI where P is singular), the equalities are eliminated and the inequality
rows, finite bounds among them, become columns of L⁻¹Gᵀ: what is left is a problem in their duals
alone (:mod:`~bpqp_portfolio.solvers.qp.dual_newton`), solved by the method of multipliers with
semismooth Newton steps. When these have found the active rows, its KKT system is solved by the
factors at hand and refined against the true P; the same factors serve the backward QP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...problems.matrices import Array, times, times_transposed, to_dense
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus, kkt_residuals
from ...problems.stack import QPStack, together
from ..common.cache import Entries
from ..common.certificates import any_certificate
from ..common.finalize import judge, polished, status_of
from ..common.protocol import DEFAULTS, SolverOptions, StackSolver
from .dense_factors import Factors, FactorStack
from .direct import solve_direct
from .dual_newton import minimise

_MU, _MU_FACTOR, _MU_LEAST = 1e-4, 1e-2, 1e-10
_OUTER, _INNER = 30, 60
TOLERANCE = 1e-10
# After so many rounds a point that is not yet a solution is polished, as other solvers' are; one
# that is still far from a solution then asks for a certificate.
_PATIENCE = 2
_REFINEMENTS = 4
_EXACT = 1e-15


@dataclass(frozen=True)
class DenseSolver(StackSolver):
    """Proximal method of multipliers in the space of the rows, for dense problems.

    The scheme is that of R. T. Rockafellar, Augmented Lagrangians and applications of the proximal
    point algorithm, 1976; the Newton steps with exact line search follow QPALM (B. Hermans et al.,
    2019) and ProxQP (A. Bambade et al., 2022), seen from the duals. ``iterations`` counts Newton
    steps. When a few rounds make no progress a certificate of infeasibility is sought by a linear
    program (:func:`~bpqp_portfolio.solvers.common.certificates.any_certificate`).

    Native settings: ``mu``, the first penalty, relative to unit diagonal of the rows' matrix.
    """

    name: str = "dense"
    settings: tuple[str, ...] = ("mu",)

    def solve_stack(
        self, problems: Sequence[QP], *, options: SolverOptions = DEFAULTS, entries: Entries = None
    ) -> list[Solution]:
        shared = len(problems) > 1 and problems[0].P is problems[1].P
        if entries or shared or options.native or options.max_iterations is not None:
            return self._stacked(problems, options, entries)
        return self._each(problems, options)

    def _each(self, problems: Sequence[QP], options: SolverOptions) -> list[Solution]:
        """The problems one by one by :func:`solve_direct`, those that it leaves together."""
        out = [None if problem.bounded else self._direct(problem, options) for problem in problems]
        left = [i for i, solution in enumerate(out) if solution is None]
        if left:
            again = self._stacked([problems[i] for i in left], options, None)
            for i, solution in zip(left, again, strict=True):
                out[i] = solution
        return out  # type: ignore[return-value]

    def _direct(self, problem: QP, options: SolverOptions) -> Solution | None:
        P, A, G = to_dense(problem.P), to_dense(problem.A), to_dense(problem.G)
        tolerance = min(options.tolerance, TOLERANCE)
        found = solve_direct(P, problem.q, A, problem.b, G, problem.h, tolerance)
        if found is None:
            return None
        lower, upper = np.zeros((2, problem.n))
        point = found.z, found.nu, found.lam, lower, upper
        status = judge(found.norm, options.tolerance, exact=True)
        return Solution(*point, status, found.norm, found.steps, self.name, factors=found)

    def _stacked(
        self, problems: Sequence[QP], options: SolverOptions, entries: Entries
    ) -> list[Solution]:
        """All problems together by the method of multipliers."""
        # Step 1: factors of each problem, one for all that share their matrices.
        finite = np.zeros(problems[0].n, dtype=bool)
        for problem in problems:
            if problem.bounded:
                finite |= np.isfinite(problem.lb) | np.isfinite(problem.ub)
        bounded = np.flatnonzero(finite)
        known: dict[tuple[int, int, int], Factors | None] = {}
        runs: list[_Run] = []
        out: list[Solution | None] = [None] * len(problems)
        for i, problem in enumerate(problems):
            entry = entries[i] if entries else None
            key = (id(problem.P), id(problem.A), id(problem.G))
            if entry and entry.reusable(problem) and np.array_equal(entry.state.bounded, bounded):
                known[key] = entry.state
            elif key not in known:
                known[key] = Factors.of(problem, bounded)
            factors = known[key]
            if factors is None:
                out[i] = Solution.failed(
                    problem, SolveStatus.BAD_DATA, iterations=0, solver=self.name
                )
                continue
            start = entry.initial_point(problem) if entry else None
            runs.append(_Run(i, problem, factors, options.native.get("mu", _MU), start))
        # Step 2: rounds of the method of multipliers on those that are not done.
        limit = options.max_iterations or _OUTER * _INNER
        tolerance = min(options.tolerance, TOLERANCE)
        pending = runs
        for rounds in range(_OUTER):
            if not pending:
                break
            _advance(pending, tolerance, limit)
            pending = [run for run in pending if not run.done]
            if rounds == _PATIENCE:
                for run in pending:
                    run.polish(tolerance)
                    out[run.index] = None if run.done else _certified(run, self.name)
                pending = [run for run in pending if not run.done and out[run.index] is None]
        # Step 3: the best points, judged.
        for run in runs:
            if out[run.index] is None:
                out[run.index] = solution = run.solution(self.name, options)
                if entries:
                    entries[run.index].keep(run.problem, run.factors, solution)
        return out  # type: ignore[return-value]


def _certified(run: _Run, name: str) -> Solution | None:
    """The proof that the problem of a run without progress has no solution, if there is one."""
    if judge(run.norm, TOLERANCE, exact=True).usable:
        return None
    return any_certificate(run.problem, iterations=run.iterations, solver=name)


class _Run:
    """Where one problem stands between rounds of the method of multipliers."""

    def __init__(
        self, index: int, problem: QP, factors: Factors, mu: float, start: Solution | None
    ) -> None:
        self.index, self.problem, self.factors, self.mu = index, problem, factors, mu
        self.iterations = 0
        self.done = False
        self.norm = np.inf
        self.point: tuple[Array, ...] = ()
        if start is None:
            self.z = np.zeros(problem.n)
            self.y = np.zeros(len(factors.unit))
        else:
            self.z = start.z
            bounds = (start.lam_ub - start.lam_lb)[factors.bounded]
            self.y = np.concatenate([start.lam, bounds]) / factors.unit

    def polish(self, tolerance: float) -> None:
        """The point on the active set that it leads to, where that is better."""
        z, nu, lam, lam_lb, lam_ub = self.point
        point = Solution(z, nu, lam, lam_lb, lam_ub, None, self.norm, self.iterations, "")
        found = polished(self.problem, point)
        self.point = (found.z, found.nu, found.lam, found.lam_lb, found.lam_ub)
        self.norm = float(found.kkt_norm)
        self.done = self.norm <= tolerance

    def solution(self, name: str, options: SolverOptions) -> Solution:
        """The best point so far, judged by its KKT norm."""
        status = status_of(self.problem, self.norm, replace(options, polish=True))
        how = status, self.norm, self.iterations, name
        z, nu, lam, lam_lb, lam_ub = self.point
        return Solution(z, nu, lam, lam_lb, lam_ub, *how, factors=self.factors)


def _advance(runs: Sequence[_Run], tolerance: float, limit: int) -> None:
    """One round for every run: multipliers, the rows they make active, the exact point there."""
    # Step 1: the rows' limits [low, high]; those below G are bounds.
    stack = QPStack.of([run.problem for run in runs])
    factors = FactorStack([run.factors for run in runs])
    m, bounded = stack.h.shape[1], factors.bounded
    low = np.full((len(runs), m + len(bounded)), -np.inf)
    high = np.empty_like(low)
    low[:, m:], high[:, :m], high[:, m:] = stack.lb[:, bounded], stack.h, stack.ub[:, bounded]

    # Step 2: one step of the method of multipliers, in the space of the rows.
    centre = together([run.z for run in runs])
    slope = factors.rho * centre - stack.q
    y = side = together([run.y for run in runs])
    if low.shape[1]:
        t, fixed = factors.known(slope, stack.b)
        v = times_transposed(factors.W, t) + times_transposed(factors.J, fixed)
        scaled, most = (low * factors.unit, high * factors.unit), min(_INNER, limit)
        y, side, steps = minimise(factors.M, v, *scaled, runs[0].mu, y, y, max_iterations=most)
        for run, count in zip(runs, steps, strict=True):
            run.iterations += int(count)
    # Step 3: the KKT system of the rows that it makes active, refined against the true P.
    active = side != 0
    ends = np.where(side > 0, high, np.where(active, low, 0.0))

    z, nu, rows = factors.solve(active, slope, stack.b, ends)
    proximal, size = z, np.abs(z).max(-1)
    for _ in range(_REFINEMENTS):
        gap = -(
            times(stack.P, z)
            + stack.q
            + times_transposed(stack.A, nu)
            + times_transposed(stack.G, rows[:, :m])
        )
        gap[:, bounded] -= rows[:, m:]
        missing = ends - np.concatenate([times(stack.G, z), z[:, bounded]], axis=1)
        step = factors.solve(active, gap, stack.b - times(stack.A, z), missing)
        z, nu, rows = z + step[0], nu + step[1], rows + step[2]
        # Steps shrink by a constant factor: what the next one would be decides.
        last, size = size, np.abs(step[0]).max(-1)
        if (size * size <= _EXACT * last * np.abs(z).max(-1)).all():
            break

    # Step 4: inside the bounds, judged, and μ reduced.
    lam = np.maximum(rows[:, :m], 0.0)
    lam_lb, lam_ub = np.zeros_like(z), np.zeros_like(z)
    if stack.bounded:
        z[:, bounded] = np.where(active[:, m:], ends[:, m:], z[:, bounded])
        z = np.minimum(np.maximum(z, stack.lb), stack.ub)
        lam_lb[:, bounded] = np.where(side[:, m:] < 0, np.maximum(-rows[:, m:], 0.0), 0.0)
        lam_ub[:, bounded] = np.where(side[:, m:] > 0, np.maximum(rows[:, m:], 0.0), 0.0)
    norms = kkt_residuals(stack, z, nu, lam, lam_lb, lam_ub).norm
    for i, run in enumerate(runs):
        norm = float(norms[i])
        if not run.point or norm < run.norm:
            run.point, run.norm = (z[i], nu[i], lam[i], lam_lb[i], lam_ub[i]), norm
        run.done = norm <= tolerance or run.iterations >= limit
        run.z, run.y = proximal[i], y[i]
        run.mu = max(run.mu * _MU_FACTOR, _MU_LEAST)
