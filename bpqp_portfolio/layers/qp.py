"""The differentiable QP layer: any forward solver, any backward QP, one autograd function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ProblemError, SolverError
from ..problems.qp import ARGUMENTS, QP, check_shapes
from ..problems.solution import Solution, SolveStatus
from ..solvers.adjoint import Adjoint, adjoint
from ..solvers.protocol import Solver, SolverOptions
from ..solvers.registry import get_backward, get_solver

_MATRICES = ("P", "A", "G")
_SHOWN = 5


class QPLayer(nn.Module):
    """min ½ zᵀPz + qᵀz  s.t.  Az = b,  Gz ≤ h,  lb ≤ z ≤ ub, differentiable in all of them.

    Parameters
    ----------
    forward : forward solver by name; see :func:`~bpqp_portfolio.available_solvers`.
    backward : "kkt" for the direct solve of the backward QP, or a forward solver's name. Every
        pair works.
    eps : scaled KKT norm to reach, of the forward point and of an iterative backward.
    throw : raise where an item fails. Otherwise a failed item is NaN with its status and gets zero
        gradient, an inaccurate one is kept, and the other items are untouched.
    options : further settings of the forward solver, by its own names.

    Raises
    ------
    ConfigError
        An unknown solver or setting.
    SolverNotInstalledError
        A known solver whose package is missing.

    Notes
    -----
    The module has no parameters and keeps nothing between calls. Solving is in float64 on the CPU;
    results have the dtype and device of the inputs. Gradients are exact where the active set is
    locally constant; a weakly active constraint is differentiated as inactive, redundant rows and
    flat directions in the least-norm sense (see :mod:`bpqp_portfolio.solvers.kkt`), so a gradient
    is never NaN.

    References
    ----------
    arXiv:2411.19285, Theorem 1.
    """

    def __init__(
        self,
        forward: str = "osqp",
        backward: str = "kkt",
        eps: float = 1e-8,
        throw: bool = True,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.forward_name, self.backward_name = forward, backward
        self.eps, self.throw = eps, throw
        self._methods = _Methods(
            solver=get_solver(forward),
            options=SolverOptions(eps=eps, native=dict(options or {})),
            backward=get_backward(backward),
            backward_options=SolverOptions(eps=eps),
        )

    def extra_repr(self) -> str:
        return (
            f"forward={self.forward_name!r}, backward={self.backward_name!r}, eps={self.eps:g}, "
            f"throw={self.throw}"
        )

    def forward(
        self,
        P: Tensor,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        lb: Tensor | None = None,
        ub: Tensor | None = None,
    ) -> Tensor:
        """The minimiser z (..., n); see :meth:`solve`."""
        return self.solve(P, q, A, b, G, h, lb, ub).z

    def solve(
        self,
        P: Tensor,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
        lb: Tensor | None = None,
        ub: Tensor | None = None,
    ) -> Solution:
        """The primal-dual solution; z, nu, lam, lam_lb and lam_ub carry gradients.

        Parameters
        ----------
        P : (..., n, n) symmetric; its gradient is symmetric.
        q, lb, ub : (..., n); bounds may be infinite.
        A : (..., p, n), b : (..., p), G : (..., m, n), h : (..., m).
            Every leading batch shape broadcasts with the others.

        Returns
        -------
        Solution of tensors; ``status`` is a :class:`~bpqp_portfolio.SolveStatus`, or for a batch an
        object array of them.

        Raises
        ------
        ProblemError
            Wrong shapes; with ``throw`` also bad values (NaN, lb > ub, P not symmetric), naming
            argument and item.
        SolverError
            With ``throw``, one for all items that were not solved.
        """
        given = dict(zip(ARGUMENTS, (P, q, A, b, G, h, lb, ub), strict=True))
        sizes = check_shapes({k: _shape(k, v) for k, v in given.items()})
        tensors = [v for v in given.values() if v is not None]
        batch = _batch_shape(given)
        devices = {t.device for t in tensors}
        if len(devices) > 1:
            raise ProblemError(
                f"arguments are on several devices ({', '.join(sorted(map(str, devices)))}); "
                "move them to one."
            )
        dtype = tensors[0].dtype
        for tensor in tensors[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        call = _Call(self._methods, self.throw, batch, sizes, dtype)
        z, nu, lam, lam_lb, lam_ub, norm, count, status = _QPFunction.apply(call, *given.values())
        return Solution(z, nu, lam, lam_lb, lam_ub, status, norm, count, self.forward_name)


@dataclass(frozen=True)
class _Methods:
    """How a layer solves forward and backward; ``backward`` None is the direct KKT solve."""

    solver: Solver
    options: SolverOptions
    backward: Solver | None
    backward_options: SolverOptions


@dataclass(frozen=True)
class _Call:
    """What one call of a layer is about, besides the tensors."""

    methods: _Methods
    throw: bool
    batch: tuple[int, ...]
    sizes: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def items(self) -> int:
        return int(np.prod(self.batch, dtype=int))

    def label(self, item: int) -> str:
        """``"item 3: "``, or nothing where there is no batch."""
        if not self.batch:
            return ""
        index = tuple(int(i) for i in np.unravel_index(item, self.batch))
        return f"item {index[0] if len(index) == 1 else index}: "


def _shape(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ProblemError(f"{name}: expected a tensor of floating point numbers, got {kind}.")
    return tuple(value.shape)


def _lead(name: str, value: Tensor) -> tuple[int, ...]:
    """Batch dimensions of an argument."""
    return tuple(value.shape[: value.ndim - (2 if name in _MATRICES else 1)])


def _batch_shape(given: Mapping[str, Tensor | None]) -> tuple[int, ...]:
    leads = {k: _lead(k, v) for k, v in given.items() if v is not None}
    try:
        return tuple(torch.broadcast_shapes(*leads.values()))
    except RuntimeError:
        shown = ", ".join(f"{k} {lead}" for k, lead in leads.items())
        raise ProblemError(f"batch dimensions do not broadcast: {shown}.") from None


def _positions(lead: tuple[int, ...], batch: tuple[int, ...]) -> np.ndarray:
    """For every item of the batch, which item of an argument with batch shape ``lead`` it uses."""
    own = np.arange(int(np.prod(lead, dtype=int))).reshape(lead)
    return np.broadcast_to(own, batch).reshape(-1)


def _flat(name: str, value: Tensor) -> np.ndarray:
    """An argument as a float64 array with one batch dimension."""
    array = value.detach().to("cpu", torch.float64).numpy()
    lead = _lead(name, value)
    return array.reshape(int(np.prod(lead, dtype=int)), *array.shape[len(lead) :])


def _zeros(name: str, value: Tensor) -> np.ndarray:
    """Where the gradient of an argument is collected; the shape is that of :func:`_flat`."""
    lead = _lead(name, value)
    return np.zeros((int(np.prod(lead, dtype=int)), *value.shape[len(lead) :]))


class _QPFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *arguments: Tensor | None) -> Any:  # type: ignore[override]
        given = {k: v for k, v in zip(ARGUMENTS, arguments, strict=True) if v is not None}
        arrays = {k: _flat(k, v) for k, v in given.items()}
        places = {k: _positions(_lead(k, v), call.batch) for k, v in given.items()}
        n, p, m = call.sizes
        parts = [np.full((call.items, k), np.nan) for k in (n, p, m, n, n)]
        norms = np.full(call.items, np.nan)
        iterations = np.zeros(call.items, dtype=np.int64)
        status = np.full(call.items, SolveStatus.BAD_DATA, dtype=object)
        solved: dict[int, tuple[QP, Solution]] = {}
        for item in range(call.items):
            try:
                problem = QP(**{k: array[places[k][item]] for k, array in arrays.items()})
            except ProblemError as error:
                if call.throw:
                    raise ProblemError(f"{call.label(item)}{error}") from error
                continue
            solution = call.methods.solver.solve(problem, options=call.methods.options)
            status[item], norms[item] = solution.status, solution.kkt_norm
            iterations[item] = solution.iterations
            if solution.status.usable:
                solved[item] = problem, solution
                fields = (solution.z, solution.nu, solution.lam, solution.lam_lb, solution.lam_ub)
                for part, value in zip(parts, fields, strict=True):
                    part[item] = value
        if call.throw:
            _raise_failures(call, status, norms)
        ctx.call, ctx.solved, ctx.places = call, solved, places
        # Not read back as numbers, but torch then notices an argument changed in place.
        ctx.save_for_backward(*given.values())
        device = next(iter(given.values())).device

        def out(array: np.ndarray, dtype: torch.dtype) -> Tensor:
            shaped = array.reshape(call.batch + array.shape[1:])
            return torch.from_numpy(shaped).to(device, dtype)

        points = [out(part, call.dtype) for part in parts]
        norm, count = out(norms, torch.float64), out(iterations, torch.int64)
        ctx.mark_non_differentiable(norm, count)
        statuses = status.reshape(call.batch) if call.batch else status[0]
        return (*points, norm, count, statuses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        call: _Call = ctx.call
        tensors = dict(zip(ctx.places, ctx.saved_tensors, strict=True))
        needed = {
            name for name, wanted in zip(ARGUMENTS, ctx.needs_input_grad[1:], strict=True) if wanted
        }
        out = {k: _zeros(k, tensors[k]) for k in needed}
        incoming = [_rows(g, call.items) for g in grads[:5]]
        methods = call.methods
        for item, (problem, solution) in ctx.solved.items():
            found = adjoint(
                problem,
                solution,
                *(g[item] for g in incoming),
                solver=methods.backward,
                options=methods.backward_options,
            )
            for name in needed:
                out[name][ctx.places[name][item]] += _gradient(name, found, solution)
        given = (
            torch.from_numpy(out[k]).reshape(tensors[k].shape).to(tensors[k])
            if k in needed
            else None
            for k in ARGUMENTS
        )
        return (None, *given)


def _rows(grad: Tensor, items: int) -> np.ndarray:
    """A gradient (*batch, k) as a float64 array (items, k)."""
    return grad.detach().to("cpu", torch.float64).reshape(items, grad.shape[-1]).numpy()


def _gradient(name: str, found: Adjoint, solution: Solution) -> np.ndarray:
    """Gradient in one argument of one item, from the solved backward QP."""
    z = solution.z
    match name:
        case "P":
            outer = np.outer(found.z, z)
            return 0.5 * (outer + outer.T)
        case "q":
            return found.z
        case "A":
            return np.outer(found.nu, z) + np.outer(solution.nu, found.z)
        case "b":
            return -found.nu
        case "G":
            return np.outer(found.lam, z) + np.outer(found.lam_active, found.z)
        case "h":
            return -found.lam
        case "lb":
            return found.lb
        case _:
            return found.ub


def _raise_failures(call: _Call, status: np.ndarray, norms: np.ndarray) -> None:
    failures = [i for i in range(call.items) if status[i] is not SolveStatus.SOLVED]
    if not failures:
        return
    shown = []
    for item in failures[:_SHOWN]:
        norm = f" (KKT norm {norms[item]:.1e})" if np.isfinite(norms[item]) else ""
        shown.append(f"{call.label(item)}{status[item].value}{norm}")
    if len(failures) > _SHOWN:
        shown.append(f"and {len(failures) - _SHOWN} more")
    raise SolverError(
        f"{call.methods.solver.name}: {len(failures)} of {call.items} problems not solved: "
        f"{'; '.join(shown)}. With throw=False such items come back as NaN with their status."
    )
