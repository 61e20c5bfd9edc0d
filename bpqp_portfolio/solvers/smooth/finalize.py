"""Smooth programs: forward solvers by name, duals from a primal point, Newton polish, status."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import linalg, optimize

from ...config import check_keys, lookup
from ...errors import ConfigError, SolverError
from ...problems.convex import ConvexProgram, UndefinedError
from ...problems.matrices import Array
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus, point_units
from ..common.active_set import active_set, corrected_rows
from ..common.finalize import judge
from ..common.kkt import solve_equality_qp
from ..common.native import BackendError, native, words

_EXACT = 1e-13
_ROUNDS = 10


@dataclass(frozen=True)
class RawPoint:
    """What a forward solver returns: z (n,), duals nu (p,) and lam (m,) or None, iterations."""

    z: Array
    nu: Array | None = None
    lam: Array | None = None
    iterations: int = 0


# A named solver takes a program, eps and its options to a RawPoint.
NLPSolver = Callable[[ConvexProgram, float, Mapping[str, Any]], RawPoint]
# So does any callable of a caller, by (program, z0) → z or (z, nu, lam).
Forward = str | Callable[[ConvexProgram, Array], Any]

# A new solver is one function with an OPTIONS entry in a file beside this one, and one line here.
_SOLVERS: dict[str, tuple[str, str]] = {
    "sqp": ("sqp", "sqp"),
    "slsqp": ("scipy_methods", "slsqp"),
    "trust-constr": ("scipy_methods", "trust_constr"),
}


def nlp_solvers() -> tuple[str, ...]:
    """Names of the forward solvers for smooth programs."""
    return tuple(_SOLVERS)


@dataclass(frozen=True)
class ForwardMethod:
    """A forward solver for smooth programs, by name or as any callable; checked when made.

    Parameters
    ----------
    forward : a name of :func:`nlp_solvers`, or a callable (program, z0 (n,) float64) → z (n,), or
        (z, nu (p,), lam (m,)); arrays or tensors. ``program`` is a
        :class:`~bpqp_portfolio.problems.convex.ConvexProgram`.
    eps : scaled KKT norm to reach.
    options : of a named solver, by its own names.

    Raises
    ------
    ConfigError
        An unknown solver or option, or options for a callable.
    """

    forward: Forward
    eps: float
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if callable(self.forward):
            if self.options:
                raise ConfigError(
                    "options: a callable forward takes none; bind them to it, for instance with "
                    "functools.partial."
                )
            return
        module, function = lookup(_SOLVERS, self.forward, "forward solver")
        home = importlib.import_module(f".{module}", __package__)
        check_keys(self.options, home.OPTIONS[function], self.forward)

    @property
    def own(self) -> bool:
        """Whether the point is the caller's: kept as it is, whatever its KKT norm."""
        return callable(self.forward)

    @property
    def name(self) -> str:
        """Name of the solver, or of the callable."""
        if isinstance(self.forward, str):
            return self.forward
        return getattr(self.forward, "__name__", type(self.forward).__name__)

    def __call__(self, program: ConvexProgram) -> tuple[Solution, QP | None]:
        """The primal-dual point of ``program`` and the local QP there; None for no finite point.

        A named solver's point is polished by Newton steps on its active set while they lower its
        KKT norm; the status is then that of :func:`~bpqp_portfolio.solvers.common.finalize.judge`.
        A callable's point is never changed: it is solved up to 10 eps, else inaccurate.
        Missing duals are those of :func:`least_squares_duals`. The KKT norm is that of
        :func:`~bpqp_portfolio.problems.kkt_residuals` at the program's local QP.

        Raises
        ------
        UndefinedError
            f, its gradient or a constraint is not finite at the start of a named solver.
        SolverError
            A callable returned something else than a point.
        """
        if callable(self.forward):
            raw = _unpack(program, self.name, self.forward(program, program.start.copy()))
        else:
            program.refuse_undefined(program.start)
            module, function = _SOLVERS[self.forward]
            home = importlib.import_module(f".{module}", __package__)
            try:
                raw = getattr(home, function)(program, self.eps, self.options)
            except BackendError as error:
                return self._nothing(program, error), None
        try:
            point, local = _complete(program, raw, self.name)
        except BackendError as error:
            return self._nothing(program, error), None
        if local is None:
            return point, None
        if not self.own:
            point, local = polish(program, point, local)
        status = judge(point.kkt_norm, self.eps, exact=not self.own)
        if self.own and not status.usable:
            status = SolveStatus.INACCURATE
        return replace(point, status=status), local

    def _nothing(self, program: ConvexProgram, error: BackendError) -> Solution:
        """The answer where a package raised: no point, and its words."""
        point, _ = _complete(program, RawPoint(np.full(program.n, np.nan)), self.name)
        return replace(point, message=words(error))


