"""The differentiable layer for programs of plain torch callables, convex or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, ProblemError
from ..problems.convex import ConvexProgram, UndefinedError, as_float64
from ..problems.qp import QP
from ..problems.solution import Solution, SolveStatus
from ..solvers.common.active_set import active_set
from ..solvers.common.protocol import check_settings
from ..solvers.qp.adjoint import adjoint
from ..solvers.registry import AUTO, get_backward, get_solver
from .base import SolverLayer
from .items import Batch, float_shape
from .second_order import Known, pairing, pulled, view
from .transforms import eager, refuse_forward_mode, refuse_transforms

# What "auto" is.
_AUTO = "sqp"


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
    tolerance : scaled KKT norm to reach.
    max_iterations : of a named forward solver; None for its own limit.
    on_failure : "raise", or "nan": a failed item is NaN with its status and gets zero gradient, an
        inaccurate one is kept, and the other items are untouched.
    options : further settings of a named forward solver, by its own names.
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
        self._method = get_solver(_AUTO if forward == AUTO else forward, "smooth")
        check_settings(self._method, self.forward_options())
        self._backward = get_backward(backward)

    def forward(self, initial_point: Tensor, *parameters: Tensor) -> Tensor:
        """The solution z (..., n); see :meth:`solve`."""
        return self.solve(initial_point, *parameters).z

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
        batch = Batch(shape[:-1], initial_point.dtype, initial_point.device)
        call = _Call(self, batch)
        z, nu, lam, norm, count, status, said = _ConvexFunction.apply(
            call, initial_point, *parameters
        )
        return Solution(
            z, nu, lam, torch.zeros_like(z), torch.zeros_like(z), status, norm, count,
            self._method.name, message=said,
        )  # fmt: skip

    def _split(self, i: int) -> bool:
        """Whether parameter ``i`` has batch dimensions."""
        return self.batched is not None and bool(self.batched[i])


@dataclass(frozen=True)
class _Call:
    """One call of a layer: how to take its items apart."""

    layer: ConvexLayer
    batch: Batch

    def flat(self, i: int, parameter: Tensor) -> Tensor:
        """A parameter with one batch dimension, or as it is where it has none."""
        if not self.layer._split(i):
            return parameter
        return parameter.reshape(self.batch.items, *parameter.shape[len(self.batch.shape) :])

    def item(self, i: int, parameter: Tensor, item: int) -> Tensor:
        """What item ``item`` uses of a parameter."""
        return self.flat(i, parameter)[item] if self.layer._split(i) else parameter


class _ConvexFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, initial_point: Tensor, *parameters: Tensor) -> Any:  # type: ignore[override]
        layer, batch = call.layer, call.batch
        starts = batch.rows(initial_point)
        status = np.full(batch.items, SolveStatus.BAD_DATA, dtype=object)
        norms = np.full(batch.items, np.nan)
        iterations = np.zeros(batch.items, dtype=np.int64)
        solved: dict[int, tuple[ConvexProgram, QP, Solution]] = {}
        said: dict[int, str] = {}
        sizes = set()
        for item in range(batch.items):
            own = tuple(call.item(i, t, item) for i, t in enumerate(parameters))
            program = ConvexProgram(*layer._functions, own, starts[item], initial_point.device)
            sizes.add((program.n, program.p, program.m))
            if len(sizes) > 1:
                raise ProblemError(
                    f"{batch.label(item)}the number of constraints differs between items: (n, p, m)"
                    f" is one of {sorted(sizes)}. Solve them in separate calls."
                )
            try:
                point = layer._method.solve(program, options=layer.forward_options())
            except UndefinedError as error:
                if layer.raises:
                    raise UndefinedError(f"{batch.label(item)}{error}") from error
                said[item] = str(error)
                continue
            if point.message:
                said[item] = point.message
            status[item], norms[item] = point.status, point.kkt_norm
            iterations[item] = point.iterations
            if point.local is not None and point.status.usable:
                solved[item] = program, point.local, point
        if layer.raises:
            judged = status.copy()
            if callable(layer.forward_name):
                judged[status == SolveStatus.INACCURATE] = SolveStatus.SOLVED
            batch.raise_failures(layer._method.name, judged, norms, said)
        ctx.call, ctx.solved, ctx.sizes = call, solved, sizes.pop()
        ctx.set_materialize_grads(False)
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*parameters)
        norm, count = batch.tensor(norms, torch.float64), batch.tensor(iterations, torch.int64)
        ctx.mark_non_differentiable(norm, count)
        words = batch.statuses(status), batch.messages(said)
        return (*_points(batch, solved, ctx.sizes), norm, count, *words)

    jvp = refuse_forward_mode("ConvexLayer")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        refuse_transforms("ConvexLayer", grads)
        call: _Call = ctx.call
        layer, batch = call.layer, call.batch
        parameters = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, None, *_again(ctx, grads))
        wanted = ctx.needs_input_grad[2:]
        out = [
            torch.zeros(t.shape, dtype=torch.float64, device=t.device) if needed else None
            for t, needed in zip(parameters, wanted, strict=True)
        ]
        incoming = [
            np.zeros((batch.items, k)) if g is None else batch.rows(g)
            for g, k in zip(grads[:3], ctx.sizes, strict=True)
        ]
        none, options = np.zeros(ctx.sizes[0]), layer.backward_options()
        for item, (program, local, point) in ctx.solved.items():
            dz, dnu, dlam = (g[item] for g in incoming)
            at = adjoint(
                local, point, dz, dnu, dlam, none, none, solver=layer._backward, options=options
            )
            found = program.pullback(at.at_z, at.at_nu, at.at_lam, at.z, at.nu, at.lam)
            for i, (total, gradient) in enumerate(zip(out, found, strict=True)):
                if total is not None and gradient is not None:
                    call.item(i, total, item).add_(gradient)
        return (
            None,
            None,
            *(None if t is None else t.to(p.dtype) for t, p in zip(out, parameters, strict=True)),
        )


def _points(batch: Batch, solved: Mapping[int, Any], sizes: tuple[int, int, int]) -> list[Tensor]:
    """z, ν and λ of a call's items, NaN for those that are not solved."""
    parts = [np.full((batch.items, k), np.nan) for k in sizes]
    for item, (_, _, point) in solved.items():
        for part, value in zip(parts, (point.z, point.nu, point.lam), strict=True):
            part[item] = value
    return [batch.tensor(part) for part in parts]


