"""Certificates that a QP has no solution: proved before they are claimed, and described.

Farkas' lemma: no z meets Az = b, Gz ≤ h, lb ≤ z ≤ ub if there are ν and λ, λ_lb, λ_ub ≥ 0 with

    Aᵀν + Gᵀλ − λ_lb + λ_ub = 0   and   bᵀν + hᵀλ − lbᵀλ_lb + ubᵀλ_ub < 0.

The objective is unbounded below on the feasible set, if that is not empty, where a ray z has
Pz = 0, qᵀz < 0, Az = 0, Gz ≤ 0 and leaves no bound (S. Boyd and L. Vandenberghe, Convex
Optimization, 2004, section 5.8). Both are checked in units in which rows and objective have size 1.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from ...problems.matrices import (
    Array,
    FactorMatrix,
    Matrix,
    is_sparse,
    largest,
    scale_rows,
    to_sparse,
)
from ...problems.qp import QP
from ...problems.solution import Solution, SolveStatus

# A certificate's error, in the scaled problem, against what it proves: a primal one excludes every
# point with ‖z‖₁ below the inverse of this, a ray is one at least so far out, in the unit of z.
_ERROR = 1e-8
# What is left of a sum may be its rounding.
_ROUNDING = 1e-12
_FEASIBILITY = 1e-10
_SECONDS = 60.0
_ENTRIES = 1e-5
_SHOWN = 8


def infeasible(
    problem: QP,
    kind: SolveStatus,
    *,
    ray: Array | None = None,
    duals: tuple[Array, Array] | None = None,
    iterations: int,
    solver: str,
) -> Solution:
    """Solution of a problem that a solver found infeasible, with a proved certificate.

    Parameters
    ----------
    kind : PRIMAL_INFEASIBLE or DUAL_INFEASIBLE, what the solver claims.
    ray : (n,), the solver's direction of descent, if it has one.
    duals : (ν (p,), λ (m,)), the solver's certificate of primal infeasibility, if it has one.

    What the solver offers is tidied (the duals of bounds follow from ν and λ) and checked, in units
    in which rows and objective have size 1. Where it has nothing to offer, or nothing good, a
    linear program is asked. Where that finds no proof either, the status is ITERATION_LIMIT, or
    BAD_DATA where the problem is not convex.

    Returns
    -------
    Solution as :class:`~bpqp_portfolio.problems.Solution` describes it: the certificate's largest
    entry is 1, and all that does not belong to it is NaN.
    """
    n, p, m = problem.n, problem.p, problem.m
    z, nu, lam, lam_lb, lam_ub = (np.full(size, np.nan) for size in (n, p, m, n, n))
    status = SolveStatus.ITERATION_LIMIT if problem.convex else SolveStatus.BAD_DATA
    if kind is SolveStatus.PRIMAL_INFEASIBLE:
        proof = None if duals is None else _farkas(problem, *duals)
        proof = _ask_farkas(problem) if proof is None else proof
        if proof is not None:
            status, (nu, lam, lam_lb, lam_ub) = kind, proof
    else:
        found = None if ray is None else _ray(problem, ray)
        found = _ask_ray(problem) if found is None else found
        if found is not None:
            status, z = kind, found
    return Solution(z, nu, lam, lam_lb, lam_ub, status, float("nan"), iterations, solver)


def any_certificate(
    problem: QP,
    *,
    ray: Array | None = None,
    duals: tuple[Array, Array] | None = None,
    iterations: int,
    solver: str,
) -> Solution | None:
    """:func:`infeasible` of either kind, the primal one first; None where neither is proved."""
    for kind in (SolveStatus.PRIMAL_INFEASIBLE, SolveStatus.DUAL_INFEASIBLE):
        found = infeasible(
            problem, kind, ray=ray, duals=duals, iterations=iterations, solver=solver
        )
        if found.status is kind:
            return found
    return None


def describe_infeasibility(problem: QP, solution: Solution) -> str:
    """Which constraints contradict each other, or along what the objective is unbounded.

    ``solution`` is that of :func:`infeasible`, for ``problem``. Its certificate may involve more
    constraints than it needs, so that of one that needs all of its own is described (by a linear
    program). Rows and coordinates count from 0; at most 8 of a kind are shown, the heaviest. Empty
    for any other status.
    """
    s = solution
    if s.status is SolveStatus.BAD_DATA and not problem.convex:
        return "P is not positive semidefinite: it has a negative eigenvalue"
    if s.status is SolveStatus.DUAL_INFEASIBLE:
        return f"unbounded along {_numbers('coordinate', 'coordinates', s.z)}"
    if s.status is not SolveStatus.PRIMAL_INFEASIBLE:
        return ""
    units = problem.scaling
    few = _ask_farkas(problem, fewest=True)
    nu, lam, lam_lb, lam_ub = (s.nu, s.lam, s.lam_lb, s.lam_ub) if few is None else few
    nu, lam = nu * units.rows_A, lam * units.rows_G
    weight = max(map(largest, (nu, lam, lam_lb, lam_ub)))
    named = [
        _numbers("equality row", "equality rows", nu, weight),
        _numbers("inequality row", "inequality rows", lam, weight),
        _numbers("lower bound of", "lower bounds of", lam_lb, weight),
        _numbers("upper bound of", "upper bounds of", lam_ub, weight),
    ]
    return "; ".join(filter(None, named))


def _numbers(one: str, several: str, values: Array, weight: float | None = None) -> str:
    weight = largest(values) if weight is None else weight
    count = np.count_nonzero(np.abs(values) > _ENTRIES * weight)
    return numbered(one, several, np.argsort(-np.abs(values), kind="stable")[:count])


def numbered(one: str, several: str, places: Array) -> str:
    """ "several 3, 5 and 2 more" for the ``places``, the first of which are shown; "" for none."""
    if not len(places):
        return ""
    shown = ", ".join(str(i) for i in sorted(places[:_SHOWN]))
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return f"{one if len(places) == 1 else several} {shown}{more}"


def _farkas(problem: QP, nu: Array, lam: Array) -> tuple[Array, Array, Array, Array] | None:
    """The certificate with these duals of rows, or None if it proves nothing."""
    units = problem.scaling
    size = max(largest(nu * units.rows_A), largest(lam * units.rows_G))
    # Without rows, bounds alone contradict each other only where QP refuses the data.
    if not 0 < size < np.inf or not (np.isfinite(nu).all() and np.isfinite(lam).all()):
        return None
    nu, lam = nu / size, np.maximum(lam / size, 0.0)
    pull = problem.A.T @ nu + problem.G.T @ lam
    has_lb, has_ub = np.isfinite(problem.lb), np.isfinite(problem.ub)
    lam_lb = np.where(has_lb, np.maximum(pull, 0.0), 0.0)
    lam_ub = np.where(has_ub, np.maximum(-pull, 0.0), 0.0)
    error = largest(pull - lam_lb + lam_ub)
    terms = [problem.b * nu, problem.h * lam]
    terms += [-problem.lb[has_lb] * lam_lb[has_lb], problem.ub[has_ub] * lam_ub[has_ub]]
    proved = -sum(term.sum() for term in terms)
    rounding = _ROUNDING * sum(np.abs(term).sum() for term in terms)
    if not (error * units.length <= _ERROR * proved and proved > rounding):
        return None
    weight = max(map(largest, (nu, lam, lam_lb, lam_ub)))
    return nu / weight, lam / weight, lam_lb / weight, lam_ub / weight


def _ask_farkas(problem: QP, *, fewest: bool = False) -> tuple[Array, Array, Array, Array] | None:
    """The certificate that proves most among those with scaled duals up to 1, if one proves.

    With ``fewest`` the one of least sum among those that prove 1: a vertex, which needs no
    constraint that another could spare.
    """
    units = problem.scaling
    A = to_sparse(scale_rows(problem.A, 1.0 / units.rows_A))
    G = to_sparse(scale_rows(problem.G, 1.0 / units.rows_G))
    lower = np.flatnonzero(np.isfinite(problem.lb))
    upper = np.flatnonzero(np.isfinite(problem.ub))
    eye = sparse.eye_array(problem.n, format="csc")
    p, m, bounds = problem.p, problem.m, len(lower) + len(upper)
    b = problem.b / units.rows_A
    value = np.concatenate([b, -b, problem.h / units.rows_G, -problem.lb[lower], problem.ub[upper]])
    value /= units.length
    balance = sparse.hstack([A.T, -A.T, G.T, -eye[:, lower], eye[:, upper]])
    infinite = np.full(2 * p + m + bounds, np.inf)
    if fewest:
        proof = sparse.csr_array(value[None, :])
        found = _linear_program(
            np.ones(len(value)),
            equal=sparse.vstack([balance, proof]),
            right=np.concatenate([np.zeros(problem.n), [-1.0]]),
            low=0.0 * value,
            high=infinite,
        )
    else:
        high = np.where(np.arange(len(value)) < 2 * p + m, 1.0, infinite)
        found = _linear_program(value, equal=balance, low=0.0 * value, high=high)
    if found is None:
        return None
    plus, minus, lam, _ = np.split(found, [p, 2 * p, 2 * p + m])
    return _farkas(problem, (plus - minus) / units.rows_A, lam / units.rows_G)


def _ray(problem: QP, z: Array) -> Array | None:
    """The direction z at largest entry 1, moved on to the cone of the bounds; None if no ray."""
    if not np.isfinite(z).all():
        return None
    z = np.where(np.isfinite(problem.lb), np.maximum(z, 0.0), z)
    z = np.where(np.isfinite(problem.ub), np.minimum(z, 0.0), z)
    size = largest(z)
    if size == 0.0:
        return None
    z = z / size
    units = problem.scaling
    proved = -(problem.q @ z) / units.gradient
    rounding = _ROUNDING * np.abs(problem.q * z).sum() / units.gradient
    rows = (problem.A @ z) / units.rows_A, np.maximum(problem.G @ z, 0.0) / units.rows_G
    curved = largest(problem.P @ z) * (units.length / units.gradient)
    error = max(curved, *map(largest, rows))
    return z if error <= _ERROR * proved and proved > rounding else None


def _ask_ray(problem: QP) -> Array | None:
    """The steepest ray with entries up to 1, if there is one."""
    units = problem.scaling
    low = np.where(np.isfinite(problem.lb), 0.0, -1.0)
    high = np.where(np.isfinite(problem.ub), 0.0, 1.0)
    P: Matrix = problem.P
    if isinstance(P, FactorMatrix):  # Pz = 0 is Bᵀz = 0, and z = 0 where d > 0
        low, high = np.where(P.d > 0, 0.0, low), np.where(P.d > 0, 0.0, high)
        P = P.B.T
    curved = to_sparse(P) / (largest(P) or 1.0)
    A = to_sparse(scale_rows(problem.A, 1.0 / units.rows_A))
    z = _linear_program(
        problem.q / units.gradient,
        equal=sparse.vstack([curved, A]),
        below=to_sparse(scale_rows(problem.G, 1.0 / units.rows_G)),
        low=low,
        high=high,
    )
    return None if z is None else _ray(problem, z)


def _linear_program(
    cost: Array,
    *,
    equal: Matrix,
    low: Array,
    high: Array,
    right: Array | None = None,
    below: Matrix | None = None,
) -> Array | None:
    """argmin costᵀx s.t. equal x = right (0), below x ≤ 0, low ≤ x ≤ high; None if not found."""
    if len(cost) == 0:
        return None
    rows = {}
    for letters, matrix, side in (("eq", equal, right), ("ub", below, None)):
        if matrix is not None and matrix.shape[0]:
            rows[f"A_{letters}"] = matrix
            rows[f"b_{letters}"] = np.zeros(matrix.shape[0]) if side is None else side
    parts = (cost / (largest(cost) or 1.0), *rows.values())
    if not all(np.isfinite(m.data if is_sparse(m) else m).all() for m in parts):
        return None  # beyond what numbers can be scaled to
    result = linprog(
        cost / (largest(cost) or 1.0),
        **rows,
        bounds=np.column_stack([low, high]),
        method="highs",
        options={
            "primal_feasibility_tolerance": _FEASIBILITY,
            "dual_feasibility_tolerance": _FEASIBILITY,
            "time_limit": _SECONDS,
        },
    )
    return result.x if result.status == 0 else None
