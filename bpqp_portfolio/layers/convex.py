"""The differentiable layer for programs of plain torch callables, convex or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ProblemError
from ..problems.convex import ConvexProgram, SmoothSolution, UndefinedError, as_float64
from ..problems.matrices import Array
from ..problems.solution import Solution, SolveStatus
from ..solvers.common.active_set import active_set
from ..solvers.qp.adjoint import adjoint
from ..solvers.registry import get_solver
from .base import SolverLayer
from .function import Call, Pair, Solved, solved_batch
from .items import Batch, float_shape
from .second_order import Grads, Tensors, pairing
from .transforms import eager


class ConvexLayer(SolverLayer):
    """min f(z; y)  s.t.  h(z; y) = 0,  g(z; y) ≤ 0, differentiable in all parameters y.

    Parameters
    ----------
    objective : (z, *parameters) → scalar, a plain torch callable of z (n,), twice differentiable.
    equalities, inequalities : (z, *parameters) → (p,) and → (m,), or None.
    forward : "sqp" (Newton steps by QPs), which is what "auto" takes, "slsqp" or "trust-constr"
        (scipy), or any callable (program, initial_point) → z (n,) or (z, nu (p,), lam (m,)); see
        :class:`~bpqp_portfolio.problems.convex.ConvexProgram` for what ``program`` offers. Where
        it gives no duals, they are those with the least squared KKT residuals.
    backward : "kkt" for the direct solve of the backward QP ("auto" is the same), or a QP solver's
        name; only "kkt" can solve that of a program that is not convex.
    tolerance, max_iterations, on_failure, options : see
        :class:`~bpqp_portfolio.layers.base.SolverLayer`; a callable takes no options.
    batched : for every parameter, whether it has the batch dimensions of the initial point in
        front. Needed where that has some.

    Raises
    ------
    ConfigError
        An unknown solver or setting, a callable that is none.

    Notes
    -----
    Which points are accepted:

    - A named solver's point is polished by Newton steps on its active set, and solved where its
      KKT norm is then at most tolerance / 100. One up to 1e-4 is inaccurate, any other failed.
    - A callable's point is taken as it is: its KKT norm is reported, and its status is solved or
      inaccurate, never an error, unless it is not finite. Its gradient is the one that keeps the
      KKT conditions' residual constant (arXiv:2411.19285, section on general gradients); it is as
      good as the point, so watch ``kkt_norm``.
    - Where the program is not convex a solver finds a local optimum, and the gradient is that of
      the optimum found.

    The module has no parameters and keeps nothing between calls. The callables see float64 copies
    of z and of all floating point parameters, on their device; what else they use should be float64
    too. A tensor that needs a gradient must be a parameter (a closure over one is refused). They
    are called several times for each item, once for all parameters' gradients, and never over a
    batch. Outside the domain of f they should return NaN or infinity, not raise.

    Examples
    --------
    The weights of greatest entropy and score, softmax(y).

    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> def objective(z, y):
    ...     return (z * z.log()).sum() - z @ y
    >>> def budget(z, y):
    ...     return z.sum().reshape(1) - 1
    >>> layer = bp.ConvexLayer(objective, budget)
    >>> layer(torch.full((2,), 0.5), torch.tensor([0.0, 1.0]))
    tensor([0.2689, 0.7311])

    References
    ----------
    arXiv:2411.19285, Theorem 1.
    """

    def __init__(
        self,
        objective: Callable[..., Tensor],
        equalities: Callable[..., Tensor] | None = None,
        inequalities: Callable[..., Tensor] | None = None,
        forward: str | Callable[..., Any] = "auto",
        backward: str = "auto",
        *,
        tolerance: float = 1e-8,
        max_iterations: int | None = None,
        on_failure: str = "raise",
        options: Mapping[str, Any] | None = None,
        batched: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(forward, backward, tolerance, max_iterations, on_failure, options)
        given = {"objective": objective, "equalities": equalities, "inequalities": inequalities}
        for name, function in given.items():
            if not callable(function) and (name == "objective" or function is not None):
                raise ConfigError(
                    f"{name}: expected a callable of (z, *parameters), got "
                    f"{type(function).__name__}."
                )
        self.batched = None if batched is None else tuple(batched)
        self._functions = (objective, equalities, inequalities)
        self._methods = self.methods(get_solver(forward, "smooth"))

    @property
    def given(self) -> bool:
        """Whether the forward solver is a callable of the caller's."""
        return callable(self.forward_name)

    @eager
    def solve(self, initial_point: Tensor, *parameters: Tensor) -> Solution:
        """The primal-dual solution; z, nu and lam carry gradients to the parameters.

        Parameters
        ----------
        initial_point : (..., n), where the forward solver starts; it gives the size, the batch
            dimensions and the dtype of the result, and gets no gradient.
        parameters : tensors of any shape, passed on to the callables in this order; those that
            ``batched`` marks have the batch dimensions of the initial point in front, which the
            callables do not see.

        Returns
        -------
        Solution of tensors; its bounds' duals are zero, since bounds are inequalities here.

        Raises
        ------
        ProblemError
            Wrong shapes, callables that torch cannot differentiate; where failures raise also
            values that are not finite at the initial point.
        SolverError
            Where failures raise, one for all items that were not solved.
        """
        batch = self._batch(initial_point, parameters)
        call = _Call("ConvexLayer", batch, self.raises, self._methods, None, self, initial_point)
        solution: Solution = solved_batch(call, parameters)
        return solution

    def _batch(self, initial_point: Tensor, parameters: Tensors) -> Batch:
        """The batch of a call whose arguments have the right shapes."""
        shape = float_shape("initial_point", initial_point)
        if not shape or 0 in shape:
            raise ProblemError(f"initial_point: expected shape (..., n) with entries, got {shape}.")
        if self.batched is not None and len(self.batched) != len(parameters):
            raise ProblemError(
                f"batched has {len(self.batched)} entries for {len(parameters)} parameters; give "
                "one for each."
            )
        if len(shape) > 1 and self.batched is None:
            raise ProblemError(
                f"initial_point: has batch dimensions {shape[:-1]}, so the layer must know which "
                f"parameters have them too: batched={(True,) * len(parameters)} for all."
            )
        for i, value in enumerate(parameters):
            if not isinstance(value, Tensor):
                raise ProblemError(
                    f"parameter {i}: expected a tensor, got {type(value).__name__}; bind constants "
                    "into the callables."
                )
            if value.device != initial_point.device:
                raise ProblemError(
                    f"parameter {i} is on {value.device}, initial_point on {initial_point.device}; "
                    "move them to one."
                )
            if self._split(i) and tuple(value.shape[: len(shape) - 1]) != shape[:-1]:
                raise ProblemError(
                    f"parameter {i}: expected the batch dimensions {shape[:-1]} of initial_point "
                    f"in front, got shape {tuple(value.shape)}."
                )
        return Batch(shape[:-1], initial_point.dtype, initial_point.device)

    def _split(self, i: int) -> bool:
        """Whether parameter ``i`` has batch dimensions."""
        return self.batched is not None and bool(self.batched[i])


