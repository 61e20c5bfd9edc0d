"""SLSQP and trust-constr of scipy on a smooth program, with exact derivatives.

SLSQP solves local QPs with a quasi-Newton matrix in place of the Hessian of the Lagrangian;
trust-constr follows a barrier or, with equalities alone, takes Byrd-Omojokun steps in a trust
region, with the exact Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from ...problems.convex import ConvexProgram
from ...problems.matrices import Array, row_sizes
from ..common.native import BackendError, native
from ..common.protocol import SolverOptions
from .base import SmoothSolver
from .finalize import RawPoint


@dataclass(frozen=True)
class _Units:
    """Sizes of the first gradient and of the first Jacobians' rows: scipy's tests are absolute."""

    f: float
    h: Array
    g: Array

    @classmethod
    def of(cls, program: ConvexProgram) -> _Units:
        z = program.initial_point
        return cls(
            float(np.abs(program.gradient(z)).max()) or 1.0,
            row_sizes(program.jacobian_h(z)),
            row_sizes(program.jacobian_g(z)),
        )


class _Watched:
    """A program whose functions remember what they raised: the caller's errors, not scipy's."""

    def __init__(self, program: ConvexProgram) -> None:
        self._program = program
        self.raised: list[Exception] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._program, name)
        if not callable(value):
            return value

        def watched(*arguments: Any) -> Any:
            try:
                return value(*arguments)
            except Exception as error:
                self.raised.append(error)
                raise

        return watched

    def minimise(self, fun: Any, **settings: Any) -> Any:
        """scipy's minimize from the program's initial point."""
        try:
            with native:
                return optimize.minimize(fun, self.initial_point, **settings)
        except BackendError:
            if self.raised:
                raise self.raised[-1] from None
            raise


@dataclass(frozen=True)
class SLSQPSolver(SmoothSolver):
    """D. Kraft, A software package for sequential quadratic programming, 1988; scipy's version.

    Settings: ``maxiter``, ``ftol`` (default min(tolerance, 1e-10), of the objective in units of its
    first gradient).
    """

    name: str = "slsqp"
    settings: tuple[str, ...] = ("maxiter", "ftol")

    def find(self, program: ConvexProgram, options: SolverOptions) -> RawPoint:
        unit, watched = _Units.of(program), _Watched(program)
        constraints = []
        if program.p:
            constraints.append(
                {
                    "type": "eq",
                    "fun": lambda z: watched.h(z) / unit.h,
                    "jac": lambda z: watched.jacobian_h(z) / unit.h[:, None],
                }
            )
        if program.m:
            # scipy's inequalities are feasible where they are positive.
            constraints.append(
                {
                    "type": "ineq",
                    "fun": lambda z: -watched.g(z) / unit.g,
                    "jac": lambda z: -watched.jacobian_g(z) / unit.g[:, None],
                }
            )
        result = watched.minimise(
            lambda z: watched.value(z) / unit.f,
            jac=lambda z: watched.gradient(z) / unit.f,
            method="SLSQP",
            constraints=constraints,
            options={
                "maxiter": options.max_iterations or 1000,
                "ftol": min(options.tolerance, 1e-10),
                **options.native,
            },
        )
        return _raw_point(result)


@dataclass(frozen=True)
class TrustConstrSolver(SmoothSolver):
    """R. H. Byrd, M. E. Hribar and J. Nocedal, SIAM J. Optim. 9 (1999); scipy's version.

    It may evaluate f outside the domain and then fails. Settings: scipy's own but ``verbose`` and
    ``disp``; ``gtol``, ``xtol`` and ``barrier_tol`` follow the tolerance.
    """

    name: str = "trust-constr"
    settings: tuple[str, ...] = (
        "maxiter",
        "gtol",
        "xtol",
        "barrier_tol",
        "initial_tr_radius",
        "initial_constr_penalty",
        "initial_barrier_parameter",
        "initial_barrier_tolerance",
        "factorization_method",
    )

    def find(self, program: ConvexProgram, options: SolverOptions) -> RawPoint:
        unit, watched = _Units.of(program), _Watched(program)
        none_h, none_g = np.zeros(program.p), np.zeros(program.m)
        constraints = []
        if program.p:
            constraints.append(
                optimize.NonlinearConstraint(
                    lambda z: watched.h(z) / unit.h,
                    0.0,
                    0.0,
                    jac=lambda z: watched.jacobian_h(z) / unit.h[:, None],
                    hess=lambda z, v: watched.hessian(z, v / unit.h, none_g, 0.0),
                )
            )
        if program.m:
            constraints.append(
                optimize.NonlinearConstraint(
                    lambda z: watched.g(z) / unit.g,
                    -np.inf,
                    0.0,
                    jac=lambda z: watched.jacobian_g(z) / unit.g[:, None],
                    hess=lambda z, v: watched.hessian(z, none_h, v / unit.g, 0.0),
                )
            )
        eps = options.tolerance
        result = watched.minimise(
            lambda z: watched.value(z) / unit.f,
            jac=lambda z: watched.gradient(z) / unit.f,
            hess=lambda z: watched.hessian(z, none_h, none_g) / unit.f,
            method="trust-constr",
            constraints=constraints,
            options={
                "maxiter": options.max_iterations or 2000,
                "gtol": eps,
                "xtol": eps,
                "barrier_tol": eps,
                **options.native,
            },
        )
        return _raw_point(result)


def _raw_point(result: Any) -> RawPoint:
    return RawPoint(np.asarray(result.x, dtype=np.float64), iterations=int(result.nit))