def _again(ctx: Any, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients as differentiable functions of everything; see :mod:`.second_order`."""
    call, solved, parameters = ctx.call, ctx.solved, ctx.saved_tensors
    batch, wanted = call.batch, ctx.needs_input_grad[2:]
    points = tuple(_points(batch, solved, ctx.sizes))
    state = {"call": call, "solved": solved, "sizes": ctx.sizes}
    # The start is no parameter: an empty one stands for it.
    known = Known(state, points, _ConvexFunction.backward, unsaved=1)
    z, nu, lam = (batch.float64_rows(v) for v in known.again(torch.zeros(0), *parameters))
    rates = [
        p.new_zeros(p.shape).double() if g is None else batch.float64_rows(g)
        for g, p in zip(grads[:3], (z, nu, lam), strict=True)
    ]
    views = [view(t, w) for t, w in zip(parameters, wanted, strict=True)]
    seen = [t if v is None else v for t, v in zip(parameters, views, strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    for item, (program, local, point) in solved.items():
        rows = np.flatnonzero(active_set(local, point).rows)

        def at(x: Tensor, _: Tensor, values: Any, program: Any = program, rows: Any = rows) -> Any:
            f, h, g = program.evaluate(x.to(program.device), values)
            return f.cpu(), torch.cat([h, g[rows]]).cpu(), None

        own, same = (
            tuple(as_float64(call.item(i, t, item)) for i, t in enumerate(given))
            for given in (parameters, seen)
        )
        y = torch.cat([nu[item], lam[item][rows]])
        dy = torch.cat([rates[1][item], rates[2][item][rows]])
        what = f"ConvexLayer, {batch.label(item)}".rstrip(" :,")
        total = total + pairing(at, z[item], y, own, same, rates[0][item], dy, what)
    return pulled(total, views)
