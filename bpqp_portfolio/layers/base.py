"""What every layer shares: the arguments that choose solvers, accuracy and what failure means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..config import check_number
from ..errors import ConfigError
from ..problems.qp import QP
from ..problems.solution import Solution
from ..solvers.common.protocol import Solver, SolverOptions, check_settings
from ..solvers.registry import get_backward

RAISE, NAN = "raise", "nan"


@dataclass(frozen=True)
class Methods:
    """How a layer solves forward and backward; ``backward`` None is the direct KKT solve."""

    forward: Solver[Any, Any]
    forward_options: SolverOptions
    backward: Solver[QP, Solution] | None
    backward_options: SolverOptions

    @property
    def adjoint(self) -> dict[str, Any]:
        """The backward solver and its options, as the functions of the backward QP take them."""
        return {"solver": self.backward, "options": self.backward_options}


class SolverLayer(nn.Module):
    """A layer without parameters that keeps nothing between calls.

    Parameters
    ----------
    forward : the forward solver's name, "auto" for a choice by structure and size.
    backward : the backward QP's solver: "auto" or "kkt" for the direct solve, or the name of a
        QP solver. Every pair works.
    tolerance : scaled KKT norm to reach (:func:`~bpqp_portfolio.problems.kkt_residuals`), free of
        all units; of the forward point, and of a backward solver that iterates.
    max_iterations : of the forward solver; None for its own limit.
    on_failure : "raise", or "nan": a failed item is NaN with its status and gets zero gradient, an
        inaccurate one is kept, and the other items are untouched.
    options : further settings of the forward solver, by its own names; they win over the others.

    Raises
    ------
    ConfigError
        A value outside its range.
    """

    def __init__(
        self,
        forward: Any,
        backward: str,
        tolerance: float,
        max_iterations: int | None,
        on_failure: str,
        options: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        check_number(tolerance, "tolerance", low=0, open_low=True)
        if max_iterations is not None:
            check_number(max_iterations, "max_iterations", low=1, integer=True)
        if on_failure not in (RAISE, NAN):
            raise ConfigError(f"on_failure: expected {RAISE!r} or {NAN!r}, got {on_failure!r}.")
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"options: expected a mapping, got {type(options).__name__}.")
        self.forward_name, self.backward_name = forward, backward
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.on_failure, self.options = on_failure, dict(options or {})

    @abstractmethod
    def solve(self, *arguments: Any, **named: Any) -> Any:
        """The solution, with duals, status and KKT norm."""

    def forward(self, *arguments: Any, **named: Any) -> Tensor:
        """The minimiser z (..., n) of what :meth:`solve` takes."""
        return self.solve(*arguments, **named).z

    @property
    def raises(self) -> bool:
        """Whether a failed item is an error."""
        return self.on_failure == RAISE

    def methods(self, forward: Solver[Any, Any]) -> Methods:
        """How the layer solves, with ``forward`` as its forward solver.

        Raises
        ------
        ConfigError
            An option that the solver does not have, or for "auto" none that it may take; one that
            only others have is refused by the one that it takes.
        """
        options = SolverOptions(self.tolerance, self.max_iterations, native=self.options)
        check_settings(forward, options)
        backward = get_backward(self.backward_name)
        return Methods(forward, options, backward, SolverOptions(self.tolerance))

    def extra_repr(self) -> str:
        return (
            f"forward={self.forward_name!r}, backward={self.backward_name!r}, "
            f"tolerance={self.tolerance:g}, on_failure={self.on_failure!r}"
        )
