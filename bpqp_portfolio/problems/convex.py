"""One smooth program of plain torch callables: its values, derivatives and local QP as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProblemError
from .matrices import Array
from .qp import QP
from .solution import Solution, SolveStatus


class UndefinedError(ProblemError):
    """A value or derivative of a program is NaN or infinite at a point."""


@dataclass(frozen=True, eq=False)
class ConvexProgram:
    """min f(z)  subject to  h(z) = 0,  g(z) ≤ 0, for one set of parameters.

    Parameters
    ----------
    objective : (z, *parameters) → scalar; equalities → (p,), inequalities → (m,), or None. Plain
        torch callables of z (n,). f, h and g must be twice differentiable by torch where they are
        evaluated. They need not be convex.
    parameters : tensors; they are detached, and floating point ones cast to float64.
    initial_point : (n,), where the callables are checked.

    All methods take and return float64 numpy arrays and may be called from several threads.

    Raises
    ------
    ProblemError
        Names the callable: a result that is no tensor or has the wrong shape, one that is cut off
        from z, or one that depends on a tensor that requires a gradient and is no parameter.
    """

    objective: Callable[..., Tensor]
    equalities: Callable[..., Tensor] | None
    inequalities: Callable[..., Tensor] | None
    parameters: tuple[Tensor, ...]
    initial_point: Array
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    p: int = field(init=False)
    m: int = field(init=False)

    def __post_init__(self) -> None:
        parameters = tuple(as_float64(t.detach()) for t in self.parameters)
        object.__setattr__(self, "parameters", parameters)
        object.__setattr__(self, "initial_point", np.array(self.initial_point, dtype=np.float64))
        with torch.enable_grad():
            z = self._leaf(self.initial_point)
            f, h, g = self.evaluate(z, self.parameters)
            if f.ndim != 0:
                raise ProblemError(
                    f"objective: expected a scalar, got shape {tuple(f.shape)}; end it with .sum()."
                )
            for name, value in (("equalities", h), ("inequalities", g)):
                if value.ndim != 1:
                    raise ProblemError(
                        f"{name}: expected one dimension, one entry for each constraint, got shape "
                        f"{tuple(value.shape)}; use torch.cat or .reshape(-1)."
                    )
            for name, value in (("objective", f), ("equalities", h), ("inequalities", g)):
                if value.numel() and not value.requires_grad:
                    raise ProblemError(
                        f"{name}: the result is cut off from z, so torch cannot differentiate it. "
                        "Write it in torch operations on z, without .detach(), .item(), .numpy() "
                        "or no_grad (for a constant add 0 * z.sum())."
                    )
            for name, value in (("objective", f), ("equalities", h), ("inequalities", g)):
                if value.numel():
                    self._refuse_lost_curvature(name, value.sum(), z)
            fixed = self.evaluate(z.detach(), self.parameters)
        for name, value in zip(("objective", "equalities", "inequalities"), fixed, strict=True):
            if value.requires_grad:
                raise ProblemError(
                    f"{name}: depends on a tensor that requires a gradient and is not among the "
                    "parameters, which would get none. Pass it to the layer as a parameter, or "
                    "detach it."
                )
        object.__setattr__(self, "p", len(h))
        object.__setattr__(self, "m", len(g))

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.initial_point)

    def value(self, z: Array) -> float:
        """f(z)."""
        return self._array(self._plain(self.objective, "objective", z)).item()

    def gradient(self, z: Array) -> Array:
        """∇f(z) (n,)."""
        return self._derivative("objective", z)[0]

    def h(self, z: Array) -> Array:
        """Values of the equalities (p,)."""
        return self._array(self._plain(self.equalities, "equalities", z))

    def g(self, z: Array) -> Array:
        """Values of the inequalities (m,), feasible where at most 0."""
        return self._array(self._plain(self.inequalities, "inequalities", z))

    def jacobian_h(self, z: Array) -> Array:
        """Jacobian of the equalities (p, n)."""
        return self._derivative("equalities", z)

    def jacobian_g(self, z: Array) -> Array:
        """Jacobian of the inequalities (m, n)."""
        return self._derivative("inequalities", z)

    def hessian(self, z: Array, nu: Array, lam: Array, weight: float = 1.0) -> Array:
        """Hessian (n, n) of weight · f + νᵀh + λᵀg."""
        with torch.enable_grad():
            x = self._leaf(z)
            f, h, g = self.evaluate(x, self.parameters)
            return self._array(self._hessian(x, weight * f + self._dot(nu, h) + self._dot(lam, g)))

    def local_qp(self, z: Array, nu: Array, lam: Array) -> QP:
        """The QP that has, at (z, ν, λ), this program's KKT residuals and Newton step.

        Its P is the Hessian of the Lagrangian f + νᵀh + λᵀg, its rows are the constraints
        linearised at z. Its backward QP at that point is the program's (arXiv:2411.19285,
        Theorem 1). P is indefinite where the program is not convex.

        Raises
        ------
        UndefinedError
            A value or derivative is NaN or infinite at z.
        """
        with torch.enable_grad():
            x = self._leaf(z)
            f, h, g = self.evaluate(x, self.parameters)
            slope = self._rows("objective", f.reshape(1), x)[0]
            A, G = self._rows("equalities", h, x), self._rows("inequalities", g, x)
            H = self._hessian(x, f + self._dot(nu, h) + self._dot(lam, g))
        arrays = {
            "objective": (f, slope),
            "equalities": (h, A),
            "inequalities": (g, G),
            "the Hessian of the Lagrangian": (H,),
        }
        for name, values in arrays.items():
            for value, what in zip(values, ("value", "derivative"), strict=False):
                _refuse_undefined(name, what, value)
        at_h, at_g, df, dh, dg, P = (self._array(t) for t in (h, g, slope, A, G, H))
        return QP(P, df - P @ z, dh, dh @ z - at_h, dg, dg @ z - at_g)

    def pullback(
        self, z: Array, nu: Array, lam: Array, dz: Array, dnu: Array, dlam: Array
    ) -> tuple[Tensor | None, ...]:
        """Gradient of dzᵀ∇_z L(z, ν, λ; y) + dνᵀh(z; y) + dλᵀg(z; y) in every parameter y.

        One vector-Jacobian product, z, ν, λ and the three directions held fixed. A parameter that
        is not floating point, or that nothing depends on, gets None.
        """
        wanted = [t.is_floating_point() for t in self.parameters]
        leaves = tuple(
            t.detach().requires_grad_(w) for t, w in zip(self.parameters, wanted, strict=True)
        )
        inputs = [t for t in leaves if t.requires_grad]
        if not inputs:
            return (None,) * len(leaves)
        with torch.enable_grad():
            x = self._leaf(z)
            f, h, g = self.evaluate(x, leaves)
            L = f + self._dot(nu, h) + self._dot(lam, g)
            (slope,) = torch.autograd.grad(L, x, create_graph=True)
            total = self._dot(dz, slope) + self._dot(dnu, h) + self._dot(dlam, g)
            if not total.requires_grad:
                return (None,) * len(leaves)
            found = iter(torch.autograd.grad(total, inputs, allow_unused=True))
        return tuple(next(found) if w else None for w in wanted)

    def refuse_undefined(self, z: Array) -> None:
        """Raise :class:`UndefinedError` if f, ∇f, h or g is not finite at z; it names which."""
        for name, what, value in (
            ("objective", "value", np.array([self.value(z)])),
            ("objective", "derivative", self.gradient(z)),
            ("equalities", "value", self.h(z)),
            ("inequalities", "value", self.g(z)),
        ):
            _refuse_undefined(name, what, torch.from_numpy(value))

    def evaluate(self, z: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors f(z) (), h(z) (p,) and g(z) (m,)."""
        return (
            self._call(self.objective, "objective", z, parameters),
            self._call(self.equalities, "equalities", z, parameters),
            self._call(self.inequalities, "inequalities", z, parameters),
        )

    def _call(
        self, function: Callable[..., Tensor] | None, name: str, z: Tensor, parameters: Any
    ) -> Tensor:
        if function is None:
            return z.new_zeros(0)
        try:
            value = function(z, *parameters)
        except Exception as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in parameters) or "none"
            error.add_note(
                f"{name} was called with z {tuple(z.shape)} and parameters of shapes {shapes}, all "
                f"floating point numbers in float64 on {z.device}."
            )
            raise
        if not isinstance(value, Tensor):
            raise ProblemError(
                f"{name}: expected a torch tensor, got {type(value).__name__}; write it in torch "
                "operations on z."
            )
        return as_float64(value)

    def _plain(self, function: Callable[..., Tensor] | None, name: str, z: Array) -> Tensor:
        with torch.no_grad():
            return self._call(function, name, self._leaf(z).detach(), self.parameters)

    def _derivative(self, name: str, z: Array) -> Array:
        with torch.enable_grad():
            x = self._leaf(z)
            value = self._call(getattr(self, name), name, x, self.parameters)
            return self._array(self._rows(name, value.reshape(-1), x))

    def _rows(self, name: str, values: Tensor, x: Tensor) -> Tensor:
        """Jacobian of ``values`` (k,) in x, (k, n); the graph is kept."""
        k = len(values)
        if k == 0 or not values.requires_grad:
            return x.new_zeros(k, len(x))
        try:
            if k == 1:
                (row,) = torch.autograd.grad(
                    values[0], x, retain_graph=True, materialize_grads=True
                )
                return row.unsqueeze(0)
            (rows,) = torch.autograd.grad(
                values,
                x,
                torch.eye(k, dtype=values.dtype, device=values.device),
                retain_graph=True,
                is_grads_batched=True,
                materialize_grads=True,
            )
        except RuntimeError as error:
            raise ProblemError(
                f"{name}: torch cannot differentiate it in z ({error}). Use operations with "
                "derivatives of first and second order."
            ) from error
        return rows

    def _hessian(self, x: Tensor, lagrangian: Tensor) -> Tensor:
        name = "the Hessian of the Lagrangian"
        (slope,) = self._differentiate(name, lagrangian, x)
        H = self._rows(name, slope, x)
        return 0.5 * (H + H.mT)

    def _leaf(self, z: Array) -> Tensor:
        return torch.tensor(z, dtype=torch.float64, device=self.device, requires_grad=True)

    def _dot(self, weights: Array, values: Tensor) -> Tensor:
        return torch.as_tensor(weights, dtype=values.dtype, device=values.device) @ values

    def _refuse_lost_curvature(self, name: str, total: Tensor, x: Tensor) -> None:
        """Refuse a function whose first derivative has no graph, as if linear, and yet changes.

        torch does not say so itself: a derivative computed without a graph, as that of a function
        marked ``once_differentiable`` is, has a second derivative of zero.
        """
        (slope,) = self._differentiate(name, total, x)
        if slope.requires_grad:
            return
        # Beside the start, which may well be on a kink.
        size = 1e-3 * max(1.0, float(np.abs(self.initial_point).max()))
        near = self.initial_point + size * np.cos(np.arange(self.n))
        here, there = (
            self._derivative(name, near + step * np.sin(1.0 + np.arange(self.n))).sum(0)
            for step in (0.0, 1e-3 * size)
        )
        change = np.abs(there - here).max()
        if change > 1e-9 * np.abs(here).max():  # not so where either is NaN
            raise ProblemError(
                f"{name}: its first derivative depends on z, but torch has no second one for it. "
                "Write it in operations that are differentiable twice, without no_grad or "
                "once_differentiable in their backward."
            )

    @staticmethod
    def _differentiate(name: str, total: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Gradient of a scalar in x, with its graph."""
        try:
            return torch.autograd.grad(total, x, create_graph=True, materialize_grads=True)
        except RuntimeError as error:
            raise ProblemError(f"{name}: torch cannot differentiate it in z ({error}).") from error

    @staticmethod
    def _array(value: Tensor) -> Array:
        return value.detach().cpu().numpy()


@dataclass(frozen=True, eq=False)
class SmoothSolution(Solution):
    """A primal-dual point of one smooth program, whose bounds are inequalities.

    ``local`` is the program's local QP at the point (:meth:`ConvexProgram.local_qp`), which has its
    residuals and its backward QP; None where there is no point at which it is finite.
    """

    local: QP | None = None

    @classmethod
    def failed(
        cls, problem: ConvexProgram, status: SolveStatus, *, iterations: int, solver: str
    ) -> SmoothSolution:
        """A Solution of ``problem`` without a point; see :meth:`Solution.failed`."""
        n, p, m = problem.n, problem.p, problem.m
        z, nu, lam = (np.full(size, np.nan) for size in (n, p, m))
        none = np.zeros(n)
        return cls(z, nu, lam, none, none, status, float("nan"), iterations, solver)


def as_float64(value: Tensor) -> Tensor:
    """A floating point tensor in float64, any other as it is."""
    return value.to(torch.float64) if value.is_floating_point() else value


def _refuse_undefined(name: str, what: str, value: Tensor) -> None:
    bad = torch.nonzero(~torch.isfinite(value.detach().reshape(-1)))
    if len(bad):
        raise UndefinedError(
            f"{name}: its {what} is not finite at this point ({len(bad)} of {value.numel()} "
            "entries). Start inside its domain, and add constraints that keep z there."
        )
