"""Solvers by kind of program and by name, imported when they are first asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, overload

from ..config import lookup
from ..errors import SolverNotInstalledError
from ..problems.convex import ConvexProgram, SmoothSolution
from ..problems.qp import QP
from ..problems.socp import SOCP, SOCPSolution
from ..problems.solution import Solution
from .common.native import NUMERICAL, BackendError, Guarded
from .common.protocol import Solver
from .smooth.given_point import GivenPoint

Kind = Literal["qp", "cone", "smooth"]


@dataclass(frozen=True)
class _Entry:
    """Where a solver's class lives (in this package), what it imports and how to install that.

    With ``inner`` it is made with :func:`get_solver`, since it asks solvers of QPs itself.
    """

    module: str
    cls: str
    package: str
    install: str
    inner: bool = False


# A new solver is one file in qp/, conic/ or smooth/, and one line here.
_SOLVERS: dict[str, dict[str, _Entry]] = {
    "qp": {
        "auto": _Entry("auto", "AutoSolver", "scipy", "pip install scipy"),
        "dense": _Entry("qp.dense", "DenseSolver", "scipy", "pip install scipy"),
        "osqp": _Entry("qp.osqp", "OSQPSolver", "osqp", "pip install osqp"),
        "clarabel": _Entry("qp.clarabel", "ClarabelSolver", "clarabel", "pip install clarabel"),
        "piqp": _Entry("qp.piqp", "PIQPSolver", "piqp", "pip install piqp"),
        "proxqp": _Entry("qp.proxqp", "ProxQPSolver", "proxsuite", "pip install proxsuite"),
        "daqp": _Entry("qp.daqp", "DAQPSolver", "daqp", "pip install daqp"),
        "highs": _Entry("qp.highs", "HiGHSSolver", "highspy", "pip install highspy"),
    },
    "cone": {
        "auto": _Entry("auto", "ConicAuto", "clarabel", "pip install clarabel"),
        "interior": _Entry("conic.interior_point", "ConicInterior", "scipy", "pip install scipy"),
        "clarabel": _Entry("conic.clarabel", "ConicClarabel", "clarabel", "pip install clarabel"),
        "scs": _Entry("conic.scs", "ConicSCS", "scs", "pip install scs"),
    },
    "smooth": {
        "auto": _Entry("auto", "SmoothAuto", "scipy", "pip install scipy"),
        "sqp": _Entry("smooth.sqp", "SQPSolver", "scipy", "pip install scipy", inner=True),
        "slsqp": _Entry("smooth.scipy_methods", "SLSQPSolver", "scipy", "pip install scipy"),
        "trust-constr": _Entry(
            "smooth.scipy_methods", "TrustConstrSolver", "scipy", "pip install scipy"
        ),
    },
}
_ANSWERS: dict[str, type[Solution]] = {
    "qp": Solution,
    "cone": SOCPSolution,
    "smooth": SmoothSolution,
}
# What of a solver's exceptions is a status. Of a smooth program only what a package raises: its
# functions are the caller's, and so are their errors.
_CAUGHT = {"qp": NUMERICAL, "cone": NUMERICAL, "smooth": (BackendError,)}

DIRECT = "kkt"
AUTO = "auto"


def solver_names(kind: Kind = "qp") -> tuple[str, ...]:
    """Every forward solver of a ``kind`` that this package knows, installed or not."""
    return tuple(_SOLVERS[kind])


@overload
def available_solvers() -> dict[str, tuple[str, ...]]: ...
@overload
def available_solvers(kind: Kind) -> tuple[str, ...]: ...
def available_solvers(kind: Kind | None = None) -> Any:
    """Forward solvers whose package is installed.

    Those of a ``kind`` of program, "qp", "cone" or "smooth"; without one a dictionary from each
    kind to its solvers. Every one of "qp" may also be a ``backward``, as may "kkt".

    Raises
    ------
    ConfigError
        No such kind.

    Examples
    --------
    >>> "clarabel" in available_solvers("cone")
    True
    >>> list(available_solvers())
    ['qp', 'cone', 'smooth']
    """
    if kind is None:
        return {each: available_solvers(each) for each in _SOLVERS}  # type: ignore[call-overload]
    entries = lookup(_SOLVERS, kind, "kind of solver")
    return tuple(name for name, entry in entries.items() if _installed(entry))


@overload
def get_solver(name: str, kind: Literal["qp"] = "qp") -> Solver[QP, Solution]: ...
@overload
def get_solver(name: str, kind: Literal["cone"]) -> Solver[SOCP, SOCPSolution]: ...
@overload
def get_solver(
    name: str | Callable[..., Any], kind: Literal["smooth"]
) -> Solver[ConvexProgram, SmoothSolution]: ...
def get_solver(name: Any, kind: Any = "qp") -> Any:
    """The forward solver ``name`` for one ``kind`` of program: "qp", "cone" or "smooth".

    For smooth programs ``name`` may be a callable of the caller's as well
    (:class:`~.smooth.given_point.GivenPoint`).

    Raises
    ------
    ConfigError
        No such solver; the nearest name is given.
    SolverNotInstalledError
        Its package is missing. An error inside an installed package comes through as it is.

    Examples
    --------
    >>> solution = get_solver("dense").solve(QP([[2.0]], [-4.0], ub=[1.0]))
    >>> solution.z.tolist(), solution.lam_ub.tolist(), solution.status.name
    ([1.0], [2.0], 'SOLVED')
    """
    if kind == "smooth" and callable(name):
        return Guarded(GivenPoint(name), SmoothSolution, _CAUGHT[kind])
    entry = lookup(_SOLVERS[kind], name, "solver")
    if not _installed(entry):
        raise SolverNotInstalledError(
            f"solver {name!r} needs the package {entry.package!r}: {entry.install}. "
            f"Installed: {', '.join(available_solvers(kind)) or 'none'}."
        )
    cls = getattr(importlib.import_module(f"{__package__}.{entry.module}"), entry.cls)
    return Guarded(cls(get_solver) if entry.inner else cls(), _ANSWERS[kind], _CAUGHT[kind])


def get_backward(name: str) -> Solver[QP, Solution] | None:
    """The solver of the backward QP: None for the direct one, else a forward solver of QPs.

    The direct one is "kkt", and "auto" too, which first takes the factors that the forward solver
    may have left.

    Raises
    ------
    ConfigError, SolverNotInstalledError
        As :func:`get_solver`.
    """
    if name in (DIRECT, AUTO):
        return None
    lookup({DIRECT: None, **_SOLVERS["qp"]}, name, "backward solver")
    return get_solver(name)


@cache
def _installed(entry: _Entry) -> bool:
    return importlib.util.find_spec(entry.package) is not None