def _unpack(program: ConvexProgram, name: str, result: Any) -> RawPoint:
    """The point that a caller's forward solver returned, its shapes checked."""
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) not in (1, 3):
        raise SolverError(f"{name}: expected z or (z, nu, lam), got {len(parts)} values.")
    arrays = {}
    for field, value, size in zip(
        ("z", "nu", "lam"), parts, (program.n, program.p, program.m), strict=False
    ):
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        array = np.array(value, dtype=np.float64)
        if array.shape != (size,):
            raise SolverError(f"{name}: expected {field} of shape ({size},), got {array.shape}.")
        arrays[field] = array
    return RawPoint(**arrays)  # type: ignore[arg-type]


def _complete(program: ConvexProgram, raw: RawPoint, name: str) -> tuple[Solution, QP | None]:
    """The point with its duals, its KKT norm and its local QP."""
    empty = np.zeros(program.n)
    blank = Solution(
        raw.z, raw.nu, raw.lam, empty, empty, SolveStatus.ITERATION_LIMIT, np.nan,
        raw.iterations, name,
    )  # fmt: skip
    if not all(np.isfinite(v).all() for v in (raw.z, raw.nu, raw.lam) if v is not None):
        return blank, None
    try:
        if raw.nu is None or raw.lam is None:
            nu, lam = least_squares_duals(program, raw.z)
            blank = replace(blank, nu=nu, lam=lam)
        local = program.local_qp(blank.z, blank.nu, blank.lam)
    except UndefinedError:
        return blank, None
    return replace(blank, kkt_norm=blank.residuals(local).norm), local


def least_squares_duals(program: ConvexProgram, z: Array) -> tuple[Array, Array]:
    """Duals ν (p,) and λ ≥ 0 (m,) that best explain a primal point.

    They minimise ‖∇f + Aᵀν + Gᵀλ‖² + Σ (λᵢ slackᵢ)², the squared residuals of stationarity and
    complementarity in the units of :func:`~bpqp_portfolio.problems.kkt_residuals`: slack, not a
    threshold, says how near a constraint is to being active. Exact at an exact point where duals
    are unique. ν is eliminated by a QR factorisation, λ found by non-negative least squares.

    Raises
    ------
    UndefinedError
        A value or derivative is not finite at z.
    """
    local = program.local_qp(z, np.zeros(program.p), np.zeros(program.m))
    units = local.scaling
    gradient = local.P @ z + local.q
    A = local.A / units.rows_A[:, None]
    G = local.G / units.rows_G[:, None]
    slack = np.maximum(local.h - local.G @ z, 0.0) / units.rows_G
    length, _ = point_units(units, np.abs(z).max(), 0.0)
    Q, R, order = linalg.qr(A.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(R))
    rank = int(np.count_nonzero(diagonal > 1e-12 * diagonal.max(initial=0.0)))
    Q, R = Q[:, :rank], R[:rank, :rank]

    lam = np.zeros(program.m)
    if program.m:
        rows = np.vstack([G.T - Q @ (Q.T @ G.T), np.diag(slack / length)])
        size = float(np.abs(gradient).max()) or 1.0
        target = np.concatenate([Q @ (Q.T @ gradient) - gradient, np.zeros(program.m)]) / size
        with native:
            lam = optimize.nnls(rows, target, maxiter=30 * (program.m + 10))[0] * size
    nu = np.zeros(program.p)
    nu[order[:rank]] = -linalg.solve_triangular(R, Q.T @ (gradient + G.T @ lam))
    return nu / units.rows_A, lam / units.rows_G


def polish(program: ConvexProgram, point: Solution, local: QP) -> tuple[Solution, QP]:
    """Newton steps on the active set while each halves the KKT norm, at most ten.

    They go on beyond eps: gradients inherit the accuracy of the point. The active set is corrected
    as in :func:`~bpqp_portfolio.solvers.common.finalize.polished`.
    """
    rows, seen = active_set(local, point).rows, set()
    for _ in range(_ROUNDS):
        if point.kkt_norm <= _EXACT:
            break
        seen.add(rows.tobytes())
        try:
            trial, there, following = _newton(program, point, local, rows)
        except UndefinedError:
            break
        better = trial.kkt_norm <= 0.5 * point.kkt_norm
        if better:
            point, local = trial, there
        if not better if (following == rows).all() else following.tobytes() in seen:
            break
        rows = following
    return point, local


def _newton(
    program: ConvexProgram, point: Solution, local: QP, rows: Array
) -> tuple[Solution, QP, Array]:
    """A Newton step on the active ``rows``, the local QP there, and the rows it speaks for."""
    lam = np.where(rows, point.lam, 0.0)
    C = np.vstack([local.A, local.G[rows]])
    slope = local.P @ point.z + local.q + local.A.T @ point.nu + local.G.T @ lam
    missing = np.concatenate([local.b, local.h[rows]]) - C @ point.z
    step, change = solve_equality_qp(local.P, slope, C, missing)
    nu = point.nu + change[: program.p]
    lam[rows] += change[program.p :]
    trial = replace(point, z=point.z + step, nu=nu, lam=np.maximum(lam, 0.0))
    there = program.local_qp(trial.z, nu, trial.lam)
    norm = trial.residuals(there).norm
    return replace(trial, kkt_norm=norm), there, corrected_rows(there, trial, rows, lam)
