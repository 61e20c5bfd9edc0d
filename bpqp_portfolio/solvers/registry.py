"""Solvers by name, imported when they are first asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..config import lookup
from ..errors import SolverNotInstalledError
from .common.finalize import failed
from .common.native import Guarded
from .common.protocol import Solver
from .conic.finalize import failed_cones

if TYPE_CHECKING:
    from .conic.standard_form import ConeSolver


@dataclass(frozen=True)
class _Entry:
    """Where a solver's class lives (in this package), what it imports and how to install that."""

    module: str
    cls: str
    package: str
    install: str


# A new solver is one file in qp/, and one line here.
_SOLVERS: dict[str, _Entry] = {
    "auto": _Entry("auto", "AutoSolver", "scipy", "pip install scipy"),
    "dense": _Entry("qp.dense", "DenseSolver", "scipy", "pip install scipy"),
    "osqp": _Entry("qp.osqp", "OSQPSolver", "osqp", "pip install osqp"),
    "clarabel": _Entry("qp.clarabel", "ClarabelSolver", "clarabel", "pip install clarabel"),
    "piqp": _Entry("qp.piqp", "PIQPSolver", "piqp", "pip install piqp"),
    "proxqp": _Entry("qp.proxqp", "ProxQPSolver", "proxsuite", "pip install proxsuite"),
    "daqp": _Entry("qp.daqp", "DAQPSolver", "daqp", "pip install daqp"),
    "highs": _Entry("qp.highs", "HiGHSSolver", "highspy", "pip install highspy"),
}

# The same for cone programs, in conic/.
_CONE_SOLVERS: dict[str, _Entry] = {
    "auto": _Entry("auto_conic", "ConicAuto", "clarabel", "pip install clarabel"),
    "interior": _Entry("conic.interior_point", "ConicInterior", "scipy", "pip install scipy"),
    "clarabel": _Entry("conic.clarabel", "ConicClarabel", "clarabel", "pip install clarabel"),
    "scs": _Entry("conic.scs", "ConicSCS", "scs", "pip install scs"),
}

DIRECT = "kkt"
AUTO = "auto"


def solver_names() -> tuple[str, ...]:
    """Every forward solver this package knows, installed or not."""
    return tuple(_SOLVERS)


def available_solvers() -> tuple[str, ...]:
    """Forward solvers whose package is installed; each may also be a ``backward``, as may "kkt"."""
    return tuple(name for name, entry in _SOLVERS.items() if _installed(entry))


def get_solver(name: str) -> Solver:
    """The forward solver ``name``.

    Raises
    ------
    ConfigError
        No such solver; the nearest name is given.
    SolverNotInstalledError
        Its package is missing. An error inside an installed package comes through as it is.
    """
    return _made(lookup(_SOLVERS, name, "solver"), name, available_solvers(), failed)


def available_cone_solvers() -> tuple[str, ...]:
    """Forward solvers of cone programs whose package is installed."""
    return tuple(name for name, entry in _CONE_SOLVERS.items() if _installed(entry))


def get_cone_solver(name: str) -> ConeSolver:
    """The forward solver ``name`` of cone programs; raises as :func:`get_solver`."""
    entry = lookup(_CONE_SOLVERS, name, "cone solver")
    return _made(entry, name, available_cone_solvers(), failed_cones)


def get_backward(name: str) -> Solver | None:
    """The solver of the backward QP: None for the direct one, else a forward solver.

    The direct one is "kkt", and "auto" too, which first takes the factors that the forward solver
    may have left.
    """
    if name in (DIRECT, AUTO):
        return None
    lookup({DIRECT: None, **_SOLVERS}, name, "backward solver")
    return get_solver(name)


def _made(entry: _Entry, name: str, installed: tuple[str, ...], failed: Callable[..., Any]) -> Any:
    if not _installed(entry):
        raise SolverNotInstalledError(
            f"solver {name!r} needs the package {entry.package!r}: {entry.install}. "
            f"Installed: {', '.join(installed) or 'none'}."
        )
    module = importlib.import_module(f"{__package__}.{entry.module}")
    return Guarded(getattr(module, entry.cls)(), failed)


@cache
def _installed(entry: _Entry) -> bool:
    return importlib.util.find_spec(entry.package) is not None