@dataclass(frozen=True)
class _Call(Call):
    """One call of a layer: how to take its items apart."""

    owner: ConvexLayer
    initial_point: Tensor
    # (n, p, m), known when the first program is.
    sizes: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.sizes[0]

    def item(self, i: int, parameter: Tensor, item: int) -> Tensor:
        """What item ``item`` uses of a parameter."""
        if not self.owner._split(i):
            return parameter
        shape = parameter.shape[len(self.batch.shape) :]
        return parameter.reshape(self.batch.items, *shape)[item]

    def items(self, parameters: Tensors, item: int) -> tuple[Tensor, ...]:
        """What item ``item`` uses of all parameters."""
        return tuple(self.item(i, t, item) for i, t in enumerate(parameters))

    def problems(
        self, tensors: Tensors
    ) -> tuple[dict[int, ConvexProgram], dict[int, ProblemError]]:
        starts, device = self.batch.rows(self.initial_point), self.initial_point.device
        problems: dict[int, ConvexProgram] = {}
        refused: dict[int, ProblemError] = {}
        for item in range(self.batch.items):
            if not np.isfinite(starts[item]).all():
                at = int(np.flatnonzero(~np.isfinite(starts[item]))[0])
                refused[item] = ProblemError(
                    f"initial_point: entry {at} is {starts[item][at]}, expected a finite number."
                )
                continue
            own = self.items(tensors, item)
            program = ConvexProgram(*self.owner._functions, own, starts[item], device)
            size = program.n, program.p, program.m
            if not self.sizes:
                self.sizes.append(size)
            if size != self.sizes[0]:
                raise ProblemError(
                    f"{self.batch.label(item)}the number of constraints differs between items: "
                    f"(n, p, m) is {size} and {self.sizes[0]}. Solve them in separate calls."
                )
            try:
                if not self.owner.given:
                    program.refuse_undefined(program.initial_point)
                problems[item] = program
            except UndefinedError as error:
                refused[item] = error
        return problems, refused

    def solutions(self, problems: Mapping[int, ConvexProgram]) -> list[SmoothSolution]:
        solver, options = self.methods.forward, self.methods.forward_options
        return [solver.solve(program, options=options) for program in problems.values()]

    def conflict(self, problem: ConvexProgram, solution: SmoothSolution) -> str:
        return ""

    def accepted(self, status: Array) -> Array:
        judged = status.copy()
        if self.owner.given:
            judged[status == SolveStatus.INACCURATE] = SolveStatus.SOLVED
        return judged

    def gradients(
        self, solved: Solved, tensors: Tensors, wanted: Sequence[bool], grads: Grads
    ) -> list[Tensor | None]:
        batch = self.batch
        out = [
            torch.zeros(t.shape, dtype=torch.float64, device=t.device) if needed else None
            for t, needed in zip(tensors, wanted, strict=True)
        ]
        incoming = [
            np.zeros((batch.items, k)) if g is None else batch.rows(g)
            for g, k in zip(grads, self.widths, strict=True)
        ]
        none = np.zeros(self.widths[0])
        for item, (program, point) in solved.items():
            rates = (*(g[item] for g in incoming), none, none)
            at = adjoint(point.local, point, *rates, **self.methods.adjoint)
            found = program.pullback(at.at_z, at.at_nu, at.at_lam, at.z, at.nu, at.lam)
            for i, (total, gradient) in enumerate(zip(out, found, strict=True)):
                if total is not None and gradient is not None:
                    self.item(i, total, item).add_(gradient)
        return [None if t is None else t.to(p.dtype) for t, p in zip(out, tensors, strict=True)]

    def refuse_second(self, wanted: Sequence[bool]) -> None:
        """Second derivatives are there in every parameter."""

    def pairing(
        self, item: int, solved: Pair, own: Tensors, seen: Tensors, point: Tensors, rates: Grads
    ) -> Tensor:
        program, found = solved
        assert found.local is not None
        rows = np.flatnonzero(active_set(found.local, found).rows)

        def at(x: Tensor, _: Tensor, values: Any) -> tuple[Tensor, Tensor, None]:
            f, h, g = program.evaluate(x.to(program.device), values)
            return f.cpu(), torch.cat([h, g[rows]]).cpu(), None

        z, nu, lam = point
        dz, dnu, dlam = (
            torch.zeros_like(v) if g is None else g for g, v in zip(rates, point, strict=True)
        )
        here, there = (
            tuple(as_float64(t) for t in self.items(given, item)) for given in (own, seen)
        )
        y, dy = torch.cat([nu, lam[rows]]), torch.cat([dnu, dlam[rows]])
        return pairing(at, z, y, here, there, dz, dy, self.title(item))
