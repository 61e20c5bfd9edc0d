"""A parametrised cvxpy problem as a layer: a QP where it is one, else a cone program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ProblemError
from ...problems.solution import Solution
from ..items import broadcast
from ..qp import QPLayer
from ..socp import SOCPLayer
from ..transforms import eager
from .checks import ParameterShape
from .program import Program, read_program


def from_cvxpy(
    problem: Any,
    parameters: Sequence[Any],
    variables: Sequence[Any],
    forward: str = "auto",
    backward: str = "auto",
    *,
    tolerance: float = 1e-8,
    max_iterations: int | None = None,
    on_failure: str = "raise",
    options: Mapping[str, Any] | None = None,
) -> CvxpyLayer:
    """The layer that maps ``parameters`` of a cvxpy ``problem`` to its optimal ``variables``.

    It is called as cvxpylayers' layer is: ``x, y = layer(p1, p2)``.

    Parameters
    ----------
    problem : a DPP ``cvxpy.Problem`` that cvxpy turns into a QP or a second-order cone program;
        ``quad_form(x, S)`` with a parameter S may stand in the objective. Its parameters need no
        values, and it is not changed.
    parameters : all parameters of the problem, in the order in which the layer takes tensors.
    variables : those that the layer returns, in this order.
    forward, backward, tolerance, max_iterations, on_failure, options : as in
        :class:`~bpqp_portfolio.QPLayer`, or :class:`~bpqp_portfolio.SOCPLayer` where the problem
        has second-order cones.

    Raises
    ------
    ConfigError
        Lists that do not fit the problem; complex or integer variables; an unknown solver.
    ProblemError
        A problem that is not DPP, or that needs exponential, power or semidefinite cones.

    Examples
    --------
    >>> import cvxpy as cp
    >>> import torch
    >>> import bpqp_portfolio as bp
    >>> x, target = cp.Variable(2), cp.Parameter(2)
    >>> distance = cp.Minimize(cp.sum_squares(x - target))
    >>> layer = bp.from_cvxpy(cp.Problem(distance, [cp.sum(x) == 1, x >= 0]), [target], [x])
    >>> (nearest,) = layer(torch.tensor([1.0, 1.5]))
    >>> nearest
    tensor([0.2500, 0.7500])

    References
    ----------
    Akshay Agrawal et al., Differentiable convex optimization layers, 2019, for DPP and for the
    affine map from parameters to the data of a program.
    """
    program = read_program(problem, parameters, variables)
    kind = SOCPLayer if program.cones else QPLayer
    solver = kind(
        forward,
        backward,
        tolerance=tolerance,
        max_iterations=max_iterations,
        on_failure=on_failure,
        options=options,
    )
    return CvxpyLayer(program, solver)


class CvxpyLayer(nn.Module):
    """What :func:`from_cvxpy` returns: cvxpy's affine maps in torch, then a QP or cone layer.

    The module has no parameters, keeps nothing between calls and does not refer to the cvxpy
    problem. Data are computed and solved in float64 on the CPU; variables have the dtype and
    device of the inputs.
    """

    def __init__(self, program: Program, solver: QPLayer | SOCPLayer) -> None:
        super().__init__()
        self.solver = solver
        self._program = program

    def forward(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        """The variables; see :meth:`solve`."""
        return self.solve(*parameters)[0]

    @eager
    def solve(self, *parameters: Tensor) -> tuple[tuple[Tensor, ...], Solution]:
        """The optimal variables, and the solution of the program that cvxpy made.

        Variables of cvxpy's that an equality defines, such as y = Fx in sum_squares(F @ x), are
        put in before solving, unless the program is large and sparse.

        Parameters
        ----------
        parameters : tensors (..., *shape) with the parameters' shapes, in their order; leading
            batch dimensions broadcast. The gradient of a symmetric parameter is symmetric.

        Returns
        -------
        Variables (..., *shape), and a Solution with ``status``, ``kkt_norm``, ``solver`` and, in
        float64, z and the duals of that program, less the variables that were put in.

        Raises
        ------
        ProblemError
            A tensor missing, or of the wrong shape or dtype; where failures raise also values that
            are not finite or not as the parameter was declared, naming parameter and item. Else
            such items come back as NaN.
        SolverError
            Where failures raise, one for all items that were not solved.
        """
        shapes = self._program.parameters
        names = ", ".join(s.name.removeprefix("parameter ") for s in shapes)
        if len(parameters) != len(shapes):
            raise ProblemError(
                f"expected {len(shapes)} tensors, for the parameters ({names}) in this order, got "
                f"{len(parameters)}."
            )
        leads = {s.name: s.lead(v) for s, v in zip(shapes, parameters, strict=True)}
        lead = broadcast(leads) if leads else ()
        dtype, device = _common(parameters)
        values = [self._checked(s, v) for s, v in zip(shapes, parameters, strict=True)]
        own = self._program
        arguments: dict[str, Any] = {k: f(values) for k, f in own.arguments.items()}
        cones = [(F(values), g(values), c(values), d(values)[..., 0]) for F, g, c, d in own.cones]
        replaced = own.substitution
        if replaced is not None:
            A = arguments["A"] = arguments["A"].to_dense()
            T, s = replaced.basis(A, arguments["b"])
            arguments = replaced.reduced(arguments, T, s)
            cones = [replaced.cone(*cone) for cone in cones]
        solution: Solution
        if isinstance(self.solver, SOCPLayer):
            solution = self.solver.solve(**{"P": None, **arguments}, cones=cones)
        else:
            solution = self.solver.solve(**{"P": None, **arguments})
        z = solution.z
        if replaced is not None:
            z = (T @ z[..., None])[..., 0] + s
        z = z.to(device, dtype)
        if z.shape[:-1] != lead:
            z = z.expand(*lead, -1)
        return tuple(place(z) for place in self._program.variables), solution

    def _checked(self, shape: ParameterShape, value: Tensor) -> Tensor:
        """A parameter as a flat float64 tensor; bad items raise, or become NaN."""
        flat = shape.flat(value)
        for expected, bad in shape.faults(flat, value.dtype).items():
            if not bad.any():
                continue
            if self.solver.raises:
                item = bad.nonzero()[0].tolist()
                where = f"item {item[0] if len(item) == 1 else tuple(item)}: " if item else ""
                raise ProblemError(f"{where}{shape.name}: expected {expected}.")
            flat = torch.where(bad[..., None], torch.nan, flat)
        return flat


def _common(tensors: Sequence[Tensor]) -> tuple[torch.dtype, torch.device]:
    """The dtype to which tensors promote, float64 without any, and their device."""
    if not tensors:
        return torch.float64, torch.device("cpu")
    devices = {t.device for t in tensors}
    if len(devices) > 1:
        raise ProblemError(
            f"parameters are on several devices ({', '.join(sorted(map(str, devices)))}); "
            "move them to one."
        )
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype, tensors[0].device
