"""SLSQP and trust-constr of scipy on a smooth program, with exact derivatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import optimize

from ..problems.convex import ConvexProgram
from .nlp import RawPoint

OPTIONS = {
    "slsqp": ("maxiter", "ftol"),
    "trust_constr": (
        "maxiter",
        "gtol",
        "xtol",
        "barrier_tol",
        "initial_tr_radius",
        "initial_constr_penalty",
        "initial_barrier_parameter",
        "initial_barrier_tolerance",
        "factorization_method",
    ),
}


def slsqp(program: ConvexProgram, eps: float, options: Mapping[str, Any]) -> RawPoint:
    """D. Kraft, A software package for sequential quadratic programming, 1988; scipy's version.

    Options: ``maxiter``, ``ftol`` (default min(eps, 1e-10), of the objective in units of its first
    gradient).
    """
    constraints = []
    if program.p:
        constraints.append({"type": "eq", "fun": program.h, "jac": program.jacobian_h})
    if program.m:
        # scipy's inequalities are feasible where they are positive.
        constraints.append(
            {
                "type": "ineq",
                "fun": lambda z: -program.g(z),
                "jac": lambda z: -program.jacobian_g(z),
            }
        )
    unit = _unit(program)
    result = optimize.minimize(
        lambda z: program.value(z) / unit,
        program.start,
        jac=lambda z: program.gradient(z) / unit,
        method="SLSQP",
        constraints=constraints,
        options={"maxiter": 1000, "ftol": min(eps, 1e-10), **options},
    )
    return RawPoint(np.asarray(result.x, dtype=np.float64), iterations=int(result.nit))


def trust_constr(program: ConvexProgram, eps: float, options: Mapping[str, Any]) -> RawPoint:
    """R. H. Byrd, M. E. Hribar and J. Nocedal, SIAM J. Optim. 9 (1999); scipy's version.

    Options: scipy's own but ``verbose`` and ``disp``; ``gtol``, ``xtol`` and ``barrier_tol`` follow
    eps.
    """
    none_h, none_g = np.zeros(program.p), np.zeros(program.m)
    constraints = []
    if program.p:
        constraints.append(
            optimize.NonlinearConstraint(
                program.h,
                0.0,
                0.0,
                jac=program.jacobian_h,
                hess=lambda z, v: program.hessian(z, v, none_g, 0.0),
            )
        )
    if program.m:
        constraints.append(
            optimize.NonlinearConstraint(
                program.g,
                -np.inf,
                0.0,
                jac=program.jacobian_g,
                hess=lambda z, v: program.hessian(z, none_h, v, 0.0),
            )
        )
    unit = _unit(program)
    result = optimize.minimize(
        lambda z: program.value(z) / unit,
        program.start,
        jac=lambda z: program.gradient(z) / unit,
        hess=lambda z: program.hessian(z, none_h, none_g) / unit,
        method="trust-constr",
        constraints=constraints,
        options={"maxiter": 2000, "gtol": eps, "xtol": eps, "barrier_tol": eps, **options},
    )
    return RawPoint(np.asarray(result.x, dtype=np.float64), iterations=int(result.nit))


def _unit(program: ConvexProgram) -> float:
    """Size of the objective's gradient at the start, 1 where it is zero: scipy's are absolute."""
    return float(np.abs(program.gradient(program.start)).max()) or 1.0
